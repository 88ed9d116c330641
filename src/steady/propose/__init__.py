"""Proposals of trials: the space, the samplers that draw from it, and pruning."""
