"""Which trials of a study use up its budget, `n_trials`: all, but for those that failed before the command was mended.

A command that cannot work, such as one with a misspelled metric, fails in trial after trial. As long as none has come
to a result, nothing was found out, so once the command is another these trials count no more: they stay in the study,
and `steady.sweep` runs as many others. A trial that was pruned did run, and counts.

The trials of a study as the loop handles them: its one way to Optuna's storage, around `Study`'s own checks.

`Study` has no call to set a running trial back, or to note something on one that another process drives.
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
from steady.study.failures import Kind, shortened
from steady.study.storage import Trials

FAILURES = "failures"  # the name in `allow_change` by which a mend is accepted that is not in the command
# Of no effect on whether a trial works; and folders and times in them may differ from start to start.
ELSEWHERE = ("allow_change", "dry_run", "extra_scores", "next_step", "on_end", "record", "storage", "study_name")
RESULTS = (Kind.COMPLETE, Kind.PRUNED)
SHOWN = 5  # kinds of failure


def uncounted(study: optuna.Study) -> frozenset[int]:
    """The numbers of the trials that do not count."""
    return frozenset(meta.get(study, meta.UNCOUNTED, ()))


def total(study: optuna.Study, n_trials: int) -> int:
    """How many trials the study will hold when `n_trials` of them count."""
    return n_trials + len(uncounted(study))


def is_complete(study: optuna.Study, n_trials: int) -> bool:
    """Whether all trials there are to be have ended."""
    trials = study.get_trials(deepcopy=False)
    return len(trials) >= total(study, n_trials) and all(trial.state.is_finished() for trial in trials)


def failed(trial: FrozenTrial) -> bool:
    """Whether a trial came to its end without a result: neither values, nor given up by the pruner."""
    if trial.state == TrialState.PRUNED:  # infeasible ones are, too
        return meta.get(trial, meta.OUTCOME, Kind.PRUNED) not in RESULTS
    return trial.state == TrialState.FAIL


def all_failed(trials: Iterable[FrozenTrial]) -> bool:
    """Whether some trials failed, and none came to a result."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    return bool(ended) and all(map(failed, ended))


def is_begun(trial: FrozenTrial) -> bool:
    """Whether a trial that has not ended was ever started; one that was only enqueued was not."""
    return not trial.state.is_finished() and meta.get(trial, meta.ATTEMPT) is not None


def digest(words: Sequence[str], keys: Mapping[str, Any]) -> str:
    """Equal for commands that say the same.

    Args:
        words: of the command line.
        keys: of `hydra.sweeper`, plain values.
    """
    said = {key: value for key, value in keys.items() if key not in ELSEWHERE}
    unheard = {f"hydra.sweeper.{key}" for key in ELSEWHERE}
    words = [word for word in words if grammar.bare(word.partition("=")[0]) not in unheard]
    return hashlib.sha256(json.dumps([words, said], sort_keys=True, default=str).encode()).hexdigest()


def failures(trials: Iterable[FrozenTrial]) -> str:
    """What the trials without a result failed of, a line for each kind of failure."""
    said = Counter(_first_line(trial) for trial in trials if failed(trial))
    lines = [f"  {n} x {text}" for text, n in said.most_common(SHOWN)]
    return "\n".join([*lines, *([f"  and {len(said) - SHOWN} other kinds"] if len(said) > SHOWN else [])])


def _first_line(trial: FrozenTrial) -> str:
    lines = str(meta.get(trial, meta.MESSAGE, "")).strip().splitlines()
    said = shortened(lines[0]) if lines else "no message"
    return f"{meta.get(trial, meta.OUTCOME, trial.state.name.lower())}: {said}"


def uncount_failures(study: optuna.Study, unfinished: bool) -> int:
    """Let the trials that failed so far not count, and say how many these are.

    Args:
        study: none of its trials came to a result, and no other controller drives it.
        unfinished: whether those that were begun and have not ended are given up, since what they run has changed.
    """
    trials = Trials(study)
    numbers = set(uncounted(study))
    for trial in trials.all():
        if unfinished and is_begun(trial):
            trials.note(trial, meta.OUTCOME, Kind.FAILED.value)
            trials.note(trial, meta.MESSAGE, "It was begun by a command that has been mended since.")
            trials.fail(trial)
        elif not failed(trial):
            continue
        numbers.add(trial.number)
    study.set_user_attr(meta.UNCOUNTED, sorted(numbers))
    return len(numbers)


def enqueue(study: optuna.Study, configurations: Iterable[Mapping[str, Any]]) -> None:
    """Enqueue configurations, but for those of trials that count."""
    hidden = uncounted(study)
    counted = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in hidden]
    known = [trial.system_attrs.get("fixed_params", trial.params) for trial in counted]
    for params in configurations:
        if params not in known:
            study.enqueue_trial(dict(params), skip_if_exists=not hidden)
