"""What is said of a run beside its objectives: its recall and coverage, and what the judge makes of it.

The judge is a network that nothing was trained on or chosen by; it comes after the training, for a few runs only, and
leaves `judge.json` in a run's folder. Whoever shows a winner, a Pareto set, a confirmed trial or a bundle reads it
here, so that both scores stand side by side. The folder may be a stranger's: known names, finite numbers, no errors.
Nothing heavy here.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from catsweep.errors import DataError
from catsweep.names import inside
from catsweep.printing import readable_name
from catsweep.records import ANY, NUMBER, TEXT, WHOLE, misshapen, read_json

FILE, METRICS = "judge.json", "metrics.json"
COMMAND = "make judge"
FID, JUDGED = "val/fid", "judge/fid"  # the same distance, in features of the extractor and of the judge
DIVERSITY = ("val/recall", "val/coverage")
BESIDE = (*DIVERSITY, JUDGED, "judge/recall", "judge/coverage")  # columns, in their order
OPINION = (JUDGED, "judge/kid", "judge/recall", "judge/coverage", "judge/nearest", "judge/copied")
SHAPE: dict[str, Any] = {
    "scores": {ANY: NUMBER},
    "cards": {
        ANY: {
            "extractor": TEXT, "weights_sha256": TEXT, "resize": TEXT, "dtype": TEXT, "reference_digest": TEXT,
            "reference_size": WHOLE, "samples": WHOLE, "seed": WHOLE, "settings": {}, "versions": {},
        }
    },
    "reference": {ANY: NUMBER},
}  # fmt: skip
_SCORE = re.compile(r"(?:val|judge)/[a-z][a-z0-9_]{0,30}", re.ASCII)
_AS_ONE = ("extractor", "weights_sha256", "resize", "dtype", "reference_digest", "reference_size", "samples")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Scores:
    """All scores of a run.

    Attributes:
        values: finite, by name: `val/fid`, `judge/recall`.
        cards: how each was measured, plain values; texts of whoever made the folder.
        reals: what real photos get that no generator has drawn, by the name of the judge's score: a lower bound.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reals: Mapping[str, float] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether the judge has looked at the run."""
        return JUDGED in self.values

    @property
    def judge(self) -> str:
        """The judge's name."""
        return readable_name(str(self.cards.get(JUDGED, {}).get("extractor") or "unknown"))[:60]

    def unjudged(self) -> "Scores":
        """Without what the judge says."""
        return Scores({name: value for name, value in self.values.items() if not name.startswith("judge/")}, self.cards)

    @property
    def beside(self) -> dict[str, float]:
        """Those that stand beside objectives, in the order of their columns."""
        return {name: self.values[name] for name in BESIDE if name in self.values}


def of_run(run: Path | None, also: Path | None = None) -> Scores:
    """The scores of a run.

    Args:
        run: its folder, or a bundle; None has none.
        also: the folder that no file of the run may lead out of by a link; that of the run if None.

    Returns:
        What there is; a file that is missing, damaged or elsewhere has none.
    """
    if run is None:
        return Scores()
    found = [_document(run / name, also or run) for name in (METRICS, FILE)]
    values, cards = {}, {}
    for document, kind in zip(found, ("val/", "judge/"), strict=True):  # the judge's own file says nothing of others'
        values.update({k: v for k, v in _finite(document.get("scores")).items() if k.startswith(kind)})
        cards.update({k: dict(v) for k, v in (document.get("cards") or {}).items() if k in values and v})
    return Scores(values, cards, _finite(found[1].get("reference")))


def better(name: str) -> str:
    """Where one of these scores is better, as an arrow; a blank where it is in the middle."""
    last = name.rpartition("/")[2]
    return "↓" if last in ("fid", "kid") else "↑" if last in ("recall", "coverage") else ""


def damage(run: Path) -> str:
    """Why what the judge left in a run's folder is not to be read, in a sentence; empty if it can be, or is not there.

    Args:
        run: its folder.
    """
    if not (run / FILE).exists():
        return ""
    if not inside(run, run / FILE):
        return f"{FILE} in {run} is a link to a file outside."
    try:
        fault = misshapen(read_json(run / FILE), SHAPE)
    except DataError as error:
        return str(error)
    return f"{run / FILE} is not as catsweep writes it: {fault}." if fault else ""


def comparable(runs: Mapping[K, Scores]) -> dict[K, Scores]:
    """The same runs, each with a judge's scores only if most of the judged ones were measured as it was.

    Args:
        runs: by any name.
    """
    measured = Counter(_measured(one) for one in runs.values() if one.judged)
    usual = measured.most_common(1)[0][0] if measured else None
    return {name: one if not one.judged or _measured(one) == usual else one.unjudged() for name, one in runs.items()}


def _measured(one: Scores) -> tuple[str, ...]:
    card = one.cards.get(JUDGED, {})
    return tuple(str(card.get(key)) for key in _AS_ONE)


def _document(path: Path, within: Path) -> dict[str, Any]:
    try:
        found = read_json(path) if inside(within, path) else {}
    except DataError:
        return {}
    # Not the whole of it: of `metrics.json` only these two are read here.
    found = {key: found.get(key) for key in SHAPE}
    return {} if misshapen(found, SHAPE) else found


def _finite(scores: Mapping[str, Any] | None) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in (scores or {}).items()
        if value is not None and _SCORE.fullmatch(name) and math.isfinite(value)
    }
