"""Train one generator: fit, resume, check before a start, and report to a study."""
