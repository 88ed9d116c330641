"""How many configurations a space has, without listing them, and which they are.

`catsweep.search.space` asks; a sweep that tries nothing twice has to know when all was tried.
"""

import math
from typing import TYPE_CHECKING, Any

from catsweep.search import distributions

if TYPE_CHECKING:
    from catsweep.search.space import Space


def size(space: "Space") -> int | None:
    """The number of configurations, None for infinitely (or unknowably) many."""
    there = possible(space)  # one that can never be there may be continuous
    if space.extender or not all(distributions.finite(space.parameters[name]) for name in there):
        return None
    return math.prod(_below(space, name) for name in there if _root(space, name)[0] == name)


def possible(space: "Space") -> list[str]:
    """The parameters that some configuration has, beside what is fixed."""
    return [name for name in space.parameters if name not in space.conditions or _root(space, name)[1]]


def configurations(space: "Space", bound: int) -> list[dict[str, Any]] | None:
    """All of them, or None if they are not finite, more than `bound`, or not known (an extender)."""
    if space.size() is None or (space.size() or 0) > bound:
        return None
    found: list[dict[str, Any]] = [{}]
    for name, distribution in space.parameters.items():
        there = any(space.applies(name, params) for params in found)
        values = distributions.values(distribution) if there else []
        found = [
            grown
            for params in found
            for grown in ([{**params, name: v} for v in values] if space.applies(name, params) else [params])
        ]
    return found


def _root(space: "Space", name: str) -> tuple[str, bool]:
    """The searched parameter on which the presence of one hangs in the end, and whether it can be there."""
    while (condition := space.conditions.get(name)) and condition.other in space.parameters:
        name = condition.other
    return name, space.applies(name, {})


def _below(space: "Space", name: str) -> int:
    """The number of configurations of a parameter that is there and of those that hang on it."""
    distribution = space.parameters[name]
    hanging = [other for other, condition in space.conditions.items() if condition.other == name]
    if not hanging:
        return distributions.count(distribution)
    below = {other: _below(space, other) for other in hanging}
    return sum(
        math.prod(n for other, n in below.items() if space.applies(other, {name: value}))
        for value in distributions.values(distribution)
    )
