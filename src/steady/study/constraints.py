"""Constraints of a study on values that its trials note: written, parsed, and what a trial violates.

`hydra.sweeper.constraints={weights: "<= 2e6"}`. A task notes the values (`steady.reporting.TrialReporter.note`); when a
trial ends, `steady.run.ledger` writes how far it is from each bound as a constraint of Optuna's, from which samplers
learn, and by which a trial is feasible or not for every tool (`steady.study.select`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from steady.exceptions import ConfigError, StudyError
from steady.study import meta

WRITTEN = re.compile(r"\s*(<=|>=)\s*(\S+)\s*")
UNKNOWN = 1.0  # excess of a finished trial that did not note the value


@dataclass(frozen=True)
class Constraint:
    """An upper (`<=`) or lower (`>=`) bound on a value."""

    name: str  # of the value
    sign: str
    bound: float  # finite

    @classmethod
    def parse(cls, name: str, text: object) -> "Constraint":
        """Parse `<= NUMBER` or `>= NUMBER`; anything else is a ConfigError.

        >>> Constraint.parse("weights", "<= 2e6")
        Constraint(name='weights', sign='<=', bound=2000000.0)
        """
        found = WRITTEN.fullmatch(text) if isinstance(text, str) else None
        try:
            bound = float(found[2]) if found else math.nan
        except ValueError:
            bound = math.nan
        if found is None or not math.isfinite(bound):
            raise ConfigError(
                f'hydra.sweeper.constraints.{name} must be "<= NUMBER" or ">= NUMBER", as "<= 2e6"; got {text!r}.'
            )
        return cls(name, found[1], bound)

    def excess(self, value: float) -> float:
        """Compute by how much a value violates the bound, in units of it (of 1 if it is 0); at most 0 if it does not.

        In units of the bound, since samplers add up the violations of several.

        >>> Constraint("weights", "<=", 200.0).excess(300), Constraint("fps", ">=", 10.0).excess(25)
        (0.5, -1.5)
        """
        over = value - self.bound if self.sign == "<=" else self.bound - value
        return over / (abs(self.bound) or 1.0)

    @property
    def limit(self) -> str:
        """The bound as it is written."""
        return f"{self.sign} {self.bound:.12g}"

    def __str__(self) -> str:
        return f"{self.name} {self.limit}"


def parse_all(written: object) -> tuple[Constraint, ...]:
    """Parse constraints by the name of the value; a ConfigError for what is none.

    >>> [str(one) for one in parse_all({"weights": "<= 2e6", "fps": ">=10"})]
    ['weights <= 2000000', 'fps >= 10']
    """
    if not isinstance(written, Mapping) or not all(isinstance(name, str) and name for name in written):
        raise ConfigError(
            f'hydra.sweeper.constraints must be {{name of a value: "<= NUMBER" or ">= NUMBER"}}; got {written!r}.'
        )
    return tuple(Constraint.parse(name, text) for name, text in written.items())


def of(study: optuna.Study) -> tuple[Constraint, ...]:
    """Get the constraints of a study, as its contract has them.

    >>> of(optuna.create_study())
    ()
    """
    kept = meta.get(study, meta.CONTRACT)
    try:
        return parse_all((kept.get("constraints") or {}) if isinstance(kept, Mapping) else {})
    except ConfigError as error:
        raise StudyError(f"The study {study.study_name} has constraints that cannot be read: {error}") from error


def noted(trial: FrozenTrial) -> dict[str, float]:
    """Get the values that a trial has noted; those of somebody else's that are no finite numbers are left out.

    >>> noted(optuna.trial.create_trial(value=1.0, user_attrs={meta.NOTED: {"weights": 5, "name": "a"}}))
    {'weights': 5.0}
    """
    values: Any = meta.get(trial, meta.NOTED)
    values = values if isinstance(values, Mapping) else {}
    return {str(name): float(value) for name, value in values.items() if _is_number(value)}


def excesses(constraints: tuple[Constraint, ...], values: Mapping[str, float], finished: bool) -> dict[str, float]:
    """Compute the excess by constraint; of a `finished` trial a value that was not noted counts as violated.

    >>> excesses(parse_all({"a": "<= 2", "b": "<= 2"}), {"a": 1.0}, finished=True)
    {'a': -0.5, 'b': 1.0}
    """
    found = {one.name: one.excess(values[one.name]) for one in constraints if one.name in values}
    return {one.name: found.get(one.name, UNKNOWN) for one in constraints if finished or one.name in found}


def violated(constraints: tuple[Constraint, ...], trial: FrozenTrial) -> list[str]:
    """Describe what a trial violates, each of the study's constraints with the value that it noted.

    >>> noted = {meta.NOTED: {"weights": 5}}
    >>> trial = optuna.trial.create_trial(value=1.0, user_attrs=noted, constraints={"weights": 1.5})
    >>> violated(parse_all({"weights": "<= 2"}), trial)
    ['weights <= 2 (it has 5)']
    """
    values, limits = noted(trial), {one.name: str(one) for one in constraints}
    return [
        f"{limits.get(name, name)} ({f'it has {values[name]:.6g}' if name in values else 'it noted none'})"
        for name, excess in trial.constraints.items()
        if excess > 0
    ]


def nearest(study: optuna.Study) -> FrozenTrial | None:
    """Find the trial that violates the study's constraints least; None if none violates them.

    >>> nearest(optuna.create_study())
    """
    names = {one.name for one in of(study)}

    def violation(trial: FrozenTrial) -> float:
        return sum(excess for name, excess in trial.constraints.items() if name in names and excess > 0)

    beyond = [trial for trial in study.get_trials(deepcopy=False) if violation(trial) > 0]
    return min(beyond, key=lambda trial: (trial.state != TrialState.COMPLETE, violation(trial)), default=None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
