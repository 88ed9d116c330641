"""Synthetic cats: a seeded renderer of cat faces."""
