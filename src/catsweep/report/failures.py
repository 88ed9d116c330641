"""Failed trials, sorted: those that ended in the same way are told of once, with one traceback."""

from dataclasses import dataclass

from catsweep.report.record import Entry, Record


@dataclass(frozen=True)
class Failure:
    """Trials that ended in the same way.

    Attributes:
        kind: in a word.
        message: the first line of what was said.
        trials: their numbers.
        traceback: of the first that has one.
    """

    kind: str
    message: str
    trials: tuple[str, ...]
    traceback: str


def failures(record: Record) -> list[Failure]:
    """By kind and first line of the message, the most frequent first; confirmation runs among them."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in (*record.trials, *record.confirmations):
        if entry.role == "failed":
            found.setdefault((entry.state, first_line(entry.message) or "no message"), []).append(entry)
    return [
        Failure(
            kind,
            message,
            tuple(str(e.number) if e.confirms is None else f"{e.confirms} under seed {e.seed}" for e in failed),
            next((e.traceback for e in failed if e.traceback), ""),
        )
        for (kind, message), failed in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def first_line(text: str) -> str:
    """Of a text that may have several, or none."""
    return next(iter(text.splitlines()), "")
