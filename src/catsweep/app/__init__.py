"""`make demo`: a page to play with a generator in the browser. `command` is the way in."""
