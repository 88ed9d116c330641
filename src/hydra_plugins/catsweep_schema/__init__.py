"""Registration of the schemas of `conf/` with Hydra, so that it composes from wherever Hydra is started."""
