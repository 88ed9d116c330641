"""Web app to try a trained generator in the browser: `make demo`."""
