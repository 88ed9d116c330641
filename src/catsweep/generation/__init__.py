"""Use a trained generator: new cats, walks, one's own photos, attributes. `command` is the way in."""
