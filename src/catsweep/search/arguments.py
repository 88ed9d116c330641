"""What `params` and the command line say: what is searched, what is fixed, what is deleted; each key once.

First step of `catsweep.search.space`. A sweep of numbers becomes the distribution that hydra-optuna-sweeper makes of
it; choices are read here, since there a quoted string loses its quotes, and with them what it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution

from catsweep.errors import ConfigError
from catsweep.search import grammar


@dataclass(frozen=True)
class Arguments:
    """What some lines say.

    Attributes:
        searched: distributions by key, without `+`.
        fixed: values in Hydra's grammar by key, without `+`.
        deletions: overrides that delete something, as written.
        prefixes: `+` or `++` of the keys that were written with it.
        unsearched: keys that are fixed, though a line would have them searched.
    """

    searched: dict[str, BaseDistribution] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    deletions: tuple[str, ...] = ()
    prefixes: dict[str, str] = field(default_factory=dict)
    unsearched: tuple[str, ...] = ()

    @classmethod
    def read(cls, lines: Iterable[str], source: str) -> "Arguments":
        """Read overrides.

        Of a key that is given twice the later line counts, but what is fixed is never searched, as upstream has it.

        Args:
            lines: the overrides.
            source: where they are from, for messages.

        Raises:
            ConfigError: with all lines that cannot be read.
        """
        found, problems = cls(), []
        deletions = []
        for line in lines:
            try:
                override = OverridesParser.create().parse_override(line)
                if override.is_delete():
                    deletions.append(line)
                    continue
                found._add(override)
            except (HydraException, OmegaConfBaseException, ValueError, NotImplementedError, AssertionError) as error:
                problems.append(_unreadable(line, source, error))
        if problems:
            raise ConfigError(
                "\n".join(problems)
                + "\nExpected a value, choice(a, b), range(1, 5), interval(0.0, 1.0) or tag(log, interval(1e-4, 1e-2))."
            )
        both = tuple(key for key in found.fixed if found.searched.pop(key, None) is not None)
        return cls(found.searched, found.fixed, tuple(deletions), found.prefixes, both)

    def under(self, other: "Arguments") -> "Arguments":
        """These, where the other says nothing of a key: the command line wins over `params`."""
        own = {key: d for key, d in self.searched.items() if key not in other.fixed}
        kept = {key: value for key, value in self.fixed.items() if key not in other.searched}
        # The command line's own spelling has been tried on the configuration by Hydra already.
        said = {*other.searched, *other.fixed}
        prefixes = {key: value for key, value in self.prefixes.items() if key not in said}
        return Arguments(
            {**own, **other.searched},
            {**kept, **other.fixed},
            (*self.deletions, *other.deletions),
            {**prefixes, **other.prefixes},
            (*(key for key in self.searched if key in other.fixed), *other.unsearched),
        )

    def _add(self, override: Override) -> None:
        written = override.get_key_element()
        key, prefix = grammar.bare(written), grammar.prefix(written)
        if key not in self.searched and key not in self.fixed:
            if prefix:
                self.prefixes[key] = prefix
        elif prefix == "++":  # finds a key whether or not a line before has made it
            self.prefixes[key] = prefix
        if override.is_sweep_override():
            self.searched[key] = _distribution(override)
        else:
            self.fixed[key] = _fixed(override)


def line(key: str, value: Any) -> str:
    """An entry of `params` as an override: text is already in Hydra's grammar, other values are put in it."""
    return f"{key}={value if isinstance(value, str) else grammar.spelled(grammar.kept(_quotes(value)))}"


def check_deletions(arguments: Arguments) -> None:
    """See that nothing is deleted that is searched.

    Raises:
        ConfigError: with all that is; jobs would run without what the study says they had.
    """
    problems = []
    for deletion in arguments.deletions:
        deleted = OverridesParser.create().parse_override(deletion).get_key_element().lstrip("~")
        for key in arguments.searched:
            if key == deleted or key.startswith(f"{deleted}."):
                problems.append(
                    f"{deletion} deletes {key}, which is searched. To fix it, give it a value: {key}=VALUE; to leave "
                    f"it out of the search, take it out of hydra.sweeper.params or off the command line."
                )
    if problems:
        raise ConfigError("\n".join(problems))


def _distribution(override: Override) -> BaseDistribution:
    value = override._value
    if isinstance(value, ChoiceSweep):
        # In the order as written, also of shuffle(…): Optuna keeps the order of choices from start to start.
        return CategoricalDistribution([grammar.kept(one) for one in value.list])
    if isinstance(value, RangeSweep) and (value.shuffle or value.transformers):
        return CategoricalDistribution([grammar.kept(one) for one in value])
    distribution = create_optuna_distribution_from_override(override)
    assert isinstance(distribution, BaseDistribution)
    return distribution


def _fixed(override: Override) -> str:
    """A value as the jobs' overrides have it: spelled as upstream spells it, where that says the same."""
    text = str(override.get_value_element_as_str())
    if override.type == OverrideType.EXTEND_LIST:
        return str(override.get_value_string())
    same = OverridesParser.create().parse_override(f"x={text}")
    if repr(same.value()) == repr(override.value()):  # also tells 1 from true and "1"
        return text
    return str(override.get_value_string())  # str(1)


def _quotes(value: Any) -> Any:
    """A plain value as it would have been parsed, with its strings in quotes."""
    if isinstance(value, Mapping):
        return {str(key): _quotes(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_quotes(one) for one in value]
    if isinstance(value, str):
        return QuotedString(value, Quote.single)
    return value


def _unreadable(line: str, source: str, error: Exception) -> str:
    told = " ".join(str(error).split())
    return f"{line!r} of {source} cannot be read{f': {told}' if told else '.'}"
