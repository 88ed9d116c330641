"""steady: a Hydra sweeper with Optuna in steady state, for any Hydra app. `docs/steady.md` is its front page."""
