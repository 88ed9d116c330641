"""The contract of a study: what its first start recorded, and how a later start differs from it.

Trials that were made under different conditions cannot be compared, so a difference is refused, unless it is accepted
by name. What Optuna cannot hold in one study is refused in any case. A contract holds plain values that are the same
before and after JSON, are equal at equal starts, and contain no secrets.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from steady import grammar
from steady.exceptions import ConfigError, StudyError
from steady.study.constraints import Constraint

if TYPE_CHECKING:
    from steady.propose.space import Space

SECTIONS = ("objective", "directions", "constraints", "warm_start", "space", "fixed", "config", "facts")
LATER = ("constraints", "warm_start")  # sections that no study of a version without them had any of
WHOLE = {  # sections without keys, and why they cannot change, if they cannot
    "objective": "the values of the study's trials are of these objectives, for good",
    "directions": "Optuna keeps the directions of a study, for good",
    "warm_start": "",
}
KINDS = ("choice(", "int ", "float ")  # as `Space.describe()` begins; an extender is described otherwise
TREES = ("config", "facts")  # sections whose dotted keys are nodes


@dataclass(frozen=True)
class Change:
    """A difference between two contracts."""

    section: str  # of the contract
    key: str  # dotted, within the section; empty if the section has no keys
    before: Any  # None if there was none
    after: Any  # None if there is none
    impossible: str = ""  # why it cannot be accepted; empty if it can

    @property
    def name(self) -> str:
        """The whole key, by which the change can be accepted."""
        return f"{self.section}.{self.key}" if self.key else self.section

    def accepted(self, allowed: Sequence[str]) -> bool:
        """Tell whether a name in `allowed` is the section, the key with or without it, or a node above the key."""
        names = (self.key, self.name)
        words = [grammar.bare(word) for word in allowed]
        return not self.impossible and any(
            name == word or name.startswith(f"{word}.") for name in names for word in words
        )

    def __str__(self) -> str:
        before, after = _text(self.before), _text(self.after)
        if before == after:  # '1' and 1
            before, after = repr(self.before), repr(self.after)
        return f"{self.name}: {before} → {after}"


def _folded(
    changes: Sequence[Change],
    before: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
    allowed: Sequence[str],
) -> list[tuple[Change, str]]:
    """Fold the changes of a node that is wholly new, or wholly gone, into one; with remarks, empty for those to accept.

    `before` and `now` are the values by section and dotted key; the changes are in the order of their keys.
    """

    def place(change: Change) -> tuple[str, str, bool]:
        side = before if change.before is None else now if change.after is None else None
        key = change.key if side is None or change.section not in TREES else _new_in(side[change.section], change.key)
        remark = "  (accepted)" if change.accepted(allowed) else ""
        if change.impossible:
            remark = f"  (cannot be accepted: {change.impossible})"
        return key, remark, change.before is None

    found = []
    for (key, remark, is_new), group in groupby(changes, place):
        first, *others = group
        if others:
            settings = f"{1 + len(others)} settings"
            first = Change(first.section, key, None if is_new else settings, settings if is_new else None)
        found.append((first, remark))
    return found


def _new_in(values: Mapping[str, Any], key: str) -> str:
    """Find the outermost node around a key that has no other values; the key itself if there is none."""
    known = [other for other, value in values.items() if value is not None]
    nodes = [key[:end] for end, char in enumerate(key) if char == "."]
    return next((node for node in nodes if not any(other.startswith(f"{node}.") for other in known)), key)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Contract:
    """What must stay the same from one start to the next."""

    objective: list[str] | None  # names, if the objectives have any
    directions: list[str]
    space: dict[str, str]  # `Space.describe()`; keys have the prefix that an override of them needs
    fixed: dict[str, Any] = field(default_factory=dict)  # by such keys: what the command line fixed or deleted
    config: dict[str, Any] = field(default_factory=dict)  # of the task, without what is searched or ignored
    facts: dict[str, Any] = field(default_factory=dict)  # found by the preflight, for example the data's digest
    constraints: dict[str, str] = field(default_factory=dict)  # bounds by the name of the value
    machines: tuple[str, ...] = ()  # where it was driven, the first start's first; told, never refused
    warm_start: str | list[str] | None = None  # studies whose trials the sampler begins with, or `auto`
    absent: frozenset[str] = frozenset()  # sections that the version which wrote it did not know; not compared

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        kept = {section: getattr(self, section) for section in SECTIONS if section not in self.absent}
        return {**kept, "machines": list(self.machines)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Contract":
        """Convert from plain values, also of a version with fewer or more sections."""
        empty: dict[str, Any] = {"objective": None, "directions": [], "space": {}}
        known = {section: values[section] for section in SECTIONS if section in values}
        told = values.get("machines")
        machines = tuple(map(str, told if isinstance(told, list) else ()))
        return cls(**{**empty, **known}, machines=machines, absent=frozenset(SECTIONS) - known.keys() - set(LATER))


def freeze(
    objective: list[str] | None,
    directions: list[str],
    space: "Space",
    config: DictConfig,
    ignore: Sequence[str],
    facts: Mapping[str, Any],
    constraints: Sequence[Constraint] = (),
    warm_start: str | Sequence[str] | None = None,
) -> Contract:
    """Record the contract of this start, in plain values without secrets.

    `config` is the configuration of the multirun; its keys in `ignore`, with all below them, may change freely. `facts`
    are those of the preflight.

    >>> from steady.propose.space import Space
    >>> space = Space.parse({"lr": "interval(0.1, 1)"}, ["epochs=5"])
    >>> freeze(None, ["minimize"], space, OmegaConf.create({"lr": 0.5, "out": "a"}), ["out"], {}).fixed
    {'epochs': '5'}
    """
    ignored = ["hydra", *ignore]
    kept = {key: value for key, value in space.describe_fixed().items() if not is_within(path_of(key), ignored)}
    task = resolved(config, [*ignored, *map(path_of, space.parameters)])
    return Contract(
        objective,
        directions,
        space.describe(),
        plain(kept),
        plain(task),
        plain(facts),
        {one.name: one.limit for one in constraints},
        warm_start=warm_start if warm_start is None or isinstance(warm_start, str) else list(warm_start),
    )


def compare(before: Contract, now: Contract, valued: bool = True) -> list[Change]:
    """Compare two contracts section by section. An absent key is as good as null or empty.

    `valued` tells whether a trial of the study has values, which are of its objectives.

    >>> old, new = (Contract(None, ["minimize"], {}, config={"epochs": n}) for n in (5, 9))
    >>> [str(change) for change in compare(old, new)]
    ['config.epochs: 5 → 9']
    """
    absent = before.absent | now.absent
    found = []
    for section in (section for section in SECTIONS if section not in absent):
        old, new = getattr(before, section), getattr(now, section)
        if section in WHOLE:
            reason = WHOLE[section] if valued or section == "directions" else ""
            found += [Change(section, "", old, new, reason)] if old != new else []
            continue
        old, new = _flat(old), _flat(new)
        if section in ("space", "fixed"):  # whose keys have the prefix of an override
            old, new = _bare(old), _bare(new)
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                reason = _impossible(old.get(key), new.get(key)) if section == "space" else ""
                if section == "constraints" and valued:
                    reason = "the study's trials are feasible, or not, by what it was begun with, for good"
                found.append(Change(section, key, old.get(key), new.get(key), reason))
    if "config" in absent:
        return found
    shown = {*_flat(before.config), *_flat(now.config)}
    # `epochs=5` fixes what the configuration says anyway, and better: it may have said so before.
    return [c for c in found if c.section != "fixed" or not any(is_within(key, [path_of(c.key)]) for key in shown)]


def check(
    before: Contract,
    now: Contract,
    allowed: Sequence[str],
    study: str = "The study",
    naming: str = "hydra.sweeper.study_name",
    fruitless: bool = False,
    next_step: str = "",
) -> list[Change]:
    """Refuse what changed since the first start (StudyError), unless it was accepted by name; return what changed.

    Args:
        before: contract of the first start.
        now: of this one.
        allowed: names of accepted changes, see `Change.accepted`. Names of what did not change do no harm, so that the
            same line can be given again.
        study: which, and where it is kept, in words.
        naming: key by which the user names another study.
        fruitless: all trials of the study failed, so there is nothing that new ones must be comparable with.
        next_step: what can be done with a study that is not continued.

    >>> old, new = (Contract(None, ["minimize"], {}, config={"epochs": n}) for n in (5, 9))
    >>> check(old, new, allowed=["epochs"])[0].after
    9
    """
    changes = compare(before, now, valued=not fruitless)
    if all(change.accepted(SECTIONS if fruitless else allowed) for change in changes):
        return changes
    frozen, current = ({section: _flat(getattr(one, section)) for section in TREES} for one in (before, now))
    shown = _folded(changes, frozen, current, allowed)
    lines = "\n".join(f"  {change}{remark}" for change, remark in shown)
    missing = sorted({change.key or change.section for change, remark in shown if not remark})
    fresh, moved = f"{naming}=NEWNAME", ""
    if any(change.section == "config" and None in (change.before, change.after) for change in changes):
        moved = (
            "\nIf those are the options, the files of the configuration have changed since, as with a newer version: "
            f"then only the version that began the study can go on with it. It can be read as before. {next_step}"
        ).rstrip()
    if any(change.impossible for change in changes):
        remedy = f"What cannot change in a study can in another: {fresh}."
    else:
        words = dict.fromkeys([*allowed, *missing])
        names = ",".join(word if re.fullmatch(r"[\w./+@-]+", word) else f'"{word}"' for word in words)
        remedy = f"Accept the change with 'hydra.sweeper.allow_change=[{names}]', or begin another study with {fresh}."
    raise StudyError(
        f"{study} was begun otherwise (before → now):\n{lines}\n"
        f"Its trials could not be compared with new ones. Give the options it was begun with. {remedy}{moved}"
    )


def require_known(
    allowed: Sequence[str], contracts: Sequence[Contract], config: DictConfig, more: Sequence[str] = ()
) -> None:
    """Raise a ConfigError for names of `allow_change` that name nothing: a misspelled one would accept nothing.

    `contracts` are those of the first start and of this one, `config` that of the multirun, `more` other names that
    there are. What the preflight found may be in neither contract, so `facts.NAME` is never refused.

    >>> require_known(["epochs"], [], OmegaConf.create({"epochs": 5}))
    """
    keys = set(_flat(OmegaConf.to_container(config, resolve=False)))  # type: ignore[arg-type]  # a DictConfig's
    for section in (section for section in SECTIONS if section not in WHOLE):
        found = {grammar.bare(key) for one in contracts for key in _flat(getattr(one, section))}
        keys |= found | {f"{section}.{key}" for key in found}
    known = {*SECTIONS, *more, *keys}
    known |= {key[:end] for key in keys for end, char in enumerate(key) if char == "."}
    unknown = [name for name in allowed if grammar.bare(name) not in known and not name.startswith("facts.")]
    if unknown:
        near = [close for name in unknown for close in difflib.get_close_matches(grammar.bare(name), known, 1)]
        raise ConfigError(
            f"hydra.sweeper.allow_change names what may differ from the first start: a section ({', '.join(SECTIONS)}, "
            f"failures) or a key of the configuration or the space; got {', '.join(map(repr, unknown))}, which "
            f"is none.{f' Did you mean {chr(44).join(near)}?' if near else ''}"
        )


def _impossible(old: str | None, new: str | None) -> str:
    """Tell what Optuna would refuse but for choices, from `Space.describe()`: another kind of parameter, or scale."""
    if not (old and new and old.startswith(KINDS) and new.startswith(KINDS)):
        return ""
    if any(old.startswith(kind) != new.startswith(kind) for kind in KINDS):
        return "Optuna keeps the kind of a parameter"
    if old.startswith("choice"):  # each trial keeps its own, see `steady.storage.attributes`
        return ""
    log = [words.partition(" when ")[0].endswith(" log") for words in (old, new)]
    return "" if log[0] == log[1] else "Optuna keeps the scale of a parameter, log or not"


def has_other_choices(change: Change) -> bool:
    """Tell whether a parameter has other choices than it had.

    >>> has_other_choices(Change("space", "x", "choice(a, b) when y=1", "choice(a, b) when y=2"))
    False
    """
    both = [re.sub(r"\) when [^ =]+=.*", ")", str(text)) for text in (change.before, change.after)]
    return change.section == "space" and all(text.startswith("choice(") for text in both) and both[0] != both[1]


def _bare(values: Mapping[str, Any]) -> dict[str, Any]:
    """Take prefixes off keys; an earlier version had them in conditions too."""
    said = {
        key: re.sub(r" when \++", " when ", text) if isinstance(text, str) else text for key, text in values.items()
    }
    return {grammar.bare(key): text for key, text in said.items()}


def path_of(key: str) -> str:
    """Get where an override acts: `a.b` for `+a.b`, `~a.b=1`, `a/b`, and `group@a.b`."""
    return key.lstrip("+~").partition("=")[0].rpartition("@")[2].replace("/", ".")


def is_within(key: str, above: Sequence[str]) -> bool:
    """Tell whether a dotted key is one of others, or below it.

    >>> is_within("a.b", ["a"]), is_within("ab", ["a"])
    (True, False)
    """
    return any(key == one or key.startswith(f"{one}.") for one in above)


# Interpolations of what belongs to a start or a machine, or is a secret.
PASSING = re.compile(r"\$\{\s*(now|hydra|oc\.env)\s*:")
INERT = "$\ue000{"  # stands for `${` where nothing may be resolved
SECRET = re.compile(r"(^|_|\b)(storage|passw(or)?d|passphrase|secret|token|api_?key|credentials?)$", re.IGNORECASE)
STORAGE = re.compile(r"(sqlite|journal|postgres(ql)?|mysql|mariadb|oracle|mssql|redis|grpc)(\+\w+)?://", re.IGNORECASE)
USER = re.compile(r"(?<=://)[^/@\s]+@")  # name:password@ in a URL


def resolved(config: DictConfig, dropped: Sequence[str]) -> dict[str, Any]:
    """Resolve the interpolations of a configuration, without the dotted keys `dropped` and all below them.

    Those that depend on something dropped, are only known within a job, or differ from start to start or from machine
    to machine (`now:`, `hydra:`, `oc.env:`) stay as written.

    >>> resolved(OmegaConf.create({"a": 1, "b": "${a}", "c": "${oc.env:HOME}", "d": 2}), ["d"])["b"]
    1
    """
    written = _inert(OmegaConf.to_container(config, resolve=False, enum_to_str=True))
    for key in dropped:
        *above, last = key.split(".")
        tree = written
        for name in above:
            tree = tree.get(name) if isinstance(tree, dict) else None
        if isinstance(tree, dict):
            tree.pop(last, None)
    found: dict[str, Any] = _values(written, OmegaConf.create(written))
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to values by dotted key; of an empty one there is nothing."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def plain(value: Any) -> Any:
    """Convert mappings, sequences and scalars to what JSON gives back, without secrets.

    A key named like a secret is left out, a storage URL becomes None, and another URL loses its user and password.

    >>> plain({"api_key": "x", "url": "https://me:secret@host/a", "n": (1, float("nan"))})
    {'url': 'https://***@host/a', 'n': [1, 'nan']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if not SECRET.search(str(key))}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = str(value).replace(INERT, "${")  # also nan, which is not equal to itself
    return None if STORAGE.match(text.strip("'\"")) else USER.sub("***@", text)


def _inert(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _inert(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_inert(item) for item in value]
    return value.replace("${", INERT) if isinstance(value, str) and PASSING.search(value) else value


def _values(written: Any, node: Any) -> Any:
    def value(item: Any, key: Any) -> Any:
        if isinstance(item, dict | list):
            return _values(item, node[key])
        if not isinstance(item, str) or "${" not in item:
            return item
        try:
            found = node[key]
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        except OmegaConfBaseException:  # something is only known within a job
            return item

    if isinstance(written, dict):
        return {key: value(item, key) for key, item in written.items()}
    return [value(item, index) for index, item in enumerate(written)]


def differences(before: Any, now: Any, ignore: Collection[str] = (), path: str = "") -> list[str]:
    """List where two plain configurations differ, `key: before → now`; an absent key is as good as null.

    Top-level keys of `ignore` may differ; `path` is the prefix of the keys, for the recursion.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}}, ignore=["c"])
    ['a.b: 1 → 3']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in sorted({*before, *now}, key=str) if key not in ignore]
        join = f"{path}." if path else ""
        pairs = [differences(before.get(key), now.get(key), path=f"{join}{key}") for key in keys]
        return [line for lines in pairs for line in lines]
    return [] if before == now else [f"{path}: {before!r} → {now!r}"]
