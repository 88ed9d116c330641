"""The search: what `hydra/sweeper=steady` does. `sweep` puts the parts together; `docs/decisions.md` says why so."""
