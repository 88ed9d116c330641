"""From photos to ready sets to batches."""
