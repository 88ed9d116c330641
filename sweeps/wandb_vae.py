"""The study of `sweeps/wandb_vae.yaml`, for `wandb sweep-scheduler`."""

import optuna
from wandb.sdk.sweeps.scheduler.optuna import sweep_directions
from wandb.sdk.sweeps.sweep_info import SweepInfo


def study(sweep: SweepInfo) -> optuna.Study:
    """Make a study with Optuna's TPE: left to itself, W&B takes NSGA-II, of which 50 runs at first are random."""
    sampler = optuna.samplers.TPESampler(n_startup_trials=6, constant_liar=True)
    return optuna.create_study(directions=sweep_directions(sweep.config), sampler=sampler)
