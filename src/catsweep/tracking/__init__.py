"""The record of a run: loggers, provenance, media."""
