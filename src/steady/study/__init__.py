"""Records of a study: what is written on it and its trials, who drives them, and what is read from it."""
