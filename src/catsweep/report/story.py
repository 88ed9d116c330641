"""All that a report tells of a study, before it has a form: `Story`, and how it is put together.

Between the modules that work things out and those that write: report.html and report.md are made of the same story.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catsweep.data.ready import find_ready_set
from catsweep.metrics.judge import FID, JUDGED
from catsweep.printing import readable
from catsweep.report import pictures
from catsweep.report.grids import Images
from catsweep.report.importance import Importance, importances
from catsweep.report.optuna_plots import Drawing, drawings
from catsweep.report.record import Record, read
from catsweep.report.reproduce import Reproduction, reproduction
from catsweep.report.second_opinion import SecondOpinion, second_opinion
from catsweep.report.timeline import Timeline, timeline
from catsweep.report.winner import Winner, pick
from catsweep.report.words import counted
from catsweep.studies import open_study

SHOWN = 36  # of the winner's samples, and of the real cats beside them


@dataclass(frozen=True)
class Story:
    """A study, told.

    Attributes:
        record: the study.
        winner: and why.
        importances: one for each objective.
        timeline: None if no time is known.
        reproduction: the lines that do it again.
        samples: the winner's, uint8 (N, side, side, 3); N may be 0.
        real: as many real cats of the same size; N may be 0.
        reconstructions: held-out photos above what the winner makes of them, uint8 (H, W, 3); None if there are none.
        photos: what is known of the photos, in words.
        drawings: Optuna's own plots; may be none.
        second: what the judge says; None if no trial has finished.
    """

    record: Record
    winner: Winner
    importances: Sequence[Importance]
    timeline: Timeline | None
    reproduction: Reproduction
    samples: Images
    real: Images
    reconstructions: Images | None
    photos: str
    drawings: tuple[Drawing, ...] = ()
    second: SecondOpinion | None = None

    @property
    def names(self) -> list[str]:
        """The parameters, those first that matter most for the first objective."""
        return by_importance(self.record, self.importances)

    @property
    def reason(self) -> str:
        """Why the winner is it; empty without one."""
        return self._labelled(self.winner.choice.reason if self.winner.choice else "")

    @property
    def doubt(self) -> str:
        """How much the winner varies from seed to seed, or how to find out; empty if `reason` has said it."""
        return self._labelled(self.winner.seeds.sentence() if self.winner.seeds else "")

    @property
    def judged(self) -> str:
        """Whether the judge agrees, or how to ask it; empty if no trial has finished."""
        return self._labelled(self.second.sentence if self.second else "")

    def _labelled(self, said: str) -> str:
        """A sentence in which every score has its extractor."""
        names = [*(objective.name for objective in self.record.objectives), FID, JUDGED]
        labels = {name: self.record.label(name) for name in names}
        return readable(re.sub(r"[^\s,;:]+", lambda word: labels.get(word[0], word[0]), said))

    def unfinished(self) -> str:
        """What is still to come, in a sentence; empty if nothing is."""
        record = self.record
        n, total = len(record.trials), max(record.total or 0, len(record.trials))
        open_ones = len(record.named("running")) + len(record.named("waiting"))
        if open_ones or n < total:
            under_way = f", and {open_ones} {'is' if open_ones == 1 else 'are'} under way" if open_ones else ""
            return f"Of {counted(total, 'trial')}, {n - open_ones} have ended{under_way}."
        if any(run.role in ("running", "waiting") for run in record.confirmations):
            return "The search is, and its best are being trained again under other seeds."
        return ""


def by_importance(record: Record, found: Sequence[Importance]) -> list[str]:
    """The parameters of a study, those first that matter most for its first objective."""
    shares, known = found[0].shares if found else {}, list(record.distributions)
    return sorted(known, key=lambda name: (-shares.get(name, 0.0), known.index(name)))


def tell(folder: Path, runs: Path, ready: Path, select: str | int | None = None, plotly: bool = True) -> Story:
    """Work out what there is to tell of a study.

    Args:
        folder: the study's, `sweeps/<study>`.
        runs: folder of its run folders; need not be there.
        ready: folder of ready sets; need not be there.
        select: how the winner is chosen, see `catsweep.selection.choose`.
        plotly: whether Optuna's own plots are wanted, too.
    """
    study = open_study(folder)
    winner = pick(select, folder, runs)
    record = read(study, runs, winner.trials.objectives if winner.trials else None)
    best = next((trial for trial in record.trials if trial.number == winner.number), None)
    run = best.run if best else None
    epoch = pictures.scored_epoch(run)
    facts = record.contract.get("facts") or {}
    digest = facts.get("data")
    found = find_ready_set(None if digest is None else str(digest), [ready])
    found_important = importances(study)
    names = by_importance(record, found_important)
    samples = pictures.read_cells(pictures.latest(run, "samples", epoch))[:SHOWN]
    confirmed = [one.trial for one in winner.confirmed.candidates] if winner.confirmed else []
    return Story(
        record=record,
        winner=winner,
        importances=found_important,
        timeline=timeline(record),
        reproduction=reproduction(record, best),
        samples=samples,
        real=pictures.real_cats(found, len(samples) or SHOWN),
        reconstructions=pictures.read_page(pictures.latest(run, "reconstructions", epoch)),
        photos=_photos(record, len(found.originals()) if found else None, str(digest or "")),
        drawings=drawings(study, names, record.labels[0]) if plotly else (),
        second=None if best is None else second_opinion(record, best.number, winner.front, confirmed),
    )


def _photos(record: Record, originals: int | None, digest: str) -> str:
    sizes = [int(size) for card in record.cards.values() if (size := card.get("reference_size"))]
    n = originals if originals is not None else max(sizes, default=None)
    named = f"digest {digest[:16]}…" if digest else ""
    return ", ".join(part for part in (counted(n, "photo") if n is not None else "", named) if part)
