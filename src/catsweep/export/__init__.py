"""Export of a run: choose the best trial, write it in portable formats, and score it again."""
