"""Options of `hydra/sweeper=steady`: checked, typed, with defaults resolved.

`hydra_plugins/steady_sweeper/config.py` explains each.
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
from steady.safe_paths import checked_name
from steady.study.constraints import Constraint, parse_all

SWEEPS = Path("sweeps")
AUTO = "auto"
# Of `trial_timeout: auto`. No sound trial comes near, not even one that shares a slow machine with seven others and
# prepares photos of its own.
SILENT = 1800.0  # seconds without a sign of progress
PREPARATION = 3600.0  # seconds beside the training
TIMES = 10  # as long as the training is to take
TPE = "optuna.samplers.TPESampler"  # with Optuna's own defaults: what `sampler: null` is
SAME_FAILURES = 3
LEAST_RUNGS = 2  # of a promotion
LOOKS = 20  # for a hanging trial, within the shorter of its bounds; at most one a second
RANGES = {  # of numbers: the least value, whether it is whole, whether null is one
    "n_trials": (1, True, False),
    "timeout": (0, False, True),
    "retries": (0, True, False),
    "max_same_failures": (1, True, True),
    "trials_per_job": (1, True, True),
    "lease": (1, False, False),
    "storage_patience": (0, False, False),
    "max_failure_rate": (0, False, True),
    "gpus_per_slot": (0.01, False, False),
}


@dataclass(frozen=True)
class TrialTimeout:
    """Bounds on the time of one attempt of a trial, in seconds; None: no bound.

    >>> TrialTimeout(total=5).every
    0.25
    """

    progress: float | None = None  # without a sign of progress
    total: float | None = None  # in all

    @property
    def every(self) -> float | None:
        """Seconds between two checks; None if there is no bound."""
        bounds = [bound for bound in (self.progress, self.total) if bound is not None]
        return min(1.0, min(bounds) / LOOKS) if bounds else None

    def for_preparation(self) -> "TrialTimeout":
        """Get the bounds of a job that all trials wait for: any time, as long as it shows progress."""
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


@dataclass(frozen=True)
class Promotion:
    """Asynchronous successive halving: which share of the trials goes on from which rungs, judged by which scores."""

    eta: float  # one of so many goes on; above 1
    rungs: list[int]  # steps at which trials report, ascending; the last is the whole budget
    metrics: list[str]
    directions: list[str]

    @property
    def pausing(self) -> list[int]:
        """The rungs at which trials are paused: all but the last."""
        return self.rungs[:-1]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of one sweep, under the names of the schema."""

    study: str  # `study_name`, or the job's name
    record: Path  # folder of the leaderboard, and of the study unless `storage` says otherwise
    storage: str  # URL
    kept_in: str  # `storage` as given, or else `record`: for messages
    directions: tuple[Literal["minimize", "maximize"], ...]  # one per objective
    objective: tuple[str, ...]  # names; empty if there are none
    slots: int  # number of trials that run beside each other (`n_jobs`)
    sampler: Mapping[str, Any]
    n_trials: int
    params: Mapping[str, Any] | None
    custom_search_space: str | None
    conditions: Mapping[str, str]
    constraints: tuple[Constraint, ...]
    warm_start: Literal["auto"] | tuple[str, ...] | None  # names of studies beside `record`
    baseline: bool
    enqueue: Sequence[Any]
    duplicates: Literal["resample", "reuse", "allow"]
    pruning: Pruning | None
    promotion: Promotion | None
    timeout: float | None
    retries: int
    trial_timeout: TrialTimeout
    trial_minutes: float | None
    trials_per_job: int | None  # None: as the engine has it
    max_same_failures: int | None  # None: no bound
    max_failure_rate: float  # 0 to 1
    lease: float
    storage_patience: float
    preload: Sequence[str]
    preflight: str | None
    gpus: str | int | Sequence[str | int]
    gpus_per_slot: float
    draw_ahead: bool | None  # None: while trials are short
    artifacts: Sequence[str]
    extra_scores: str | None
    on_end: tuple[str, ...]  # dotted paths of functions
    next_step: str | None
    allow_change: Sequence[str]
    contract_ignore: Sequence[str]
    confirm: Confirm | None
    dry_run: bool
    given: Mapping[str, Any]  # all keys as given, plain values

    def reserved_seconds(self, run: float, share: float = 1.0, all_begun: bool = False) -> float:
        """Estimate how long before the end of `timeout` the last trial has to start, if trials take `run` seconds.

        A confirmation has to fit behind it. Under promotion it has to fit itself: a slot that begins another would only
        pause it, and lets the best go on instead. Else it may begin as long as there is time, and this is 0.

        `share`: of the trial, that is still to be done. `all_begun`: no new one will come, so none has to make way.
        """
        if self.confirm is not None:
            return run * (share + math.ceil(self.confirm.runs / self.slots))
        return 0.0 if self.promotion is None or all_begun else run * share

    @property
    def score_reader(self) -> Any:
        """The `steady.study.results.ExtraScores` that `extra_scores` names; None if it names none."""
        # Looked up without Hydra's whitelist: the configuration is the user's own, like the task itself.
        return None if self.extra_scores is None else hydra.utils.get_object(self.extra_scores)


def read(raw: Mapping[str, Any], job_name: str, sweep_dir: str) -> SweepOptions:
    """Complete the keys of `hydra.sweeper`, nodes of OmegaConf or plain values; a ConfigError for an invalid one.

    A study without a name has that of the job, and is kept in the sweep's folder.

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
    study = job_name if name is None else checked_name(str(name), "The name of a study")
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
        "warm_start": _warm_start(keys["warm_start"], study),
        "constraints": parse_all(keys["constraints"] or {}),
        "pruning": _pruning(keys),
        "promotion": _promotion(keys),
        "trial_timeout": _trial_timeout(keys["trial_timeout"], keys["trial_minutes"]),
        # Whoever says `max_failure_rate=1` wants every trial, however many fail, as with hydra-optuna-sweeper.
        "max_same_failures": SAME_FAILURES if same is None and rate != 1 else same,
        "max_failure_rate": 1.0 if rate is None else rate,
        "draw_ahead": None if keys["draw_ahead"] == AUTO else keys["draw_ahead"],
        "on_end": tuple(_listed(keys["on_end"])),
        "confirm": _confirm(keys["confirm"]),
    }
    same_name = SweepOptions.__dataclass_fields__.keys() & keys.keys()
    return SweepOptions(**{**{key: keys[key] for key in same_name}, **resolved}, given=keys)


def naming(config: DictConfig) -> str:
    """Get the key by which a user names a study: the app's own, if `hydra.sweeper.study_name` interpolates one.

    >>> naming(OmegaConf.create({"hydra": {"sweeper": {"study_name": "${run.name}"}}}))
    'run.name'
    """
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    assert isinstance(sweeper, dict)
    found = re.fullmatch(r"\$\{([\w.]+)\}", str(sweeper["study_name"]))
    return found[1] if found else "hydra.sweeper.study_name"


def _listed(given: Any) -> list[Any]:
    """Convert the value of a key that takes null, one value or a list."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _refused(key: str, expected: str, given: Any) -> ConfigError:
    return ConfigError(f"hydra.sweeper.{key} must be {expected}; got {given!r}.")


def _directions(value: Any) -> tuple[Any, ...]:
    names = tuple(str(getattr(one, "name", one)) for one in _listed(value))
    if not names or not set(names) <= {"minimize", "maximize"}:
        raise _refused("direction", "minimize or maximize, or a list of them", value)
    return names


def _check(keys: Mapping[str, Any]) -> None:
    for key, (low, whole, null) in RANGES.items():
        value = keys[key]
        if not ((value is None and null) or (type(value) in ((int,) if whole else (int, float)) and value >= low)):
            number = f"a {'whole ' if whole else ''}number from {low:g} up{', or null' if null else ''}"
            raise _refused(key, number, value)
    if keys["max_failure_rate"] is not None and keys["max_failure_rate"] > 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate is a share, 0 to 1; got {keys['max_failure_rate']}.")
    if keys["duplicates"] not in ("resample", "reuse", "allow"):
        raise _refused("duplicates", "resample, reuse or allow", keys["duplicates"])
    if keys["draw_ahead"] not in (True, False, AUTO):
        raise _refused("draw_ahead", "true, false or auto", keys["draw_ahead"])
    if not isinstance(keys["enqueue"], list | tuple):
        raise _refused("enqueue", "a list of configurations, [{parameter: value, …}, …], or null", keys["enqueue"])
    patterns = keys["artifacts"]
    if not isinstance(patterns, list | tuple) or not all(map(_is_within_a_folder, patterns)):
        raise _refused("artifacts", "a list of patterns within a trial's folder, as samples/*.png", patterns)
    for key in ("objective", "prune_metric"):
        names = _listed(keys[key])
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise _refused(key, "the name of a score, or a list of different ones, or null", keys[key])


def _is_within_a_folder(pattern: Any) -> bool:
    return isinstance(pattern, str) and bool(pattern) and not ({"/", ".."} & set(PurePosixPath(pattern).parts))


def _confirm(given: Any) -> Confirm | None:
    if given is None:
        return None
    is_pair = isinstance(given, dict) and set(given) == {"top", "seeds"}
    if not is_pair or not all(type(value) is int and value >= 1 for value in given.values()):
        raise _refused("confirm", "null or {top: 3, seeds: 3}", given)
    return Confirm(**given)


def _warm_start(given: Any, own: str) -> Any:
    """Parse what other studies to learn from: null, `auto`, one name or a list."""
    if given in (None, AUTO, []):
        return AUTO if given == AUTO else None
    names = [checked_name(name, "A study of hydra.sweeper.warm_start") for name in _listed(given)]
    if len({own, *names}) <= len(names):
        raise _refused("warm_start", f"null, auto, or names of other studies than {own}, each once", given)
    return tuple(names)


def _pruning(keys: Mapping[str, Any]) -> Pruning | None:
    if (node := keys["pruner"]) is None:
        return None
    metrics, directions = _judged_by(keys, "pruner")
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise _refused("pruner", "null, or a node with a _target_ such as optuna.pruners.MedianPruner", node)
    return Pruning(node, metrics, directions)


def _promotion(keys: Mapping[str, Any]) -> Promotion | None:
    if (given := keys["promotion"]) is None:
        return None
    is_pair = isinstance(given, dict) and set(given) == {"eta", "rungs"}
    eta, rungs = (given["eta"], given["rungs"]) if is_pair else (0, [])
    is_share = type(eta) in (int, float) and 1 < eta < math.inf
    are_steps = isinstance(rungs, list) and all(type(step) is int and step >= 0 for step in rungs)
    if not (is_share and are_steps and len(rungs) >= LEAST_RUNGS and rungs == sorted(set(rungs))):
        expected = "null or {eta: 3, rungs: [1, 3, 9]}: a number above 1, and two ascending whole numbers or more"
        raise _refused("promotion", expected, given)
    if keys["pruner"] is not None:
        raise ConfigError(
            "hydra.sweeper.promotion pauses a trial where a pruner would end it, so a sweep has one of the two: "
            "hydra/sweeper/pruner=none, or hydra.sweeper.promotion=null."
        )
    return Promotion(eta, rungs, *_judged_by(keys, "promotion"))


def _judged_by(keys: Mapping[str, Any], key: str) -> tuple[list[str], list[str]]:
    """Get the names of the scores by which trials are judged at rungs, and a direction for each."""
    metrics, given = _listed(keys["prune_metric"]), keys["prune_direction"]
    if not metrics:
        raise ConfigError(f"hydra.sweeper.{key} needs prune_metric: the name of the score that trials report.")
    directions = list(given) if isinstance(given, list | tuple) else [given] * len(metrics)
    if not set(directions) <= {"minimize", "maximize"} or len(directions) != len(metrics):
        expected = "minimize or maximize, or a list with one for each of prune_metric"
        raise _refused("prune_direction", expected, given)
    return metrics, directions


def _trial_timeout(given: Any, minutes: float | None) -> TrialTimeout:
    if given == AUTO:
        return TrialTimeout(SILENT, None if minutes is None else PREPARATION + TIMES * 60 * minutes)
    bounds = given if isinstance(given, dict) else {"total": given}
    if not bounds or not set(bounds) <= {"progress", "total"} or not all(map(_is_bound, bounds.values())):
        expected = "null, a number of seconds above 0, {progress: 600, total: 7200} or one of the two, or auto"
        raise _refused("trial_timeout", expected, given)
    return TrialTimeout(**bounds)


def _is_bound(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 < value < math.inf)


def check_time(options: SweepOptions, share: float = 1.0) -> None:
    """Refuse a bound without time for that share of a trial, and the confirmation behind it (ConfigError)."""
    timeout, minutes, confirm = options.timeout, options.trial_minutes, options.confirm
    if timeout is None or minutes is None:
        return
    needed = options.reserved_seconds(60 * minutes, share)
    if needed and timeout <= needed:
        taken, lower = f"a trial of {minutes:g} minutes takes", "the minutes"
        if share < 1:
            taken = f"the least that is left of {taken}"
        if confirm is not None:
            slots = f"{options.slots} slot{'s' * (options.slots != 1)}"
            runs = f"{confirm.runs} confirmation runs as long in {slots}"
            taken = f"{taken.removesuffix(' takes')}, and after it {runs}, take"
            lower += ", or hydra.sweeper.confirm (null: none)"
            if confirm.runs > options.slots:
                lower += ", or have more slots (hydra.sweeper.n_jobs; hydra.sweeper.gpus_per_slot=0.5: two on a GPU)"
        raise ConfigError(
            f"hydra.sweeper.timeout={timeout:g} leaves no time for a search: {taken} {needed:g} seconds. "
            f"Raise the timeout, or lower {lower}."
        )
