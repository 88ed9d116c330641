"""The lines that do it again: the sweep, and the winner alone.

From what run folders keep of their command, or else from what the study itself was begun with.
"""

import shlex
from dataclasses import dataclass
from typing import Any

from catsweep.report.record import Entry, Record
from catsweep.report.words import shown
from steady import grammar
from steady.printing import readable
from steady.study.meta import SCRIPT, is_plain

SWEPT = ("study", "trials")  # belong to a sweep, not to a run of its own


@dataclass(frozen=True)
class Reproduction:
    """How to get the same again.

    Attributes:
        sweep: the command of the sweep; empty if nothing is known of it.
        exact: whether it is the line that was typed; else it was put together from what the study keeps.
        winner: the command that trains the winner alone; empty without one.
        commit: of the code; empty if unknown.
    """

    sweep: str
    exact: bool
    winner: str
    commit: str


def reproduction(record: Record, winner: Entry | None) -> Reproduction:
    """Find the lines.

    Args:
        record: of the study.
        winner: its best trial, if there is one.
    """
    fixed = dict(record.contract.get("fixed") or {})
    exact = is_plain(record.command)
    if record.command and exact:
        sweep = shlex.join(["python", *map(readable, record.command)])
    elif fixed and is_plain([SCRIPT, *_overrides(fixed)]):
        asked = {"trials": record.total} if record.total is not None and "trials" not in fixed else {}
        sweep = shlex.join(["python", "src/train.py", "-m", *_overrides({**fixed, **asked})])
    else:
        sweep = ""
    alone = ""
    if winner is not None and fixed and is_plain([SCRIPT, *_overrides(fixed)]):
        kept = {key: value for key, value in fixed.items() if key not in SWEPT}
        # The search's option also says what a run returns and how often it is looked at, so it stays.
        drawn = grammar.as_overrides(winner.params, record.contract.get("space") or {}, record.exact)
        alone = shlex.join(["python", "src/train.py", *_overrides({**kept, **drawn})])
    return Reproduction(sweep, exact, alone, readable(record.commit or ""))


def _overrides(values: dict[str, Any]) -> list[str]:
    """As `steady.propose.space.Space.overrides`: values are kept as they were typed, in Hydra's grammar."""
    deleted = [key for key, value in values.items() if value == "deleted" and key.startswith("~")]
    return [*(f"{key}={_value(value)}" for key, value in values.items() if key not in deleted), *deleted]


def _value(value: Any) -> str:
    return shown(value) if value is None or isinstance(value, bool) else readable(str(value))
