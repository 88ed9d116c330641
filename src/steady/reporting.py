"""Reporting of a trial to its study while it runs: scores in, "go on" or "end" out.

For any Hydra app::

    trial: {number: null, attempt: 0, study: null, storage: null}      # in the config; the sweeper fills it in

    reporter = TrialReporter.from_config(cfg.trial)                    # None outside a sweep
    for epoch in range(cfg.epochs):
        loss = train_one_epoch()
        if reporter and reporter.report(epoch, {"loss": loss}):
            raise optuna.TrialPruned

It goes through the study's storage, so it works in any process, under any launcher, on any host.
"""

import functools
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from steady.atomic import write_json
from steady.exceptions import DivergedError, StudyError
from steady.propose.pruning import should_prune
from steady.study import meta
from steady.study.storage import open_storage
from steady.study.trial_folders import PROGRESS


class TrialReporter:
    """A reporter of the scores of one trial.

    Args:
        study: of the trial.
        number: its number.
        attempt: which of its attempts this is.

    Example:
        >>> study = optuna.create_study()
        >>> reporter = TrialReporter(study, study.ask().number)
        >>> reporter.report(1, {"loss": 0.5})  # the study does not prune
        False
        >>> study.trials[0].user_attrs
        {'steady:rungs': {'1': {'loss': 0.5}}}
    """

    def __init__(self, study: optuna.Study, number: int, attempt: int = 0) -> None:
        self.study, self.number, self.attempt = study, number, attempt
        self.settings: Mapping[str, Any] | None = meta.get(study, meta.PRUNING)

    @classmethod
    def from_config(cls, trial: DictConfig) -> "TrialReporter | None":
        """Make the reporter of a job from the node `trial` of its configuration; None outside a sweep of ours.

        Example:
            >>> TrialReporter.from_config(OmegaConf.create({"storage": None}))
        """
        if trial.get("storage") is None:
            return None
        storage = open_storage(_from_here(trial.storage), make=False, check=False)
        study = optuna.load_study(study_name=str(trial.study), storage=storage)
        return cls(study, trial.number, trial.attempt)

    @property
    def metrics(self) -> list[str]:
        """The names of the scores that the study prunes by; none if it does not prune."""
        return list(self.settings["metrics"]) if self.settings else []

    def report(self, step: int, scores: Mapping[str, float]) -> bool:
        """Report the scores at a rung.

        Args:
            step: of the rung, rising, and counted alike by all trials. One that was reported before, by an earlier
                attempt, keeps its scores.
            scores: by name.

        Returns:
            Whether the trial should end (raise `optuna.TrialPruned`).

        Raises:
            DivergedError: a score is not a finite number.
            StudyError: the study prunes by a score that is not among them.
        """
        if bad := {name: value for name, value in scores.items() if not math.isfinite(value)}:
            raise DivergedError(f"Scores must be finite numbers to go on; at rung {step} they are {bad}.")
        if missing := [name for name in self.metrics if name not in scores]:
            raise StudyError(f"The study prunes by {', '.join(missing)}; reported were {', '.join(scores)}.")
        self.alive()
        trial = self._trial()
        reported = meta.get(trial, meta.RUNGS, {})
        if str(step) not in reported:
            plain = {name: float(value) for name, value in scores.items()}
            self._storage.set_trial_user_attr(trial._trial_id, meta.RUNGS, {**reported, str(step): plain})
            if self._optuna_may_know():
                self._storage.set_trial_intermediate_value(trial._trial_id, step, plain[self.metrics[0]])
        return self.settings is not None and should_prune(self.study, self.number, step, self.settings)

    def is_current(self) -> bool:
        """Tell whether this attempt is still the one that counts; another controller may have taken the trial over."""
        trial = self._trial()
        return trial.state == TrialState.RUNNING and meta.get(trial, meta.ATTEMPT, 0) == self.attempt

    def alive(self, folder: Path | None = None) -> None:
        """Show that the trial makes progress, see `hydra.sweeper.trial_timeout`. A line in its output does so, too.

        The folder is that of the run, of Hydra's job if None.
        """
        if folder is None:
            # A configuration that was only composed, as in a notebook, has no folder.
            if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
                return
            folder = Path(HydraConfig.get().runtime.output_dir)
        with suppress(OSError):  # a full disk is not for this to tell
            (folder / PROGRESS).touch()

    def progress(self, folder: Path, **told: Any) -> None:
        """Tell the live table `epoch`, `epochs`, `metric`, `score` and `seconds_left` of the trial; any may be None."""
        write_json(folder / PROGRESS, {**told, "updated": time.time()})

    def _optuna_may_know(self) -> bool:
        """Optuna's own curves are for one objective, and compare in its direction."""
        directions = [direction.name.lower() for direction in self.study.directions]
        return (
            self.settings is not None and directions == list(self.settings["directions"])[:1] and len(self.metrics) == 1
        )

    def _trial(self) -> FrozenTrial:
        return self._storage.get_trial(self._id)

    @functools.cached_property
    def _id(self) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, self.number)

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self.study._storage


def _from_here(url: str) -> str:
    """Get the storage of a file by its path from where we are; Hydra may have moved the job (`hydra.job.chdir`)."""
    scheme, slashes, path = url.partition(":///")
    if not slashes or not scheme.startswith(("sqlite", "journal")):
        return url
    return f"{scheme}:///{os.path.relpath(to_absolute_path(path))}"
