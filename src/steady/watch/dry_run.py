"""Print what a sweep would do, for `hydra.sweeper.dry_run=true`. Writes nothing."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from steady import grammar
from steady.options import Promotion, SweepOptions
from steady.printing import say
from steady.propose.promotion import quota
from steady.propose.sampling import Proposer
from steady.propose.space import Space
from steady.study import budget, meta, results

SHOWN = 5  # proposals


def print_dry_run(
    study: optuna.Study, options: SweepOptions, space: Space, proposer: Proposer, first: list[dict[str, Any]]
) -> None:
    """Print the space, what is tried next (trials that wait, the `first` configurations, proposals) and the cost."""
    size = space.size()
    say(f"Study {options.study}, {options.n_trials} trials in {options.slots} slots.")
    say(f"The space has {'infinitely many' if size is None else size} configurations:")
    for name, described in space.describe(possible=True).items():
        say(f"  {name}: {described}")
    shown = min(SHOWN, _left(study, options))
    found = {one.number: one.system_attrs.get("fixed_params", one.params) for one in _waiting(study)}
    found |= dict(enumerate([*budget.untried(study, first), *proposer.preview(shown)], start=len(study.trials)))
    if shown:
        say("It would begin with:")
    for number, params in list(found.items())[:shown]:
        say(f"  {number}: {' '.join(f'{k}={grammar.as_text(v)}' for k, v in params.items())}")
    say(cost(study, options))


def cost(study: optuna.Study, options: SweepOptions) -> str:
    """Describe in a sentence the hours that the rest of a sweep takes.

    >>> from hydra_plugins.steady_sweeper.config import SteadySweeperConf
    >>> from steady.options import read
    >>> keys = {**vars(SteadySweeperConf()), "sampler": None, "n_jobs": 2, "trial_minutes": 3}
    >>> cost(optuna.create_study(), read(keys, "app", "multirun/now"))
    '20 trials to go at 3 minutes each (their budget): about 0.5 h, without pruning.'
    """
    left = _left(study, options)
    trials = f"{left} trial{'s' * (left != 1)}"
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trained = [trial for trial in finished if not meta.has(trial, meta.DUPLICATE_OF)]  # others took no time
    known = [value for trial in trained if (value := results.seconds(trial))]
    minutes = sum(known) / len(known) / 60 if known else options.trial_minutes
    share, plan = 1.0, "without pruning."
    if options.promotion is not None:
        share, plan = _promoted(left, options.promotion) if left else (1.0, "for all have begun.")
    if options.promotion and (paused := results.paused_words(study.get_trials(deepcopy=False))):
        plan += f" Beside these {paused}, and the best of them go on."
    if minutes is None:
        said = "how long one takes is not known before the first has finished"
        return f"{trials} to go, {plan[:-1]}; {said}."
    source = "the finished trials' mean" if known else "their budget"
    hours = share * left * minutes / options.slots / 60
    said = f"{trials} to go at {minutes:.3g} minutes each ({source}): about {hours:.2g} h, {plan}"
    if (timeout := options.timeout) is None:
        return said
    kept = options.reserved_seconds(60 * minutes)
    more = f", {kept / 60:.3g} minutes of it for the last of them" if kept else ""
    more += " and the confirmation" if kept and options.confirm else ""
    return f"{said} It is bound to {timeout / 60:.3g} minutes in all (hydra.sweeper.timeout){more}."


def _left(study: optuna.Study, options: SweepOptions) -> int:
    """Count the trials that are still to begin, and those that wait to go on."""
    return max(0, budget.total(study, options.n_trials) - len(study.trials)) + len(_waiting(study))


def _waiting(study: optuna.Study) -> list[FrozenTrial]:
    """List the trials that wait and are not paused."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [trial for trial in waiting if meta.paused_at(trial) is None]


def _promoted(n: int, promotion: Promotion) -> tuple[float, str]:
    """Estimate which share of the time of `n` whole trials a promotion takes, and say how many go on from each rung."""
    going, taken, before, words = n, 0.0, 0, []
    for step in promotion.rungs:
        taken += going * (step - before)
        before = step
        if step != promotion.rungs[-1]:
            going = max(1, quota(going, promotion.eta))
            words.append(f"{going} from rung {step}")
    last = promotion.rungs[-1]
    return taken / (n * last), f"as about {' and '.join(words)} go on; the others are paused there."
