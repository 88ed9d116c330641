"""Data: photos to ready sets to batches."""
