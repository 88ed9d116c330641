"""The record of a run and of a sweep: loggers, provenance, media, and what Weights & Biases shows of them."""
