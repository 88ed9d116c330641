"""Pruning of trials by their rung scores: by any pruner of Optuna for one score, by Pareto rank for several.

Optuna prunes for one objective only. Here trials keep their rung scores in an attribute of their own, so that studies
of several objectives prune too, and any pruner of Optuna sees a study of one objective: the metric it prunes by.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from hydra.errors import InstantiationException
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from steady.exceptions import ConfigError
from steady.propose.snapshot_storage import SnapshotStorage
from steady.propose.trusted import instantiate_allowed, unknown_arguments
from steady.storage.reported_trials import Reported
from steady.storage.storage_errors import REPORTED
from steady.study import meta
from steady.study.select import pareto_ranks

MADE_UP, STEPS = 24, 3  # trials and rungs of `check_pruner`
OWN = "steady.propose.pruning.ParetoPruner"
OLD = {"catsweep.search.pareto.ParetoPruner": OWN}  # names in nodes of versions up to 0.1
# One by one: a trial reads its pruner from the study, which may be somebody else's.
NAMES = [f"optuna.pruners.{name}" for name in optuna.pruners.__all__ if name != "BasePruner"]
TRUSTED = (*NAMES, "steady.ParetoPruner", OWN)
REMEDY = "To prune by a rule of your own, raise optuna.TrialPruned in the task."


class ParetoPruner:
    """A pruner for several rung scores: ends a trial when too many others at its rung have a lower Pareto rank.

    Trials of the same rank never end each other: neither is better in every score.

    Args:
        keep: share of the trials at a rung that may go on, above 0 to 1, else a ConfigError.
        n_startup_trials: how many trials must have finished before any is ended.
        n_warmup_steps: none is ended at steps below it.
    """

    def __init__(self, keep: float = 0.5, n_startup_trials: int = 5, n_warmup_steps: int = 0) -> None:
        if not 0 < keep <= 1:
            raise ConfigError(f"ParetoPruner.keep is a share above 0 and at most 1; got {keep}.")
        self.keep, self.n_startup_trials, self.n_warmup_steps = keep, n_startup_trials, n_warmup_steps

    def prune(self, own: Sequence[float], others: Sequence[Sequence[float]], finished: int, step: int) -> bool:
        """Decide whether to end a trial by its own scores and those of others at its rung; lower is better.

        Example:
            >>> ParetoPruner(keep=0.5).prune([2.0, 2.0], [[1.0, 3.0], [3.0, 1.0]], finished=5, step=1)
            False
        """
        if finished < self.n_startup_trials or step < self.n_warmup_steps or not others:
            return False
        ranks = pareto_ranks([own, *others])
        return int((ranks < ranks[0]).sum()) >= self.keep * len(ranks)


def build(node: Mapping[str, Any], metrics: Sequence[str]) -> BasePruner | ParetoPruner:
    """Instantiate the pruner that a node of a configuration or of a study names.

    Raises:
        ConfigError: it is not one of `TRUSTED`, or prunes by one metric, and there are several.

    Example:
        >>> build({"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 3}, ["loss"])._n_startup_trials
        3
    """
    target = node["_target_"]
    node = {**node, "_target_": OLD.get(target, target)}
    try:
        pruner = instantiate_allowed(node, TRUSTED, REMEDY)
    except (InstantiationException, TypeError) as error:
        if not (unknown := unknown_arguments(node)):
            raise
        without = " ".join(f"'~hydra.sweeper.pruner.{key}'" for key in unknown)
        raise ConfigError(
            f"{target} takes no {', '.join(unknown)}, which the pruner chosen before it may have. "
            f"Take it out: {without}; or choose a pruner by its group: hydra/sweeper/pruner=median, or none for a node "
            "of your own (in a YAML: 'override /hydra/sweeper/pruner: none')."
        ) from error
    if not isinstance(pruner, BasePruner | ParetoPruner):  # `_partial_` makes it something else
        raise ConfigError(f"expected a pruner of Optuna or ParetoPruner; got {target}, which makes none.")
    if len(metrics) > 1 and not isinstance(pruner, ParetoPruner):
        raise ConfigError(
            f"{type(pruner).__name__} prunes by one metric; prune_metric names {', '.join(metrics)}. "
            "Name one, or use steady.ParetoPruner."
        )
    return pruner


def check_pruner(settings: Mapping[str, Any]) -> None:
    """Run a pruner on synthetic trials in memory; raises whatever it does at wrong arguments.

    Example:
        >>> node = {"_target_": "optuna.pruners.MedianPruner"}
        >>> check_pruner({"pruner": node, "metrics": ["loss"], "directions": ["minimize"]})
    """
    study = optuna.create_study()
    for number in range(MADE_UP):
        rungs = {str(step): dict.fromkeys(settings["metrics"], number + 1 / step) for step in range(1, STEPS + 1)}
        ended = number < MADE_UP - 1
        end: dict[str, Any] = {"value": float(number)} if ended else {"state": TrialState.RUNNING}
        study.add_trial(optuna.trial.create_trial(**end, user_attrs={meta.RUNGS: rungs}))
    for step in range(1, STEPS + 1):
        should_prune(study, MADE_UP - 1, step, settings)


def should_prune(study: Study, number: int, step: int, settings: Mapping[str, Any]) -> bool:
    """Decide whether a trial that has just reported at a rung should end.

    The settings are `pruner` (a node), `metrics` and `directions`.

    Example:
        >>> study, node = optuna.create_study(), {"_target_": "optuna.pruners.ThresholdPruner", "upper": 1.0}
        >>> study.ask().set_user_attr(meta.RUNGS, {"1": {"loss": 5.0}})
        >>> should_prune(study, 0, 1, {"pruner": node, "metrics": ["loss"], "directions": ["minimize"]})
        True
    """
    metrics = list(settings["metrics"])
    pruner = build(settings["pruner"], metrics)
    trials = read_reported(study)
    if isinstance(pruner, ParetoPruner):
        signs = [-1 if d == "maximize" else 1 for d in settings["directions"]]
        scores = {t.number: s for t in trials if (s := _at(t, step, metrics, signs)) is not None}
        own = scores.pop(number, None)
        if own is None:  # kept from an attempt that was pruned by other metrics
            return False
        finished = sum(trial.state == TrialState.COMPLETE for trial in trials)
        return pruner.prune(own, list(scores.values()), finished, step)
    views = [_view(trial, metrics[0]) for trial in trials]
    view = Study(study.study_name, _View(study, views, settings["directions"][0]), pruner=pruner)
    return bool(pruner.prune(view, views[number]))


def read_reported(study: Study) -> list[FrozenTrial]:
    """Get all trials: their states, rung scores, and what pruners have noted on them; of some storages nothing else.

    >>> read_reported(optuna.create_study())
    []
    """
    fast: Reported | None = getattr(study._storage, REPORTED, None)
    return study.get_trials(deepcopy=False) if fast is None else fast(study._study_id, meta.names(meta.RUNGS))


def _at(trial: FrozenTrial, step: int, metrics: Sequence[str], signs: Sequence[int]) -> list[float] | None:
    scores = meta.get(trial, meta.RUNGS, {}).get(str(step))
    if scores is None or not all(metric in scores for metric in metrics):
        return None
    return [sign * scores[metric] for sign, metric in zip(signs, metrics, strict=True)]


def _view(trial: FrozenTrial, metric: str) -> FrozenTrial:
    """Copy a trial, as if it had reported this metric to Optuna."""
    rungs = meta.get(trial, meta.RUNGS, {})
    reported = {int(step): scores[metric] for step, scores in rungs.items() if metric in scores}
    view = copy.copy(trial)
    view.intermediate_values = reported
    view.values = [reported[max(reported)]] if reported and trial.state == TrialState.COMPLETE else None
    return view


class _View(SnapshotStorage):
    """A study of one objective, the metric. What a pruner notes at a trial is kept in the real study."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial], direction: str) -> None:
        super().__init__(study, trials)
        self.direction = StudyDirection.MAXIMIZE if direction == "maximize" else StudyDirection.MINIMIZE

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self.direction]

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.study._storage.set_trial_system_attr(trial_id, key, value)
        trial = self.get_trial(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}
