"""catsweep: sweep a folder of cat photos into the best small generator of cats a budget can find."""
