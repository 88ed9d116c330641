"""Differences between two contracts, and how a refusal lists them: a line each, and one for a node that is wholly new.

`catsweep.search.contract` finds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from catsweep.search import grammar

TREES = ("config", "facts")  # sections whose dotted keys are nodes


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        section: of the contract.
        key: dotted, within the section; empty if the section has no keys.
        before: the frozen value, None if there was none.
        after: the value now, None if there is none.
        impossible: why it cannot be accepted; empty if it can.
    """

    section: str
    key: str
    before: Any
    after: Any
    impossible: str = ""

    @property
    def name(self) -> str:
        """The whole key, by which the change can be accepted."""
        return f"{self.section}.{self.key}" if self.key else self.section

    def accepted(self, allowed: Sequence[str]) -> bool:
        """Whether a name among `allowed` is the section, the key with or without it, or what the key begins with."""
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


def folded(
    changes: Sequence[Change],
    before: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
    allowed: Sequence[str],
) -> list[tuple[Change, str]]:
    """Differences as they are listed, each with a remark: of a node that is wholly new, or wholly gone, only one.

    Args:
        changes: in the order of their keys.
        before: the frozen values, by section and dotted key.
        now: those of this start.
        allowed: see `Change.accepted`.

    Returns:
        A remark is empty where a change could be accepted, and is not.
    """

    def place(change: Change) -> tuple[str, str, bool]:
        side = before if change.before is None else now if change.after is None else None
        key = change.key if side is None or change.section not in TREES else _new_in(side[change.section], change.key)
        return key, _remark(change, allowed), change.before is None

    found = []
    for (key, remark, is_new), group in groupby(changes, place):
        first, *others = group
        if others:
            settings = f"{1 + len(others)} settings"
            first = Change(first.section, key, None if is_new else settings, settings if is_new else None)
        found.append((first, remark))
    return found


def _new_in(values: Mapping[str, Any], key: str) -> str:
    """The outermost node with this key below it, or the key, of which there is nothing among other values."""
    known = [other for other, value in values.items() if value is not None]
    nodes = [key[:end] for end, char in enumerate(key) if char == "."]
    return next((node for node in nodes if not any(other.startswith(f"{node}.") for other in known)), key)


def _remark(change: Change, allowed: Sequence[str]) -> str:
    if change.impossible:
        return f"  (cannot be accepted: {change.impossible})"
    return "  (accepted)" if change.accepted(allowed) else ""


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else str(value)
