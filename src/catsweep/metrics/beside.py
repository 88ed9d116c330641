"""What is known of a run beside its objectives: its recall and coverage, and what the judge says of it.

Whoever shows a winner, a Pareto set, a confirmed trial or a bundle reads it here, so that both kinds of scores stand
side by side wherever one of them is shown. Run folders may be a stranger's: known names, finite numbers, no errors.
Nothing heavy here.
"""

import functools
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TypeVar

from catsweep.errors import DataError
from catsweep.metrics.judged import FILE, NAMES, Judged, read_judged
from catsweep.records import ANY, NUMBER, is_score, misshapen, read_json
from steady.links import inside
from steady.printing import readable_name

if TYPE_CHECKING:
    from rich.table import Table

    from steady.confirm.confirmation import Confirmation

COMMAND = "make judge, and the line of the sweep again"
TITLE = "Beside the objectives"  # of a table on the terminal
METRICS = "metrics.json"
FID, JUDGED = "val/fid", "judge/fid"  # the same distance, in features of the extractor and of the judge
BESIDE = ("val/recall", "val/coverage", JUDGED, "judge/recall", "judge/coverage")  # columns, in their order
ARROWS = {"fid": "↓", "kid": "↓", "recall": "↑", "coverage": "↑"}
LETTERS = 60  # of a judge's name
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Scores:
    """The scores of a run.

    Attributes:
        own: those of `metrics.json`, finite.
        judged: what the judge says; None if it has said nothing.
    """

    own: Mapping[str, float] = field(default_factory=dict)
    judged: Judged | None = None

    @property
    def values(self) -> dict[str, float]:
        """All of them, by name: `val/fid`, `judge/recall`."""
        found = self.judged.scores if self.judged else {}
        return {**self.own, **{name: float(found[name]) for name in NAMES if name in found}}

    @property
    def beside(self) -> dict[str, float]:
        """Those that stand beside objectives, in the order of their columns."""
        values = self.values
        return {name: values[name] for name in BESIDE if name in values}

    def words(self) -> dict[str, str]:
        """FID and those that stand beside objectives, as they are shown."""
        values = self.values
        return {name: f"{values[name]:.4g}" for name in (FID, *BESIDE) if name in values}

    @property
    def judge(self) -> str:
        """The judge's name; empty without one."""
        return readable_name(self.judged.judge)[:LETTERS] if self.judged else ""


def of_run(run: Path | None, within: Path | None = None) -> Scores:
    """The scores of a run.

    Args:
        run: its folder, or a bundle; None has none.
        within: the folder that its files may not lead out of by a link; that of the run if None.

    Returns:
        What there is: a file that is missing, damaged or elsewhere has none.
    """
    if run is None:
        return Scores()
    files = [inside(within or run, run / name) for name in (METRICS, FILE)]
    return Scores(_own(run / METRICS) if files[0] else {}, read_judged(run) if all(files) else None)


def comparable(runs: Mapping[K, Scores]) -> dict[K, Scores]:
    """The same runs, each with the judge's scores only if most of the judged ones were measured as it was.

    Args:
        runs: by any name.
    """
    measured = {name: how for name, one in runs.items() if (how := _measured(one)) is not None}
    usual = Counter(measured.values()).most_common(1)[0][0] if measured else None
    return {
        name: one if measured.get(name) in (None, usual) else replace(one, judged=None) for name, one in runs.items()
    }


def better(name: str) -> str:
    """Where a score is better, as an arrow; empty for what is best in the middle."""
    return ARROWS.get(name.rpartition("/")[2], "")


def table(title: str, rows: Mapping[str, Mapping[str, str]]) -> "Table | None":
    """A narrow table for a terminal: those of the objectives have no room for more columns.

    Args:
        title: of the table.
        rows: by trial, what is to be said of each score, by name; those without any are left out.

    Returns:
        None if there is nothing to be said.
    """
    from rich.table import Table
    from rich.text import Text

    kept = {trial: cells for trial, cells in rows.items() if any(cells.values())}
    columns = [name for name in (FID, *BESIDE) if any(cells.get(name) for cells in kept.values())]
    if not kept or columns == [FID]:
        return None
    made = Table(title=Text(title), title_justify="left")
    made.add_column("trial", justify="right")
    for name in columns:
        made.add_column(Text(f"{name.replace('/', chr(10))} {better(name)}"), justify="right")
    for trial, cells in kept.items():
        made.add_row(Text(trial), *(Text(cells.get(name, "")) for name in columns))
    return made


def of_confirmation(found: "Confirmation", again: Mapping[int, Mapping[int, Scores]]) -> dict[str, dict[int, str]]:
    """Average what runs that confirm a winner have beside the objectives.

    Args:
        found: which trials and seeds were compared.
        again: scores by trial and seed.

    Returns:
        `41.2 ± 0.8` by score and trial; only scores that any has.
    """
    told: dict[str, dict[int, str]] = {}
    for name in (name for name in BESIDE if name not in found.objectives):
        for one in found.candidates:
            runs = again.get(one.trial, {})
            values = [runs[seed].values[name] for seed in one.values if name in runs.get(seed, Scores()).values]
            if values:
                spread = f" ± {stdev(values):.3g}" if len(values) > 1 else ""
                told.setdefault(name, {})[one.trial] = f"{fmean(values):.4g}{spread}"
    return told


def confirmation_table(found: "Confirmation", told: Mapping[str, Mapping[int, str]]) -> "Table | None":
    """Make a table for a terminal of what `of_confirmation` returns; None of nothing."""
    rows = {
        str(one.trial): {name: words.get(one.trial, "") for name, words in told.items()} for one in found.candidates
    }
    return table(f"{TITLE}, under other seeds", rows)


class Beside:
    """The scores beside the objectives as a sweep shows them, see `steady.study.results.ExtraScores`."""

    names = BESIDE

    def read(self, runs: Mapping[int, Path], within: Path) -> dict[int, dict[str, float]]:
        """Read the scores of runs by number."""
        return {number: scores.beside for number, scores in self._scores(runs, within).items()}

    def table(self, runs: Mapping[int, Path], within: Path, best: Collection[int]) -> "Table | None":
        """Make a table of the best runs, and of all that were judged."""
        known = self._scores(runs, within)
        rows = {
            f"{'*' if number in best else ' '}{number}": scores.words()
            for number, scores in known.items()
            if number in best or scores.judged
        }
        return table(TITLE, rows)

    def confirmed(self, found: "Confirmation", runs: Mapping[int, Mapping[int, Path]], within: Path) -> "Table | None":
        """Make a table of the runs that confirm a winner."""
        again = {trial: {seed: of_run(run, within) for seed, run in own.items()} for trial, own in runs.items()}
        return confirmation_table(found, of_confirmation(found, again))

    def _scores(self, runs: Mapping[int, Path], within: Path) -> dict[int, Scores]:
        found = {}
        for number, run in runs.items():
            stamps = tuple(_stamp(run / name) for name in (METRICS, FILE))
            found[number] = _read(run, within, stamps) if any(stamps) else Scores()
        return comparable(found)


EXTRA = Beside()


@functools.lru_cache(maxsize=4096)
def _read(run: Path, within: Path, stamps: tuple[object, ...]) -> Scores:
    """What a run folder says; read once, for the leaderboard is written after each trial."""
    return of_run(run, within)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def _own(path: Path) -> dict[str, float]:
    try:
        found = {"scores": read_json(path).get("scores")}
    except DataError:
        return {}
    scores = found["scores"] or {}
    if misshapen(found, {"scores": {ANY: NUMBER}}):
        return {}
    return {name: float(value) for name, value in scores.items() if value is not None and is_score(value)}


def _measured(one: Scores) -> tuple[Any, ...] | None:
    if one.judged is None or JUDGED not in one.judged.cards:
        return None
    return tuple(map(str, one.judged.cards[JUDGED].measure().values()))
