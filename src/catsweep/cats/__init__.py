"""From photos to an export within a budget: the order of the commands, the division of the time, and what is shown."""
