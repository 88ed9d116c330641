"""Records of a study: what is written on it and its trials, which controllers work on it, and what is read from it."""
