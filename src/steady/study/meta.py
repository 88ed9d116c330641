"""Names of the attributes that a sweep writes on studies and trials, and access to them.

Hydra's override grammar has no colon in a key, so no name of a trial's attribute is ever that of a parameter; values of
fixed parameters are user attributes of trials too, as in hydra-optuna-sweeper.
"""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

# Attributes of a trial.
ATTEMPT = "steady:attempt"  # how often the trial was taken up again
JOB = "steady:job"  # where its last attempt runs, written by the job as it starts, see `reporting.identity`
RUNS = "steady:runs"  # slot, start and end (Unix time) of each attempt
OUTCOME = "steady:outcome"  # of the last attempt, see `failures.Kind`
MESSAGE = "steady:message"  # one line
TRACEBACK = "steady:traceback"
LOG = "steady:log"  # the folder with the trial's own output
FOLDER = "steady:folder"  # where it works, within the sweep's folder; not written if that is its number
LOST_COUNT = "steady:losses"  # how often its process was lost
RUNGS = "steady:rungs"  # scores by rung
REACHED = "steady:reached:"  # before a rung of the promotion: that it was reached, which `trial_marks` shows
PAUSED = "steady:paused"  # `rung` and `attempt`: that attempt ends there, and the trial waits for its promotion
PROMOTED = "steady:promoted"  # the highest rung that it passes: promoted from there, or to its end when time is short
NOTED = "steady:noted"  # values by name, which constraints are about
USAGE = "steady:usage"  # amounts by name that it has used, as `cpu_seconds`; `unit` names the one that is its budget
PRIOR_OF = "steady:prior"  # of another study's trial that a sampler is shown: STUDY/NUMBER
DUPLICATE_OF = "steady:duplicate_of"  # number of the trial whose values it took
CONFIRMS = "steady:confirms"  # of a confirmation run: number of the trial that it confirms
SEED = "steady:seed"  # of a confirmation run

# Attributes of a study.
CONTRACT = "contract"  # see `contract.Contract.to_dict`
ALLOWED = "allowed"  # what `allow_change` has named, so that the same line can be given again
GIVEN = "given"  # digest of the words and keys of the command that it was last run with
UNCOUNTED = "uncounted"  # numbers of the trials that do not count
PRUNING = "pruning"  # `pruner`, `metrics` and `directions`; None if it does not prune
PROMOTION = "promotion"  # see `steady.options.Promotion`; None without
PROMOTED_AT = "promoted_at"  # the rungs of the last promotion that it had, which may be over
SWEEP_DIR = "sweep_dir"  # `hydra.sweep.dir` of the first start
SWEEP_SEED = "seed"  # of the sampler
PATIENCE = "storage_patience"  # `hydra.sweeper.storage_patience`
OUT_OF_TIME = "out_of_time"  # number of its trials when `hydra.sweeper.timeout` ended its last search
COMMAND = "command"  # the line that ran it last, as a shell takes it
NEXT_STEP = "next_step"  # `hydra.sweeper.next_step`
OBJECTIVE = "objective"  # names of the objectives
PRIOR = "prior"  # which trials of other studies the sampler learns from, see `steady.propose.warm_start`
CHANGED_AT = "changed_at"  # number of its trials when a change was last accepted on which scores depend
CHANGES = "changes"  # how many of those there were; of a confirmation run, when it began
SPELLING = "spelling"  # "exact" if strings are told from other values; older studies lack it


def get(owner: optuna.Study | FrozenTrial, key: str, default: Any = None) -> Any:
    """Get an attribute of a study or trial by one of the names above, also if a version up to 0.1 wrote it.

    >>> get(optuna.trial.create_trial(value=1.0, user_attrs={"catsweep:attempt": 2}), ATTEMPT)
    2
    """
    return owner.user_attrs.get(key, owner.user_attrs.get(_old(key), default))


def has(owner: optuna.Study | FrozenTrial, key: str) -> bool:
    """Tell whether a study or trial has an attribute.

    >>> has(optuna.create_study(), CONTRACT)
    False
    """
    return key in owner.user_attrs or _old(key) in owner.user_attrs


def paused_at(trial: FrozenTrial) -> int | None:
    """Get the rung at which a trial is paused; None if it is not: what it marked in an earlier attempt is over.

    >>> noted = {ATTEMPT: 0, PAUSED: {"rung": 3, "attempt": 0}}
    >>> paused_at(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=noted))
    3
    """
    return marked_as_paused(trial) if trial.state == TrialState.WAITING else None


def marked_as_paused(trial: FrozenTrial) -> int | None:
    """Get the rung at which the last attempt of a trial ends, or has ended, to wait; None if it does not.

    >>> marked_as_paused(optuna.trial.create_trial(state=TrialState.RUNNING))
    """
    mark = trial.user_attrs.get(PAUSED)
    if not isinstance(mark, dict) or type(mark.get("rung")) is not int:  # a study may be a stranger's
        return None
    return mark["rung"] if mark.get("attempt") == get(trial, ATTEMPT, 0) else None


def names(key: str) -> list[str]:
    """List the names under which an attribute may be found, see `get`.

    >>> names(RUNGS)
    ['steady:rungs', 'catsweep:rungs']
    """
    return [key, _old(key)]


def _old(key: str) -> str:
    """The name that versions up to 0.1 gave an attribute."""
    return key.replace("steady:", "catsweep:", 1)
