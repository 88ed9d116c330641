"""The Hydra plugin of steady: `hydra/sweeper=steady`."""
