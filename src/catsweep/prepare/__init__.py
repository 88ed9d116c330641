"""From a folder of raw photos to a ready set, in stages that a person can open and look at."""
