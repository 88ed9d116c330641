"""Parsing of enqueued configurations: whether they are in the space, and how the study records them.

`hydra.sweeper.enqueue` is checked before anything is written; what another tool enqueued, when its turn comes.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from steady import grammar
from steady.propose.space import Space, word

MISSING = object()
Variants = Callable[[Mapping[str, Any]], Sequence[DictConfig]]


@dataclass
class Enqueued:
    """An enqueued configuration, parsed; problems and remarks are one line each."""

    params: dict[str, Any] = field(default_factory=dict)  # by the study's names, as the study records them
    problems: list[str] = field(default_factory=list)  # why it is not in the space
    absent: list[str] = field(default_factory=list)  # parameters whose condition does not hold
    remarks: list[str] = field(default_factory=list)  # values that are of no use, since another is fixed
    excluded: str | None = None  # the value on which a parameter depends, though another is fixed

    @classmethod
    def read(cls, given: Any, space: Space, config: DictConfig | None, variants: Variants | None = None) -> "Enqueued":
        """Parse values by parameter, not necessarily of all.

        `variants` returns what jobs with some parameters may be composed to; without it, a key that is not searched is
        taken to be in every job as it is in `config`, that of the multirun.
        """
        if not isinstance(given, Mapping):
            return cls(problems=[f"a configuration is written {{parameter: value, …}}; got {given!r}"])
        found = cls()
        names = {grammar.bare(name): name for name in space.parameters}
        unsearched: dict[str, Any] = {}
        for key in dict.fromkeys(grammar.bare(str(key)) for key in given):
            values = [value for written, value in given.items() if grammar.bare(str(written)) == key]
            if len(values) > 1:
                found.problems.append(f"{key} is given twice")
            elif key in names:
                try:
                    found.params[names[key]] = space.accepted(names[key], values[0])
                except ValueError as error:
                    found.problems.append(f"{key} {error}; got {_shown(values[0])}")
            elif space.extender and key not in space.fixed:
                found.params[next(name for name in given if grammar.bare(str(name)) == key)] = values[0]
            else:
                unsearched[key] = values[0]
        composed = variants(found.params) if unsearched and variants else []
        for key, value in unsearched.items():
            found._unsearched(key, value, space, composed or [OmegaConf.create() if config is None else config])
        found._conditions(space, unsearched)
        return found

    def _conditions(self, space: Space, unsearched: Mapping[str, Any]) -> None:
        """Note parameters whose condition does not hold beside the other values, or what is fixed."""
        for name in space.parameters:
            if name in self.params and not space.applies(name, self.params):
                self.absent.append(f"{grammar.bare(name)} is there only when {space.conditions[name]}")
                other = grammar.bare(space.conditions[name].other)
                if other in unsearched and other in space.fixed:
                    self.excluded = (
                        f"it has {other}={_shown(unsearched[other])}, and {other}={space.fixed[other]} is fixed"
                    )

    def _unsearched(self, key: str, value: Any, space: Space, configs: Sequence[DictConfig]) -> None:
        """Note a key that is not searched, unless its value is that with which its job is composed."""
        if key in space.fixed:
            stands: Any = grammar.plain(grammar.kept(grammar.parsed(space.fixed[key])))
            if stands != value:
                self.remarks.append(f"{key}={_shown(value)} is of no use, since {key}={space.fixed[key]} is fixed")
            return
        there = [_standing(config, key) for config in configs]
        if all(stands is MISSING for stands in there):
            known = [grammar.bare(name) for name in space.parameters]
            close = difflib.get_close_matches(key, known, 1)
            self.problems.append(
                f"there is no parameter {key}{f' (did you mean {close[0]}?)' if close else ''}; "
                f"searched are {', '.join(known) or 'none'}"
            )
            return
        if any(stands != value for stands in there):
            several = list(dict.fromkeys("not there" if stands is MISSING else _shown(stands) for stands in there))
            when = " in every trial" if len(several) == 1 else ", by what else is drawn"
            self.problems.append(f"{key} is not searched, and is {' or '.join(several)}{when}; got {_shown(value)}")


def read_all(
    given: Sequence[Any], space: Space, config: DictConfig | None, variants: Variants | None = None
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Parse `hydra.sweeper.enqueue`: returns what is to be enqueued, problems and remarks.

    Example:
        >>> read_all([{"lr": 0.5}], Space.parse({"lr": "interval(0.1, 1)"}, []), None)
        ([{'lr': 0.5}], [], [])
    """
    params, problems, remarks = [], [], []
    for index, one in enumerate(given):
        read = Enqueued.read(one, space, config, variants)
        if read.excluded and not read.problems:
            remarks.append(f"enqueue[{index}] is left out: {read.excluded}.")
            continue
        params.append(read.params)
        problems += [f"enqueue[{index}]: {line}." for line in (*read.problems, *read.absent)]
        remarks += [f"enqueue[{index}]: {line}." for line in read.remarks]
    return params, problems, remarks


def _standing(config: DictConfig, key: str) -> Any:
    """Get the option of a group, or the value of a key; `MISSING` if there is none, or it is not known yet."""
    groups = OmegaConf.select(config, "hydra.runtime.choices") or {}
    if key in groups or key.startswith("hydra"):
        return groups.get(key, MISSING)
    try:
        stands = OmegaConf.select(config, key, default=MISSING)
    except OmegaConfBaseException:  # it names what only a job has
        return MISSING
    return OmegaConf.to_container(stands) if OmegaConf.is_config(stands) else stands


def _shown(value: Any) -> str:
    return word(value) if value is None or isinstance(value, bool | int | float) else repr(value)
