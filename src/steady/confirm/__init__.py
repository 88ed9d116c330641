"""Confirmation of the best trials under other seeds."""
