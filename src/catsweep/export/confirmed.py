"""The winner that a sweep has confirmed under other seeds, taken as the best model if it still is one.

`best_model` asks here first when the best by the study's first objective is wanted; `steady.confirm.confirmation`
says what a confirmation is. The model that is copied is the trial's own, trained under the seed of the search.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from catsweep.export.selection import Choice, objective_called
from catsweep.export.trials import TOLERANCE, Trials
from steady.confirm import confirmation
from steady.confirm.confirmation import Confirmation


def follows(select: str | int, trials: Trials) -> bool:
    """Whether a rule takes the confirmed winner: it asks for the best by the first objective."""
    rule = str(select).strip()
    return not rule.isdecimal() and rule != "knee" and objective_called(rule, trials.objectives) == 0


def current(trials: Trials, folder: Path) -> tuple[Confirmation | None, str]:
    """The confirmation of a study, whatever the choice is made by.

    Args:
        trials: of the study.
        folder: the study's, perhaps with a `confirmation.json`.

    Returns:
        None without one, or with one that is out of date, and then a remark that says so.
    """
    try:
        found = confirmation.read(folder)
        reason = outdated(found, trials) if found else ""
    except ValueError as error:
        reason = str(error)
    if not reason:
        return found, ""
    return None, f"Its confirmation is ignored: {reason}. Start the sweep again with hydra.sweeper.confirm to renew it."


def outdated(found: Confirmation, trials: Trials) -> str:
    """Why a confirmation says nothing about the study as it is now; empty if it does."""
    directions = tuple("maximize" if o.maximise else "minimize" for o in trials.objectives)
    if found.directions != directions:
        return "the study has other objectives"
    finished = {candidate.number: candidate.values for candidate in trials.finished}
    if changed := [c.trial for c in found.candidates if not _equal(c.searched, finished.get(c.trial, ()))]:
        return f"the study has other values for {_listed(changed)}"
    compared = [candidate.trial for candidate in found.candidates]
    last = max((i for i, number in enumerate(trials.ranked) if number in compared), default=-1)
    if better := [number for number in trials.ranked[: last + 1] if number not in found.considered]:
        return f"{_listed(better)} came later, and {'are' if len(better) > 1 else 'is'} better than some it compares"
    return "" if set(compared) <= set(trials.ranked) else "it compares trials that are no candidates any more"


def confirmed_choice(found: Confirmation, trials: Trials) -> Choice:
    """The winner under other seeds.

    Args:
        found: up to date.
        trials: of the study.
    """
    first, winner = trials.objectives[0], found.winner
    [candidate] = [candidate for candidate in trials.finished if candidate.number == winner.trial]
    seeds = ", ".join(map(str, winner.values))
    return Choice(
        candidate,
        f"the {'highest' if first.maximise else 'lowest'} mean {first.name} under other seeds, {winner.words()} over "
        f"{found.runs(winner)} ({seeds}), {winner.searched[0]:.5g} in the search; {found.comparison()}",
    )


def _equal(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(
        math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for x, y in zip(a, b, strict=True)
    )


def _listed(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
