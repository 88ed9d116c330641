"""Scores one can trust: extractors, reference statistics, metric cards."""
