"""When which slot did what: rows of bars in per cent of the time axis, with long pauses of the whole sweep cut short.

Pure arithmetic over the attempts of `catsweep.report.record`; the page draws it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from catsweep.report.record import Attempt, Entry, Record
from catsweep.report.words import counted, duration

LEAST_PAUSE, SHARE_PAUSE = 120.0, 0.05  # seconds, and share of the working time: shorter ones are drawn to scale
MOST_PAUSES = 12  # the longest; there is room for no more
OVERLAP = 2.0  # seconds by which two stays in one slot may overlap: the next begins before the last is settled
CUT = 2.5  # per cent of the axis that a pause is drawn as
MARKS = 6  # on the axis, about


@dataclass(frozen=True)
class Bar:
    """A stay in a slot.

    Attributes:
        left: where it begins, per cent.
        width: per cent.
        role: as in `Entry`, or `confirmation`.
        trial: its number; of a confirmation run, the trial that it repeats.
        text: what it says when one points at it.
        start: Unix time.
        end: Unix time.
    """

    left: float
    width: float
    role: str
    trial: int
    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Lane:
    """One slot.

    Attributes:
        name: of the slot.
        bars: from left to right, never overlapping.
        busy: share of the working time, 0 to 1.
    """

    name: str
    bars: tuple[Bar, ...]
    busy: float


@dataclass(frozen=True)
class Timeline:
    """All slots.

    Attributes:
        lanes: one row a slot.
        pauses: left and width in per cent, and what it says, of times when nothing ran for long.
        marks: places in per cent and the time since the start.
        start: Unix time of the first bar.
        end: of the last.
        paused: seconds in pauses.
        busy: seconds of all slots together.
    """

    lanes: tuple[Lane, ...]
    pauses: tuple[tuple[float, float, str], ...]
    marks: tuple[tuple[float, str], ...]
    start: float
    end: float
    paused: float
    busy: float

    @property
    def worked(self) -> float:
        """Seconds from the first start to the last end, without pauses."""
        return self.end - self.start - self.paused

    @property
    def share(self) -> float:
        """How much of the working time the slots were busy, 0 to 1."""
        room = self.worked * len(self.lanes)
        return self.busy / room if room else 0.0


def timeline(record: Record) -> Timeline | None:
    """The timeline of a study; None if nothing is known of any trial's time."""
    stays = [(attempt, entry) for entry in (*record.trials, *record.confirmations) for attempt in entry.attempts]
    if not stays:
        return None
    stays.sort(key=lambda stay: (stay[0].start, stay[0].end, stay[1].number))
    now = max(attempt.end for attempt, _ in stays)
    stays = [(replace(attempt, end=now) if attempt.open else attempt, entry) for attempt, entry in stays]
    pauses = _pauses([attempt for attempt, _ in stays])
    scale = Scale(stays[0][0].start, now, pauses)
    rows = _rows(stays)
    lanes = tuple(
        Lane(
            name,
            tuple(_bar(attempt, entry, scale) for attempt, entry in row),
            sum(attempt.end - attempt.start for attempt, _ in row) / (scale.worked or 1.0),
        )
        for name, row in rows
    )
    cuts = tuple((scale(a), scale(b) - scale(a), f"nothing ran for {duration(b - a)}") for a, b in pauses)
    busy = sum(attempt.end - attempt.start for attempt, _ in stays)
    return Timeline(lanes, cuts, scale.marks(), scale.start, scale.end, sum(b - a for a, b in pauses), busy)


@dataclass(frozen=True)
class Scale:
    """From time to per cent of the axis.

    Args:
        start: Unix time of its left end.
        end: of its right end.
        pauses: from when to when nothing ran; each is drawn as `CUT`.
    """

    start: float
    end: float
    pauses: Sequence[tuple[float, float]]

    @property
    def worked(self) -> float:
        """Seconds without the pauses."""
        return self.end - self.start - sum(b - a for a, b in self.pauses)

    def __call__(self, time: float) -> float:
        """Where a time is, 0 to 100."""
        room = 100 - CUT * len(self.pauses)
        paused = sum(min(max(time - a, 0.0), b - a) for a, b in self.pauses)
        cut = sum(CUT * min(max(time - a, 0.0), b - a) / (b - a) for a, b in self.pauses)
        return round(cut + room * (time - self.start - paused) / (self.worked or 1.0), 3)

    def marks(self) -> tuple[tuple[float, str], ...]:
        """Round durations of work since the start."""
        steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800)
        step = next((s for s in steps if self.worked / s <= MARKS), self.worked / MARKS)
        found, worked = [], 0.0
        while worked <= self.worked:
            found.append((self(self._after(worked)), duration(worked) if worked else "0"))
            worked += step
        return tuple(found)

    def _after(self, worked: float) -> float:
        """The time at which so many seconds of work were done."""
        time = self.start + worked
        for a, b in self.pauses:
            time += b - a if time > a else 0.0
        return time


def _pauses(attempts: Sequence[Attempt]) -> list[tuple[float, float]]:
    """When no slot did anything for long; attempts come by their start."""
    gaps, until, worked = [], attempts[0].end, attempts[0].end - attempts[0].start
    for attempt in attempts[1:]:
        if attempt.start > until:
            gaps.append((until, attempt.start))
        worked += max(0.0, attempt.end - max(until, attempt.start))
        until = max(until, attempt.end)
    long = [(a, b) for a, b in gaps if b - a > max(LEAST_PAUSE, SHARE_PAUSE * worked)]
    return sorted(sorted(long, key=lambda gap: gap[0] - gap[1])[:MOST_PAUSES])


def _rows(stays: Sequence[tuple[Attempt, Entry]]) -> list[tuple[str, list[tuple[Attempt, Entry]]]]:
    """Slots by number; of two controllers, which both have a slot 0, a row each. Then what has no slot."""
    rows: dict[tuple[int, int], list[tuple[Attempt, Entry]]] = {}
    known = [stay for stay in stays if stay[0].slot is not None]
    for stay in known:
        slot, copy = int(stay[0].slot or 0), 0
        while not _free(rows.get((slot, copy), []), stay[0]):
            copy += 1
        rows.setdefault((slot, copy), []).append(stay)
    for stay in (stay for stay in stays if stay[0].slot is None):
        free = next((key for key in sorted(rows) if _free(rows[key], stay[0])), None)
        if free is None:
            free = (max((slot for slot, _ in rows), default=-1) + 1, 0)
        rows.setdefault(free, []).append(stay)
    return [
        (f"slot {slot}{f' ({copy + 1})' if copy else ''}", sorted(row, key=lambda stay: stay[0].start))
        for (slot, copy), row in sorted(rows.items())
    ]


def _free(row: Sequence[tuple[Attempt, Entry]], attempt: Attempt) -> bool:
    return all(attempt.start >= other.end - OVERLAP or attempt.end <= other.start + OVERLAP for other, _ in row)


def _bar(attempt: Attempt, entry: Entry, scale: Scale) -> Bar:
    left = scale(attempt.start)
    took = duration(attempt.end - attempt.start)
    if entry.confirms is None:
        trial, role = entry.number, entry.role
        last = attempt == entry.attempts[-1] or attempt.open
        text = f"trial {trial}, {entry.state if last else 'interrupted'}, {took}"
        role = role if last else "waiting"
    else:
        trial, role = entry.confirms, "failed" if entry.role == "failed" else "confirmation"
        text = f"trial {trial} again, under seed {entry.seed}: {entry.state}, {took}"
    if entry.confirms is None and len(entry.attempts) > 1:
        text += f" ({counted(len(entry.attempts), 'attempt')} in all)"
    return Bar(left, round(scale(attempt.end) - left, 3), role, trial, text, attempt.start, attempt.end)
