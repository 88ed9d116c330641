"""Options of `hydra/sweeper=steady`: checked, typed, with defaults resolved.

`hydra_plugins/steady_sweeper/config.py` is their schema, and explains each.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from steady import resources
from steady.exceptions import ConfigError
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
LOOKS = 20  # for a hanging trial, within the shorter of its bounds; at most one a second
RANGES = {  # of numbers: the least value, whether it is whole, whether null is one
    "n_trials": (1, True, False),
    "timeout": (0, False, True),
    "retries": (0, True, False),
    "max_same_failures": (1, True, True),
    "lease": (1, False, False),
    "max_failure_rate": (0, False, True),
    "gpus_per_slot": (0.01, False, False),
}


@dataclass(frozen=True)
class TrialTimeout:
    """Bounds on the time of one attempt of a trial.

    Attributes:
        progress: seconds without a sign of progress; None: no bound.
        total: seconds in all; None: no bound.

    Examples:
        >>> TrialTimeout(total=5).every
        0.25
    """

    progress: float | None = None
    total: float | None = None

    @property
    def every(self) -> float | None:
        """Seconds between two looks; None if there is nothing to look for."""
        bounds = [bound for bound in (self.progress, self.total) if bound is not None]
        return min(1.0, min(bounds) / LOOKS) if bounds else None

    def for_preparation(self) -> "TrialTimeout":
        """Bounds of a job that all trials wait for: any time, as long as it shows progress."""
        return replace(self, progress=self.total if self.progress is None else self.progress, total=None)


UNBOUNDED = TrialTimeout()


@dataclass(frozen=True)
class Confirm:
    """Size of the confirmation: the `top` best trials, each under `seeds` other seeds; both from 1 up."""

    top: int
    seeds: int

    @property
    def runs(self) -> int:
        """Number of runs."""
        return self.top * self.seeds


@dataclass(frozen=True)
class Pruning:
    """The pruner's node, the names of the scores that it reads, and a direction for each."""

    pruner: dict[str, Any]
    metrics: list[str]
    directions: list[str]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of one sweep: those of the schema under its names, but for what is resolved.

    Attributes:
        study: name of the study (`study_name`, or the job's).
        record: folder of the leaderboard, and of the study unless `storage` says otherwise.
        storage: URL of the study.
        kept_in: `storage` as given, or else `record`: where the study is, for messages.
        directions: `minimize` or `maximize`, one per objective.
        objective: names of the objectives; empty if they have none.
        slots: how many trials run beside each other (`n_jobs`).
        max_same_failures: None: no bound; 3 if `max_failure_rate` does not want every trial.
        max_failure_rate: 0 to 1.
        draw_ahead: None: while trials are short.
        pruning: None if nothing is pruned.
        on_end: dotted paths of functions.
        given: all keys as given, plain values.
    """

    study: str
    record: Path
    storage: str
    kept_in: str
    directions: tuple[Literal["minimize", "maximize"], ...]
    objective: tuple[str, ...]
    slots: int
    sampler: Mapping[str, Any]
    n_trials: int
    params: Mapping[str, Any] | None
    custom_search_space: str | None
    conditions: Mapping[str, str]
    baseline: bool
    enqueue: Sequence[Any]
    duplicates: Literal["resample", "reuse", "allow"]
    pruning: Pruning | None
    timeout: float | None
    retries: int
    trial_timeout: TrialTimeout
    trial_minutes: float | None
    max_same_failures: int | None
    max_failure_rate: float
    lease: float
    preload: Sequence[str]
    preflight: str | None
    gpus: str | int | Sequence[str | int]
    gpus_per_slot: float
    draw_ahead: bool | None
    artifacts: Sequence[str]
    extra_scores: str | None
    on_end: tuple[str, ...]
    next_step: str | None
    allow_change: Sequence[str]
    contract_ignore: Sequence[str]
    confirm: Confirm | None
    dry_run: bool
    given: Mapping[str, Any]

    def confirmation_seconds(self, run: float) -> float:
        """Estimate the seconds of `timeout` that the search leaves for after its last trial has begun.

        That trial has its time, `run` seconds, too; and the confirmation runs go round the slots.
        """
        return 0.0 if self.confirm is None else run * (1 + math.ceil(self.confirm.runs / self.slots))

    @property
    def score_reader(self) -> Any:
        """The object that `extra_scores` names, a `steady.study.results.ExtraScores`; None if it names none."""
        # Looked up without Hydra's whitelist: it is the user's own configuration, like the task itself.
        return None if self.extra_scores is None else hydra.utils.get_object(self.extra_scores)


def read(raw: Mapping[str, Any], job_name: str, sweep_dir: str) -> SweepOptions:
    """Check and complete the keys of `hydra.sweeper`.

    Args:
        raw: nodes of OmegaConf or plain values.
        job_name: the study's name if none is given.
        sweep_dir: the sweep's folder, which then holds its study.

    Raises:
        ConfigError: a value that cannot be meant.

    Examples:
        >>> from hydra_plugins.steady_sweeper.config import SteadySweeperConf
        >>> raw = {**vars(SteadySweeperConf()), "sampler": None, "n_jobs": 2}
        >>> read(raw, "app", "multirun/now").storage
        'sqlite:///multirun/now/study.db'
    """
    keys = {key: _plain(value) for key, value in raw.items()}
    keys["sampler"] = keys["sampler"] or {"_target_": TPE}
    keys["enqueue"] = [] if keys["enqueue"] is None else keys["enqueue"]
    _check(keys)
    name = keys["study_name"]
    study = job_name if name is None else checked(str(name), "The name of a study")
    record = Path(keys["record"] or (sweep_dir if name is None else SWEEPS / study))
    directions, objective = _directions(keys["direction"]), tuple(_listed(keys["objective"]))
    if keys["objective"] is not None and len(objective) != len(directions):
        raise ConfigError(
            f"direction must have one entry per objective; there are {len(directions)} for {', '.join(objective)}."
        )
    rate, same = keys["max_failure_rate"], keys["max_same_failures"]
    resolved = {
        "study": study,
        "record": record,
        "storage": keys["storage"] or f"sqlite:///{record / 'study.db'}",
        "kept_in": keys["storage"] or str(record),
        "directions": directions,
        "objective": objective,
        "slots": resources.slots(keys["n_jobs"], keys["gpus"], keys["gpus_per_slot"]),
        "pruning": _pruning(keys),
        "trial_timeout": _trial_timeout(keys["trial_timeout"], keys["trial_minutes"]),
        # Whoever says `max_failure_rate=1` wants every trial, however many fail, as with hydra-optuna-sweeper.
        "max_same_failures": SAME_FAILURES if same is None and rate != 1 else same,
        "max_failure_rate": 1.0 if rate is None else rate,
        "draw_ahead": None if keys["draw_ahead"] == AUTO else keys["draw_ahead"],
        "on_end": tuple(_listed(keys["on_end"])),
        "confirm": _confirm(keys["confirm"]),
    }
    same_name = SweepOptions.__dataclass_fields__.keys() & keys.keys()
    options = SweepOptions(**{**{key: keys[key] for key in same_name}, **resolved}, given=keys)
    _check_time(options)
    return options


def naming(config: DictConfig) -> str:
    """The key by which a user names a study: one of the app, where `hydra.sweeper.study_name` interpolates it.

    Examples:
        >>> naming(OmegaConf.create({"hydra": {"sweeper": {"study_name": "${run.name}"}}}))
        'run.name'
    """
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    assert isinstance(sweeper, dict)
    found = re.fullmatch(r"\$\{([\w.]+)\}", str(sweeper["study_name"]))
    return found[1] if found else "hydra.sweeper.study_name"


def _listed(given: Any) -> list[Any]:
    """What a key holds that takes nothing, one thing or a list of several."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _directions(value: Any) -> tuple[Any, ...]:
    names = tuple(str(getattr(one, "name", one)) for one in (value if isinstance(value, list | tuple) else [value]))
    if not names or not set(names) <= {"minimize", "maximize"}:
        raise ConfigError(f"hydra.sweeper.direction must be minimize or maximize, or a list of them; got {value!r}.")
    return names


def _check(keys: Mapping[str, Any]) -> None:
    for key, (low, whole, null) in RANGES.items():
        value = keys[key]
        if not ((value is None and null) or (type(value) in ((int,) if whole else (int, float)) and value >= low)):
            raise ConfigError(
                f"hydra.sweeper.{key} must be a {'whole ' if whole else ''}number from {low:g} up"
                f"{', or null' if null else ''}; got {value!r}."
            )
    if keys["max_failure_rate"] is not None and keys["max_failure_rate"] > 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate is a share, 0 to 1; got {keys['max_failure_rate']}.")
    if keys["duplicates"] not in ("resample", "reuse", "allow"):
        raise ConfigError(f"hydra.sweeper.duplicates must be resample, reuse or allow; got {keys['duplicates']!r}.")
    if keys["draw_ahead"] not in (True, False, AUTO):
        raise ConfigError(f"hydra.sweeper.draw_ahead must be true, false or auto; got {keys['draw_ahead']!r}.")
    if not isinstance(keys["enqueue"], list | tuple):
        raise ConfigError(
            "hydra.sweeper.enqueue must be a list of configurations, [{parameter: value, …}, …], or null; got "
            f"{keys['enqueue']!r}."
        )
    patterns = keys["artifacts"]
    if not isinstance(patterns, list | tuple) or not all(map(_within_a_folder, patterns)):
        raise ConfigError(
            f"hydra.sweeper.artifacts must be a list of patterns within a trial's folder, as samples/*.png; "
            f"got {patterns!r}."
        )
    for key in ("objective", "prune_metric"):
        names = _listed(given := keys[key])
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise ConfigError(
                f"hydra.sweeper.{key} must be the name of a score, or a list of different ones, or null; got {given!r}."
            )


def _within_a_folder(pattern: Any) -> bool:
    return isinstance(pattern, str) and bool(pattern) and not ({"/", ".."} & set(PurePosixPath(pattern).parts))


def _confirm(given: Any) -> Confirm | None:
    if given is None:
        return None
    if (
        isinstance(given, dict)
        and set(given) == {"top", "seeds"}
        and all(type(value) is int and value >= 1 for value in given.values())
    ):
        return Confirm(**given)
    raise ConfigError(f"hydra.sweeper.confirm must be null or {{top: 3, seeds: 3}}; got {given!r}.")


def _pruning(keys: Mapping[str, Any]) -> Pruning | None:
    node, metrics, given = keys["pruner"], _listed(keys["prune_metric"]), keys["prune_direction"]
    if node is None:
        return None
    if not metrics:
        raise ConfigError("hydra.sweeper.pruner needs prune_metric: the name of the score that trials report.")
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise ConfigError(
            "hydra.sweeper.pruner must be null, or a node with a _target_ such as optuna.pruners.MedianPruner; got "
            f"{node!r}."
        )
    directions = list(given) if isinstance(given, list | tuple) else [given] * len(metrics)
    if not set(directions) <= {"minimize", "maximize"} or len(directions) != len(metrics):
        raise ConfigError(
            "hydra.sweeper.prune_direction must be minimize or maximize, or a list with one for each of prune_metric; "
            f"got {given!r}."
        )
    return Pruning(node, metrics, directions)


def _trial_timeout(given: Any, minutes: float | None) -> TrialTimeout:
    if given == AUTO:
        return TrialTimeout(SILENT, None if minutes is None else PREPARATION + TIMES * 60 * minutes)
    bounds = given if isinstance(given, dict) else {"total": given}
    if not bounds or not set(bounds) <= {"progress", "total"} or not all(map(_seconds, bounds.values())):
        raise ConfigError(
            "hydra.sweeper.trial_timeout must be null, a number of seconds above 0, {progress: 600, total: 7200} or "
            f"one of the two, or auto; got {given!r}."
        )
    return TrialTimeout(**bounds)


def _seconds(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 < value < math.inf)


def _check_time(options: SweepOptions) -> None:
    """Refuse a bound that the confirmation alone would use up, so that no trial could begin."""
    timeout, minutes, confirm = options.timeout, options.trial_minutes, options.confirm
    if timeout is None or minutes is None or confirm is None:
        return
    needed = options.confirmation_seconds(60 * minutes)
    if needed and timeout <= needed:
        raise ConfigError(
            f"hydra.sweeper.timeout={timeout:g} leaves no time for a search: a trial of {minutes:g} minutes, and after "
            f"it {confirm.runs} confirmation runs as long in {options.slots} slots, take "
            f"{needed:g} seconds. Raise the timeout, or lower the minutes, or hydra.sweeper.confirm (null: none)."
        )
