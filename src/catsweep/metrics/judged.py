"""What an independent network said of a run: `judge.json`, read and compared with the scores that chose it.

`catsweep.judging` writes the file, into the folder of a run or a bundle; reports, leaderboards and pages read it here.
Nothing heavy here: they must not wait for torch. The file holds::

    scores      judge/fid, judge/kid, judge/recall, judge/coverage, and judge/nearest, judge/copied where photos were
                held out
    cards       how each was measured, as in metrics.json
    reference   the same scores, and val/*, of photos in the place of drawn images: what a perfect generator would get
    recorded    the val/* scores of the run when it was judged; others now: the judgement is of another model
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from catsweep.atomic import write_json
from catsweep.errors import DataError, MetricError
from catsweep.metrics.card import MetricCard
from catsweep.records import ANY, NUMBER, TEXT, WHOLE, is_score, misshapen
from catsweep.runs import JUDGEMENT, RunDir

FILE = str(JUDGEMENT)
PREFIX = "judge/"
NAMES = tuple(f"{PREFIX}{name}" for name in ("fid", "kid", "recall", "coverage", "nearest", "copied"))
CARDS: dict[str, Any] = {  # also those of metrics.json
    ANY: {field.name: TEXT if field.type is str else WHOLE if field.type is int else {} for field in fields(MetricCard)}
}
SHAPE: dict[str, Any] = {
    "scores": {ANY: NUMBER},
    "cards": CARDS,
    "reference": {ANY: NUMBER},
    "recorded": {ANY: NUMBER},
}
FEWEST = 3  # runs that have an order worth comparing


@dataclass(frozen=True)
class Judged:
    """The judgement of one run.

    Attributes:
        scores: by name, `judge/fid` and so on.
        cards: how each was measured.
        reference: what photos score in the place of drawn images, by name, `judge/fid` and also `val/fid`.
        recorded: the run's own scores when it was judged, `val/fid` and so on.
    """

    scores: Mapping[str, float]
    cards: Mapping[str, MetricCard]
    reference: Mapping[str, float]
    recorded: Mapping[str, float]

    def write(self, folder: Path) -> None:
        """Write `judge.json` into a folder, as a whole."""
        write_json(folder / FILE, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The content of `judge.json`."""
        return {
            "scores": dict(self.scores),
            "cards": {name: card.to_dict() for name, card in self.cards.items()},
            "reference": dict(self.reference),
            "recorded": dict(self.recorded),
        }

    @property
    def judge(self) -> str:
        """Name of the network, for example `dinov2_vits14`."""
        return next(iter(self.cards.values())).extractor


def read_judged(folder: Path) -> Judged | None:
    """The judgement in the folder of a run or a bundle.

    Args:
        folder: may be a stranger's.

    Returns:
        None if there is none, if it is damaged, or if the folder's `metrics.json` has other scores now, as of a run
        that was gone on with: then it may be judged again.
    """
    try:
        found, scores = RunDir(folder).judgement(), RunDir(folder).metrics().content["scores"]
        if misshapen(found, SHAPE) or found["recorded"] != scores:
            return None
        cards = {name: MetricCard.from_dict(found["cards"][name]) for name in found["scores"]}
        parts = [found[key] for key in ("scores", "reference", "recorded")]
        # NaN is no score either.
        if not cards or not all(is_score(value) for part in parts for value in part.values()):
            return None
        if not all(map(_is_plain, cards.values())):
            return None
    except (DataError, MetricError, KeyError, TypeError, AttributeError):
        return None
    scores, reference, recorded = ({name: float(value) for name, value in part.items()} for part in parts)
    return Judged(scores, cards, reference, recorded)


@dataclass(frozen=True)
class Agreement:
    """Whether the judge puts runs into the order that their own scores do.

    Attributes:
        tau: Kendall's tau-b: 1 for the same order, 0 for none, -1 for the reverse.
        runs: how many were compared.
        p: probability of an order as alike, or as unlike, by chance.
        score: the run's own score, for example `val/fid`.
        judge: that of the judge.
    """

    tau: float
    runs: int
    p: float
    score: str
    judge: str

    def sentence(self) -> str:
        """As a report has it."""
        return (
            f"Over {self.runs} judged runs, {self.judge} and {self.score} order them alike to Kendall's tau "
            f"{self.tau:.2f} (1: the same order, 0: none; by chance p {self.p:.2g})."
        )


def rank_agreement(runs: Iterable[Judged], score: str = "val/fid", judge: str = "judge/fid") -> Agreement | None:
    """Compare the order of runs by a score of their own with that by the judge (Kendall 1945, tau-b).

    Args:
        runs: judged ones of a study; those that lack a score, or were judged otherwise than the first, are left out.
        score: taken in the extractor's features.
        judge: taken in the judge's.

    Returns:
        None of fewer than 3 runs, or if all are equal in one of the two.
    """
    from scipy.stats import kendalltau

    having = [run for run in runs if score in run.recorded and judge in run.scores]
    alike = [run for run in having if run.cards[judge].measure() == having[0].cards[judge].measure()]
    own, other = [run.recorded[score] for run in alike], [run.scores[judge] for run in alike]
    if len(alike) < FEWEST or len(set(own)) == 1 or len(set(other)) == 1:
        return None
    found = kendalltau(own, other)
    return Agreement(float(found.statistic), len(alike), float(found.pvalue), score, judge)


def _is_plain(card: MetricCard) -> bool:
    """Whether nothing is missing in a card and its settings are plain values: it is copied, compared and printed."""
    values = [getattr(card, entry.name) for entry in fields(card)]
    inner = [*card.settings.values(), *card.versions.values()]
    return None not in values and not any(isinstance(value, dict | list) for value in inner)
