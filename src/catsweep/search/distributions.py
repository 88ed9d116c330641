"""One parameter of the search: how many values it has, which, and how it is put in words.

`catsweep.search.space` builds spaces of them. Optuna's distributions, as hydra-optuna-sweeper reads them.
"""

from typing import Any

from hydra.core.override_parser.types import Transformer
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


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


def meant(value: Any, distribution: BaseDistribution) -> Any:
    """The choice that a configuration's value is: choices that are lists are kept as they were written."""
    if not isinstance(distribution, CategoricalDistribution) or value in distribution.choices:
        return value
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    written = word(Transformer.encode(plain)) if isinstance(plain, list) else word(plain)
    return next((choice for choice in distribution.choices if word(choice) == written), value)


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
    """One spelling for each value: YAML's `true`, `null`; 2 for 2.0; 0.3 for 0.1 + 0.2."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)
