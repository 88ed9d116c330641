"""The keys of `hydra/sweeper=steady` as the search understands them: checked, with defaults resolved.

`hydra_plugins/steady_sweeper/config.py` is the schema, and explains each key.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from steady.errors import ConfigError
from steady.links import checked

SWEEPS = Path("sweeps")
AUTO = "auto"
# Of `trial_timeout: auto`. No sound trial comes near: one that shares a slow machine with seven others, and prepares
# photos of its own, included.
SILENT = 1800.0  # seconds without a sign of progress
PREPARATION = 3600.0  # seconds beside the training
TIMES = 10  # as long as the training is to take
TPE = "optuna.samplers.TPESampler"  # with Optuna's own defaults: what `sampler: null` is
SAME_FAILURES = 3
MEMORY_PER_SLOT = 1.5e9  # bytes; a small trial of ours on the processor stays below 1.2 GB

LOOKS = 20  # for a hanging trial, within the shorter of its bounds; at most one a second


@dataclass(frozen=True)
class TrialTimeout:
    """The bounds on a trial.

    Attributes:
        progress: seconds without a sign of progress; None: no bound.
        total: seconds in all, of one attempt; None: no bound.
    """

    progress: float | None = None
    total: float | None = None

    @property
    def every(self) -> float | None:
        """Seconds between two looks; None if there is nothing to look for."""
        bounds = [bound for bound in (self.progress, self.total) if bound is not None]
        return min(1.0, min(bounds) / LOOKS) if bounds else None

    def for_preparation(self) -> "TrialTimeout":
        """What is made once, for all trials, may take any time as long as it shows progress."""
        return replace(self, progress=self.total if self.progress is None else self.progress, total=None)


UNBOUNDED = TrialTimeout()


@dataclass(frozen=True)
class Settings:
    """One sweep's settings.

    Attributes:
        study: the study's name.
        record: folder of the leaderboard, and of the study unless `storage` says otherwise.
        storage: URL.
        directions: `minimize` or `maximize`, one per objective.
        objective: their names, or None.
        slots: how many trials run beside each other.
        keys: all keys as given, plain values.
    """

    study: str
    record: Path
    storage: str
    directions: tuple[str, ...]
    objective: tuple[str, ...] | None
    slots: int
    keys: Mapping[str, Any]

    @property
    def trial_timeout(self) -> TrialTimeout:
        """The bounds on each trial."""
        given, minutes = self.keys["trial_timeout"], self.keys["trial_minutes"]
        if given == AUTO:
            return TrialTimeout(SILENT, None if minutes is None else PREPARATION + TIMES * 60 * minutes)
        return TrialTimeout(**given) if isinstance(given, dict) else TrialTimeout(total=given)

    def confirmation_seconds(self, run: float) -> float:
        """How many seconds of `timeout` the search leaves to what comes after its last trial has begun.

        That trial has its time, too; and the confirmation runs go round the slots.

        Args:
            run: seconds that a trial takes.
        """
        asked = self.keys["confirm"]
        return 0.0 if asked is None else run * (1 + math.ceil(asked["top"] * asked["seeds"] / self.slots))

    @property
    def extra_scores(self) -> Any:
        """The object that `extra_scores` names, a `steady.study.results.ExtraScores`; None if it names none."""
        # Looked up without Hydra's whitelist: it is the user's own configuration, like the task itself.
        return None if self.keys["extra_scores"] is None else hydra.utils.get_object(self.keys["extra_scores"])

    @property
    def pruning(self) -> dict[str, Any] | None:
        """Pruner, metrics and their directions, as trials read them; None if nothing is pruned."""
        if self.keys["pruner"] is None:
            return None
        metrics, directions = self.keys["prune_metric"], self.keys["prune_direction"]
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        directions = [directions] * len(metrics) if isinstance(directions, str) else list(directions)
        return {"pruner": self.keys["pruner"], "metrics": metrics, "directions": directions}

    def __getitem__(self, key: str) -> Any:
        return self.keys[key]


def read(raw: Mapping[str, Any], job_name: str, sweep_dir: str) -> Settings:
    """Check and complete the keys.

    Args:
        raw: of `hydra.sweeper`; nodes of OmegaConf or plain values.
        job_name: the study's name if none is given.
        sweep_dir: the sweep's folder, which then holds its study.

    Raises:
        ConfigError: a value that cannot be meant.
    """
    keys = {key: _plain(value) for key, value in raw.items()}
    keys["sampler"] = keys["sampler"] or {"_target_": TPE}
    keys["enqueue"] = [] if keys["enqueue"] is None else keys["enqueue"]
    _check(keys)
    name = keys["study_name"]
    study = job_name if name is None else checked(str(name), "The name of a study")
    record = Path(keys["record"] or (sweep_dir if name is None else SWEEPS / study))
    objective = keys["objective"]
    directions = _directions(keys["direction"])
    names = None if objective is None else tuple([objective] if isinstance(objective, str) else objective)
    if names is not None and len(names) != len(directions):
        raise ConfigError(
            f"direction must have one entry per objective; there are {len(directions)} for {', '.join(names)}."
        )
    settings = Settings(
        study=study,
        record=record,
        storage=keys["storage"] or f"sqlite:///{record / 'study.db'}",
        directions=directions,
        objective=names,
        slots=_slots(keys["n_jobs"], keys["gpus"], keys["gpus_per_slot"]),
        keys=keys,
    )
    _check_time(settings)
    return settings


def _check_time(settings: Settings) -> None:
    """Refuse a bound that the confirmation alone would use up, so that no trial could begin."""
    timeout, minutes = settings["timeout"], settings["trial_minutes"]
    if timeout is None or minutes is None:
        return
    needed = settings.confirmation_seconds(60 * minutes)
    if needed and timeout <= needed:
        confirm = settings["confirm"]
        raise ConfigError(
            f"hydra.sweeper.timeout={timeout:g} leaves no time for a search: a trial of {minutes:g} minutes, and after "
            f"it {confirm['top'] * confirm['seeds']} confirmation runs as long in {settings.slots} slots, take "
            f"{needed:g} seconds. Raise the timeout, or lower the minutes, or hydra.sweeper.confirm (null: none)."
        )


def visible_gpus(gpus: Any) -> list[str]:
    """The ids of the GPUs that slots may use."""
    from steady.run.resources import visible_gpus as found

    return list(found(gpus))


def failure_limits(keys: Mapping[str, Any]) -> tuple[int | None, float]:
    """How many of the same failures in a row, and which share of failures, end a sweep.

    Whoever says `max_failure_rate=1` wants every trial, however many fail, as with hydra-optuna-sweeper.
    """
    rate, same = keys["max_failure_rate"], keys["max_same_failures"]
    if same is None and rate != 1:
        same = SAME_FAILURES
    return same, 1.0 if rate is None else rate


def naming(config: DictConfig) -> str:
    """The key by which a user names a study: one of the app, where `hydra.sweeper.study_name` interpolates it."""
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    assert isinstance(sweeper, dict)
    found = re.fullmatch(r"\$\{([\w.]+)\}", str(sweeper["study_name"]))
    return found[1] if found else "hydra.sweeper.study_name"


def listed(given: Any) -> list[Any]:
    """What a key holds that takes nothing, one thing or a list of several."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _directions(value: Any) -> tuple[str, ...]:
    several: Sequence[Any] = [value] if not isinstance(value, list | tuple) else value
    names = tuple(str(getattr(one, "name", one)) for one in several)
    if not names or not set(names) <= {"minimize", "maximize"}:
        raise ConfigError(f"hydra.sweeper.direction must be minimize or maximize, or a list of them; got {value!r}.")
    return names


def _slots(n_jobs: Any, gpus: Any, share: float) -> int:
    if n_jobs != "auto":
        if type(n_jobs) is not int or n_jobs < 1:
            raise ConfigError(f"hydra.sweeper.n_jobs must be a whole number from 1 up, or auto; got {n_jobs!r}.")
        return n_jobs
    if found := visible_gpus(gpus):
        from steady.run.resources import slots_per_gpu

        return len(found) * slots_per_gpu(share) if share <= 1 else max(1, len(found) // int(share))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_free_memory() / MEMORY_PER_SLOT)))


def _free_memory() -> float:
    import psutil

    return float(psutil.virtual_memory().available)


def _check(keys: Mapping[str, Any]) -> None:
    def number(key: str, low: float, whole: bool, none: bool = False) -> None:
        value = keys[key]
        kinds = (int,) if whole else (int, float)
        if (value is None and none) or (type(value) in kinds and value >= low):
            return
        raise ConfigError(
            f"hydra.sweeper.{key} must be a {'whole ' if whole else ''}number from {low:g} up"
            f"{', or null' if none else ''}; got {value!r}."
        )

    number("n_trials", 1, whole=True)
    number("timeout", 0, whole=False, none=True)
    number("retries", 0, whole=True)
    number("max_same_failures", 1, whole=True, none=True)
    number("lease", 1, whole=False)
    number("max_failure_rate", 0, whole=False, none=True)
    number("gpus_per_slot", 0.01, whole=False)
    if keys["max_failure_rate"] is not None and keys["max_failure_rate"] > 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate is a share, 0 to 1; got {keys['max_failure_rate']}.")
    if keys["duplicates"] not in ("resample", "reuse", "allow"):
        raise ConfigError(f"hydra.sweeper.duplicates must be resample, reuse or allow; got {keys['duplicates']!r}.")
    if keys["draw_ahead"] not in (True, False, "auto"):
        raise ConfigError(f"hydra.sweeper.draw_ahead must be true, false or auto; got {keys['draw_ahead']!r}.")
    if not isinstance(keys["enqueue"], list | tuple):
        raise ConfigError(
            "hydra.sweeper.enqueue must be a list of configurations, [{parameter: value, …}, …], or null; got "
            f"{keys['enqueue']!r}."
        )
    confirm = keys["confirm"]
    if confirm is not None and not (
        isinstance(confirm, dict)
        and set(confirm) == {"top", "seeds"}
        and all(type(value) is int and value >= 1 for value in confirm.values())
    ):
        raise ConfigError(f"hydra.sweeper.confirm must be null or {{top: 3, seeds: 3}}; got {confirm!r}.")
    patterns = keys["artifacts"]
    if not isinstance(patterns, list | tuple) or not all(map(_within_a_folder, patterns)):
        raise ConfigError(
            f"hydra.sweeper.artifacts must be a list of patterns within a trial's folder, as samples/*.png; "
            f"got {patterns!r}."
        )
    _check_trial_timeout(keys["trial_timeout"])
    _check_names("objective", keys["objective"])
    _check_names("prune_metric", keys["prune_metric"])
    if keys["pruner"] is not None:
        _check_pruning(keys)


def _check_names(key: str, given: Any) -> None:
    names = [given] if isinstance(given, str) else given
    if given is None or (
        isinstance(names, list | tuple)
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    ):
        return
    raise ConfigError(
        f"hydra.sweeper.{key} must be the name of a score, or a list of different ones, or null; got {given!r}."
    )


def _check_pruning(keys: Mapping[str, Any]) -> None:
    metrics, directions = keys["prune_metric"], keys["prune_direction"]
    if not metrics:
        raise ConfigError("hydra.sweeper.pruner needs prune_metric: the name of the score that trials report.")
    if not isinstance(keys["pruner"], dict) or not isinstance(keys["pruner"].get("_target_"), str):
        raise ConfigError(
            "hydra.sweeper.pruner must be null, or a node with a _target_ such as optuna.pruners.MedianPruner; got "
            f"{keys['pruner']!r}."
        )
    number = 1 if isinstance(metrics, str) else len(metrics)
    several = isinstance(directions, list | tuple)
    if not set(directions if several else [directions]) <= {"minimize", "maximize"} or (
        several and len(directions) != number
    ):
        raise ConfigError(
            "hydra.sweeper.prune_direction must be minimize or maximize, or a list with one for each of prune_metric; "
            f"got {directions!r}."
        )


def _check_trial_timeout(given: Any) -> None:
    bounds = given if isinstance(given, dict) else {"total": None if given == AUTO else given}
    if not bounds or not set(bounds) <= {"progress", "total"} or not all(map(_seconds, bounds.values())):
        raise ConfigError(
            "hydra.sweeper.trial_timeout must be null, a number of seconds above 0, {progress: 600, total: 7200} or "
            f"one of the two, or auto; got {given!r}."
        )


def _seconds(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 < value < math.inf)


def _within_a_folder(pattern: Any) -> bool:
    return isinstance(pattern, str) and bool(pattern) and not ({"/", ".."} & set(PurePosixPath(pattern).parts))
