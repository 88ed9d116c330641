"""The budget of a study, `n_trials`: all its trials, but for those that failed before the command was mended.

A command that cannot work, such as one with a misspelled metric, fails in trial after trial. As long as none has come
to a result, nothing was found out; once the command is changed these trials count no more. They stay in the study, and
as many others run. A pruned trial did run, and counts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from steady import grammar
from steady.study import meta
from steady.study.failures import Kind, headline
from steady.study.trial_store import TrialStore

FAILURES = "failures"  # the name in `allow_change` for a mend that is not in the command
# Keys of no effect on whether a trial works, or with folders and times that differ from start to start.
ELSEWHERE = (
    "allow_change", "dry_run", "extra_scores", "next_step", "on_end", "record", "storage",
    "storage_patience", "study_name", "trials_per_job",
)  # fmt: skip
SHOWN = 5  # kinds of failure


def uncounted(study: optuna.Study) -> frozenset[int]:
    """Get the numbers of the trials that do not count.

    >>> sorted(uncounted(optuna.create_study()))
    []
    """
    return frozenset(meta.get(study, meta.UNCOUNTED, ()))


def total(study: optuna.Study, n_trials: int) -> int:
    """Count the trials that the study will hold when `n_trials` of them count.

    >>> study = optuna.create_study()
    >>> study.set_user_attr(meta.UNCOUNTED, [0, 1])
    >>> total(study, 10)
    12
    """
    return n_trials + len(uncounted(study))


def is_complete(study: optuna.Study, n_trials: int) -> bool:
    """Tell whether all trials there are to be have ended.

    >>> is_complete(optuna.create_study(), n_trials=1)
    False
    """
    trials = study.get_trials(deepcopy=False)
    return len(trials) >= total(study, n_trials) and all(trial.state.is_finished() for trial in trials)


def failed(trial: FrozenTrial) -> bool:
    """Tell whether a trial ended without a result: neither values, nor pruned.

    >>> failed(optuna.trial.create_trial(state=TrialState.FAIL))
    True
    """
    if trial.state == TrialState.PRUNED:  # one that had no memory or diverged is, too
        return meta.get(trial, meta.OUTCOME, Kind.PRUNED) not in (Kind.COMPLETE, Kind.PRUNED, Kind.INFEASIBLE)
    return trial.state == TrialState.FAIL


def all_failed(trials: Iterable[FrozenTrial]) -> bool:
    """Tell whether some trials failed, and none came to a result, or to a rung where it is paused.

    >>> all_failed([optuna.trial.create_trial(value=1.0), optuna.trial.create_trial(state=TrialState.FAIL)])
    False
    """
    ended = [trial for trial in trials if trial.state.is_finished() or meta.paused_at(trial) is not None]
    return bool(ended) and all(map(failed, ended))


def digest(words: Sequence[str], keys: Mapping[str, Any]) -> str:
    """Hash the words of a command line and the keys of `hydra.sweeper`, equally for commands that say the same.

    >>> digest(["x=1"], {"dry_run": True}) == digest(["x=1", "hydra.sweeper.dry_run=false"], {})
    True
    """
    said = {key: value for key, value in keys.items() if key not in ELSEWHERE}
    unheard = {f"hydra.sweeper.{key}" for key in ELSEWHERE}
    words = [word for word in words if grammar.bare(word.partition("=")[0]) not in unheard]
    return hashlib.sha256(json.dumps([words, said], sort_keys=True, default=str).encode()).hexdigest()


def failures(trials: Iterable[FrozenTrial]) -> str:
    """List what the trials without a result failed of, a line for each kind of failure.

    >>> failures([optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={meta.MESSAGE: "no GPU"})] * 3)
    '  3 x fail: no GPU'
    """
    said = Counter(
        f"{meta.get(trial, meta.OUTCOME, trial.state.name.lower())}: {headline(meta.get(trial, meta.MESSAGE, ''))}"
        for trial in trials
        if failed(trial)
    )
    lines = [f"  {n} x {text}" for text, n in said.most_common(SHOWN)]
    if len(said) > SHOWN:
        lines.append(f"  and {len(said) - SHOWN} other kinds")
    return "\n".join(lines)


def uncount_failures(study: optuna.Study, unfinished: bool) -> int:
    """Let the trials that failed so far not count, and return how many do not.

    None of the study's trials came to a result, and no other controller drives it. With `unfinished`, those that have
    begun and not ended are given up, since what they run has changed.

    >>> study = optuna.create_study()
    >>> study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    >>> uncount_failures(study, unfinished=False)
    1
    """
    trials = TrialStore(study)
    numbers = set(uncounted(study))
    for trial in trials.all():
        begun = not trial.state.is_finished() and meta.get(trial, meta.ATTEMPT) is not None  # else it was only enqueued
        if unfinished and begun:
            trials.note(trial, meta.OUTCOME, Kind.FAILED.value)
            trials.note(trial, meta.MESSAGE, "It was begun by a command that has been mended since.")
            trials.fail(trial)
        elif not failed(trial):
            continue
        numbers.add(trial.number)
    study.set_user_attr(meta.UNCOUNTED, sorted(numbers))
    return len(numbers)


def untried(study: optuna.Study, configurations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List configurations, each once, but for those of trials that count.

    >>> study = optuna.create_study()
    >>> study.enqueue_trial({"x": 1})
    >>> untried(study, [{"x": 1}, {"x": 2}])
    [{'x': 2}]
    """
    hidden = uncounted(study)
    counted = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in hidden]
    known = [trial.system_attrs.get("fixed_params", trial.params) for trial in counted]
    found: list[dict[str, Any]] = []
    for params in configurations:
        if params not in known and params not in found:
            found.append(dict(params))
    return found


def enqueue(study: optuna.Study, configurations: Iterable[Mapping[str, Any]], n_trials: int) -> int:
    """Enqueue configurations that are untried, as many as trials are to begin; return how many are left over.

    >>> study = optuna.create_study()
    >>> enqueue(study, [{"x": 1}, {"x": 2}, {"x": 3}], n_trials=2)
    1
    >>> [trial.state.name for trial in study.trials]
    ['WAITING', 'WAITING']
    """
    wanted = untried(study, configurations)
    room = max(0, total(study, n_trials) - len(study.get_trials(deepcopy=False)))
    for params in wanted[:room]:
        study.enqueue_trial(params)
    return len(wanted[room:])
