"""steady: a Hydra sweeper with Optuna in steady state, for any Hydra app. `docs/steady.md` is its front page."""

__version__ = "0.2.0"  # also catsweep's
