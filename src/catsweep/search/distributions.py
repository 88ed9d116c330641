"""One parameter of the search: how many values it has, which, and how it is put in words.

`catsweep.search.space` builds spaces of them. Optuna's distributions, as hydra-optuna-sweeper reads them.
"""

import difflib
import math
from typing import Any

from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from catsweep.search import grammar


def finite(distribution: BaseDistribution) -> bool:
    """Whether it has finitely many values, as all have but intervals of floats."""
    return not isinstance(distribution, FloatDistribution) or distribution.step is not None or distribution.single()


def values(distribution: BaseDistribution) -> list[Any]:
    """The values of a finite one. Of choices that Optuna takes for equal (1, 1.0, true) it keeps the first."""
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        assert distribution.single()
        return [distribution.low]
    listed = OptunaSweeperImpl._to_grid_sampler_choices(distribution)
    if isinstance(distribution, CategoricalDistribution):
        return [value for index, value in enumerate(listed) if int(distribution.to_internal_repr(value)) == index]
    return list(listed)


def count(distribution: BaseDistribution) -> int:
    """The number of values of a finite one, without listing those of a long range."""
    if isinstance(distribution, CategoricalDistribution) or distribution.single():
        return len(values(distribution))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step) + 1  # Optuna puts `high` on a step


def canonical(value: Any, distribution: BaseDistribution | None) -> Any:
    """The same for values that are the same to Optuna.

    A float of a range becomes the number of its steps, as samplers and lists of values round differently; of choices
    that are equal (1, 1.0, true) it is the first, which is what a storage gives back.
    """
    if isinstance(distribution, CategoricalDistribution) and value in distribution.choices:
        return distribution.to_external_repr(distribution.to_internal_repr(value))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None and isinstance(value, float):
        return round((value - distribution.low) / distribution.step, 6) + 0.0
    return value


def accepted(value: Any, distribution: BaseDistribution) -> Any:
    """A value that somebody gives, or a configuration has, as Optuna keeps it.

    Args:
        value: plain, or a node of OmegaConf; lists and dicts are those that a choice is the text of.
        distribution: of its parameter.

    Raises:
        ValueError: it is none of the distribution's; with what would be, as the rest of a sentence.
    """
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(distribution, CategoricalDistribution):
        # Of a string that looks like the text of a list there may be two: the string itself goes before the list.
        several = (grammar.kept(value), value) if isinstance(value, str) else (value,)
        found = [choice for one in several for choice in distribution.choices if _same(one, choice)]
        if not found:
            raise ValueError(f"must be {_alternatives(value, distribution)}")
        return distribution.to_external_repr(distribution.to_internal_repr(found[0]))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    stepped = distribution.step is not None and distribution.step != 1
    wanted = f"from {distribution.low} to {distribution.high}{f' in steps of {distribution.step}' * stepped}"
    whole = isinstance(distribution, IntDistribution)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or (whole and value != int(value)) or not distribution._contains(float(value)):
        raise ValueError(f"must be a {'whole ' * whole}number {wanted}")
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def _same(value: Any, choice: grammar.Scalar) -> bool:
    """Whether a plain value is a choice. Equal numbers are, as to Optuna; a string is never a number, or null."""
    if isinstance(value, str):
        return isinstance(choice, str) and choice == value
    if isinstance(value, list | dict):
        return isinstance(choice, str) and type(found := grammar.plain(choice)) is type(value) and found == value
    return not isinstance(choice, str) and (value == choice)


def _alternatives(value: Any, distribution: CategoricalDistribution) -> str:
    choices = list(map(word, distribution.choices))
    close = difflib.get_close_matches(str(value), choices, 1)
    one_of = choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    return f"{one_of} (did you mean {close[0]}?)" if close and len(choices) > 1 else one_of


def words(distribution: BaseDistribution) -> str:
    """`choice(a, b)`, `int 1..4`, `float 0.0001..0.01 log`."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(word, distribution.choices))})"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    stepped = distribution.step is not None and not (kind == "int" and distribution.step == 1)
    step = f" step {distribution.step}" if stepped else ""
    return f"{kind} {distribution.low}..{distribution.high}{step}{' log' if distribution.log else ''}"


def word(value: Any) -> str:
    """One spelling for each value: YAML's `true`, `null`; 2 for 2.0; 0.3 for 0.1 + 0.2; `'null'` for the string."""
    return f"{value:.12g}" if isinstance(value, float) else grammar.spelled(value)
