"""Record runs and sweeps with loggers, above all Weights & Biases."""
