"""Reconstruction, divergence and adversarial losses."""
