"""A Hydra sweeper with Optuna in steady state, for any Hydra app. `docs/steady.md` is its front page."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steady.exceptions import ConfigError, DivergedError, InterruptedTrial, SteadyError, StorageError, StudyError
    from steady.propose.pruning import ParetoPruner
    from steady.reporting import TrialReporter

__version__ = "0.2.0"  # also catsweep's
__all__ = [
    "ConfigError", "DivergedError", "InterruptedTrial", "ParetoPruner", "SteadyError", "StorageError", "StudyError",
    "TrialReporter",
]  # fmt: skip
_HOMES = {"ParetoPruner": "steady.propose.pruning", "TrialReporter": "steady.reporting"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'steady' has no attribute {name!r}")
    # When it is needed: Optuna takes a second.
    return getattr(import_module(_HOMES.get(name, "steady.exceptions")), name)
