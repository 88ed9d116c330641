"""The generators, and the parts they share."""
