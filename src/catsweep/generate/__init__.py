"""Use a trained generator: new cats, interpolations, one's own photos, attributes."""
