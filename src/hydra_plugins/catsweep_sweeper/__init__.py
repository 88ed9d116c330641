"""The Hydra plugin of catsweep: `hydra/sweeper=steady`."""
