"""Reporting of a running trial's scores to its study, which tells whether to prune it.

For any Hydra app::

    trial: {number: null, attempt: 0, study: null, storage: null}      # in the config; the sweeper fills it in

    reporter = TrialReporter.from_config(cfg.trial)                    # None outside a sweep
    for epoch in range(cfg.epochs):
        loss = train_one_epoch()
        if reporter and reporter.report(epoch, {"loss": loss}):
            raise optuna.TrialPruned                                   # it may start again, see `promotion`

With `hydra.sweeper.promotion` a trial that ends so is paused, and starts again when it is promoted: in the same folder,
with a higher `trial.attempt`. It is to go on from a checkpoint that it wrote there, as after an interruption.

What `hydra.sweeper.constraints` bounds is noted in the same way, as soon as it is known::

    if reporter and reporter.note({"weights": count(model)}):          # beyond a bound: no need to train it
        raise optuna.TrialPruned

Works through the study's storage: in any process, under any launcher, on any host. While a storage's server is away,
the trial trains on: reports are kept, and written when it is back, at the latest before the task's result counts.
"""

import functools
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from steady.atomic import write_json
from steady.exceptions import DivergedError, InterruptedTrial, StorageError, StudyError
from steady.options import Promotion
from steady.propose.promotion import goes_on
from steady.propose.pruning import read_reported, should_prune
from steady.storage import open_storage
from steady.storage.patience import Patience, is_away, wait_at_most
from steady.study import budget, constraints, meta
from steady.study.trial_folders import PROGRESS

log = logging.getLogger(__name__)

PATIENCE = 600.0  # seconds, for a study that does not say
SHORT = 10.0  # seconds, for a task that is to end now
_unwritten: set["TrialReporter"] = set()  # reporters whose reports wait for a server


def flush(interrupted: bool = False) -> None:
    """Write the reports of this process that wait for a server that was away; called when a task has ended.

    One that was `interrupted`, or has failed, waits for seconds only: what is not written then is lost, with a warning.

    Raises:
        StorageError: the server did not come back within `hydra.sweeper.storage_patience`.

    >>> flush()
    """
    for reporter in list(_unwritten):
        try:
            with wait_at_most(SHORT if interrupted else math.inf):
                reporter.write()
        except (StorageError, InterruptedTrial) as error:
            if not interrupted:
                raise
            log.warning("Scores that trial %d reported are lost: %s", reporter.number, error)


def identity() -> dict[str, Any]:
    """Say where this process runs: host, pid, when it started (Unix time), and of which engine's job it is.

    >>> sorted(identity())
    ['engine', 'host', 'id', 'pid', 'started']
    """
    own = psutil.Process()
    return {**_job(os.environ), "host": socket.gethostname(), "pid": own.pid, "started": own.create_time()}


def _job(variables: Mapping[str, str]) -> dict[str, str]:
    if engine := variables.get("STEADY_JOB_ENGINE"):
        return {"engine": engine, "id": variables.get("STEADY_JOB_ID") or _slurm_job(variables)}
    if slurm := _slurm_job(variables):
        return {"engine": "slurm", "id": slurm}
    return {"engine": "process", "id": ""}


def _slurm_job(variables: Mapping[str, str]) -> str:
    """The job's number; in an array the array's and the task's, by which SLURM's commands take it too."""
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else variables.get("SLURM_JOB_ID", "")


class TrialReporter:
    """A reporter of the scores of one attempt of a trial.

    >>> study = optuna.create_study()
    >>> reporter = TrialReporter(study, study.ask().number)
    >>> reporter.report(1, {"loss": 0.5})  # the study does not prune
    False
    >>> study.trials[0].user_attrs
    {'steady:rungs': {'1': {'loss': 0.5}}}
    >>> reporter.note({"weights": 5e5})  # the study has no constraints
    False
    """

    def __init__(self, study: optuna.Study, number: int, attempt: int = 0, patience: Patience | None = None) -> None:
        self.study, self.number, self.attempt = study, number, attempt
        self.patience = patience or Patience(0.0)  # of the study's storage
        self.settings: Mapping[str, Any] | None = meta.get(study, meta.PRUNING)
        kept: Mapping[str, Any] | None = meta.get(study, meta.PROMOTION)
        self.promotion = None if kept is None else Promotion(**kept)
        self.paused: int | None = None  # the rung at which this attempt ends, to go on when it is promoted
        # How rung scores are judged, if they are.
        self.judged_by = tuple((self.settings or kept or {}).get(key, ()) for key in ("metrics", "directions"))
        self.constraints = constraints.of(study)
        self._pending: dict[int, dict[str, float]] = {}  # scores by rung that are not written yet
        self._noted: dict[str, float] = {}
        self._usage: dict[str, Any] | None = None  # likewise

    @classmethod
    def from_config(cls, trial: DictConfig) -> "TrialReporter | None":
        """Make the reporter of a job from the node `trial` of its configuration; None outside a sweep.

        >>> TrialReporter.from_config(OmegaConf.create({"storage": None}))
        """
        if trial.get("storage") is None:
            return None
        url, patience = _from_here(trial.storage), Patience(PATIENCE)
        storage = patience.call(lambda: open_storage(url, make=False, check=False, patience=patience))
        study = optuna.load_study(study_name=str(trial.study), storage=storage)
        patience.seconds = float(meta.get(study, meta.PATIENCE, PATIENCE))
        reporter = cls(study, trial.number, trial.attempt, patience)
        reporter.begin()
        return reporter

    def begin(self) -> None:
        """Write on the trial which job runs it; an InterruptedTrial if it is another attempt's by now.

        >>> study = optuna.create_study()
        >>> TrialReporter(study, study.ask().number).begin()
        >>> study.trials[0].user_attrs["steady:job"]["pid"] == os.getpid()
        True
        """
        trial = self._trial()
        self._require(trial)
        if meta.get(trial, meta.JOB, {}).get("attempt") != self.attempt:  # else its allocation has
            self._storage.set_trial_user_attr(trial._trial_id, meta.JOB, self._job())

    @property
    def metrics(self) -> list[str]:
        """Names of the scores that the study prunes or promotes by; empty if it does neither."""
        return list(self.judged_by[0])

    def report(self, step: int, scores: Mapping[str, float]) -> bool:
        """Report the scores at a rung, by name; tell whether the trial should end (raise `optuna.TrialPruned`).

        With `hydra.sweeper.promotion` it is then paused at that rung (`paused`), and may start again later.

        `step` rises, and counts alike in all trials. A rung that an earlier attempt has reported keeps its scores. A
        DivergedError for a score that is not finite; a StudyError if one that the study prunes by is missing; an
        InterruptedTrial if the trial is another attempt's by now.
        """
        if bad := {name: value for name, value in scores.items() if not math.isfinite(value)}:
            raise DivergedError(f"Scores must be finite numbers to go on; at rung {step} they are {bad}.")
        if missing := [name for name in self.metrics if name not in scores]:
            judges = "promotes" if self.promotion else "prunes"
            raise StudyError(
                f"The study {judges} by {', '.join(missing)}; reported were {', '.join(scores)}. Report it, or name a "
                "score that is reported as hydra.sweeper.prune_metric."
            )
        self.alive()
        self._pending[step] = {name: float(value) for name, value in scores.items()}
        _unwritten.add(self)
        with self._unless_away():
            self.write()
            if self.promotion is not None:
                return self._pauses(step, self.promotion)
            return self.settings is not None and should_prune(self.study, self.number, step, self.settings)
        return False

    def _pauses(self, step: int, promotion: Promotion) -> bool:
        """Decide whether this attempt ends at a rung, and mark the trial if so."""
        if step not in promotion.pausing or step <= meta.get(self._trial(), meta.PROMOTED, -1):
            return False
        hidden = budget.uncounted(self.study)
        rivals = (one for one in read_reported(self.study) if one.number not in hidden)
        rung = None if goes_on(rivals, self.number, step, promotion) else step
        if rung is not None or self.paused is not None:  # or it passes a rung later than one where it was to pause
            self._mark(rung)
        return rung is not None

    def _mark(self, rung: int | None) -> None:
        mark = None if rung is None else {"rung": rung, "attempt": self.attempt}
        self.paused = rung  # before it is written: of a server that drops the answer may be lost, and not the mark
        self._storage.set_trial_user_attr(self._id, meta.PAUSED, mark)

    def has_ended(self) -> None:
        """Take back that this attempt is paused: the trial had come to its end when it reported at the rung.

        A task whose last report may be at a rung that it should have passed before calls it, and returns its values.

        >>> study = optuna.create_study()
        >>> study.set_user_attr("promotion", vars(Promotion(3, [1, 9], ["loss"], ["minimize"])))
        >>> reporter = TrialReporter(study, study.ask().number)
        >>> reporter.report(1, {"loss": 0.5}), reporter.paused, reporter.has_ended(), reporter.paused
        (True, 1, None, None)
        """
        if self.paused is not None:
            self._mark(None)

    def note(self, values: Mapping[str, float]) -> bool:
        """Note values of this trial, by name; tell whether one violates a constraint (raise `optuna.TrialPruned`).

        One that an earlier attempt has noted stays. Errors as for `report`.
        """
        if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
            raise DivergedError(f"Values that a trial notes must be finite numbers; they are {bad}.")
        self._noted |= {name: float(value) for name, value in values.items()}
        _unwritten.add(self)
        with self._unless_away():
            self.write()
        return any(excess > 0 for excess in constraints.excesses(self.constraints, self._noted, False).values())

    def note_usage(self, unit: str | None, **amounts: float) -> None:
        """Note what the trial has used so far, over all its attempts; a later note replaces an earlier one.

        Amounts have names such as `seconds`, `cpu_seconds`, `samples`; `unit` is the one that every trial has the same
        of, its budget, or None. They are written with the next report, or when the task has ended.

        >>> study = optuna.create_study()
        >>> reporter = TrialReporter(study, study.ask().number)
        >>> reporter.note_usage("samples", samples=640, cpu_seconds=8.5)
        >>> flush()
        >>> study.trials[0].user_attrs
        {'steady:usage': {'samples': 640, 'cpu_seconds': 8.5, 'unit': 'samples'}}
        """
        self._usage = {**amounts, "unit": unit}
        _unwritten.add(self)

    def write(self) -> None:
        """Write the reports and values that are not written yet.

        Raises:
            InterruptedTrial: the trial is another attempt's by now; this one is to stop, and write nothing more.
        """
        trial = self._trial()
        self._require(trial)
        kept = constraints.noted(trial)
        self._noted |= kept
        if self._noted != kept:
            self._storage.set_trial_user_attr(trial._trial_id, meta.NOTED, self._noted)
        if self._usage is not None:
            self._storage.set_trial_user_attr(trial._trial_id, meta.USAGE, self._usage)
            self._usage = None
        reported = meta.get(trial, meta.RUNGS, {})
        new = {step: scores for step, scores in self._pending.items() if str(step) not in reported}
        if new:
            if self._optuna_may_know():  # first: what is in RUNGS is not written again
                for step, scores in new.items():
                    self._storage.set_trial_intermediate_value(trial._trial_id, step, scores[self.metrics[0]])
            told = {**reported, **{str(step): scores for step, scores in new.items()}}
            self._storage.set_trial_user_attr(trial._trial_id, meta.RUNGS, told)
            for step in new.keys() & set(self.promotion.pausing if self.promotion else ()):
                self._storage.set_trial_user_attr(trial._trial_id, f"{meta.REACHED}{step}", True)
        self._pending.clear()
        _unwritten.discard(self)

    def is_current(self) -> bool:
        """Tell whether this attempt still counts, as far as is known; another controller may have taken the trial."""
        with self._unless_away():
            return self._holds(self._trial())
        return True

    def require_current(self) -> None:
        """Raise an InterruptedTrial if this attempt counts no more, before it writes what the next one would find."""
        if not self.is_current():
            raise self._taken_over()

    def _job(self) -> dict[str, Any]:
        return {"attempt": self.attempt, "began": time.time(), **identity()}

    def _require(self, trial: FrozenTrial) -> None:
        if not self._holds(trial):
            _unwritten.discard(self)
            raise self._taken_over()

    def _taken_over(self) -> InterruptedTrial:
        return InterruptedTrial(
            f"Another controller has taken trial {self.number} over: attempt {self.attempt} of it stops here."
        )

    def _holds(self, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and meta.get(trial, meta.ATTEMPT, 0) == self.attempt

    @contextmanager
    def _unless_away(self) -> Iterator[None]:
        """Leave the block if the storage's server is away, without waiting for it."""
        try:
            with wait_at_most(0.0):
                yield
        except StorageError as error:
            if not is_away(error):
                raise

    def alive(self, folder: Path | None = None) -> None:
        """Show progress, as a line of output does, for `hydra.sweeper.trial_timeout`; `folder` None: of Hydra's job."""
        if folder is None:
            # A configuration that was only composed, as in a notebook, has no folder.
            if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
                return
            folder = Path(HydraConfig.get().runtime.output_dir)
        with suppress(OSError):  # a full disk is reported elsewhere
            (folder / PROGRESS).touch()

    def progress(self, folder: Path, **values: Any) -> None:
        """Write `epoch`, `epochs`, `metric`, `score`, `seconds_left` (each optional) for the live table."""
        write_json(folder / PROGRESS, {**values, "updated": time.time()})

    def _optuna_may_know(self) -> bool:
        """Optuna's own curves are for one objective, and compare in its direction."""
        metrics, directions = self.judged_by
        own = [direction.name.lower() for direction in self.study.directions]
        return len(metrics) == 1 and own == list(directions)

    def _trial(self) -> FrozenTrial:
        return self._storage.get_trial(self._id)

    @functools.cached_property
    def _id(self) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, self.number)

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self.study._storage


def _from_here(url: str) -> str:
    """Make the path in a storage's URL relative to where the job is: Hydra may have moved it (`hydra.job.chdir`)."""
    scheme, slashes, path = url.partition(":///")
    if not slashes or not scheme.startswith(("sqlite", "journal")):
        return url
    return f"{scheme}:///{os.path.relpath(to_absolute_path(path))}"
