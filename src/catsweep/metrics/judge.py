"""The judge: scores in features of another network, and what is known of a run beside its objectives.

Whoever trains through a network flatters its relatives: the loss and the discriminator look through EfficientNet-Lite1,
and the scores that choose trials are taken in Lite0. `conf/metrics/judge/` names another network, in whose features
`catsweep.judging` scores the few models that count. It writes `judge.json` into the folder of a run or a bundle:

    scores      judge/fid, judge/kid and so on, those in features
    cards       how each was measured, as in metrics.json
    reference   the same scores, and val/*, of photos in the place of drawn images: what a perfect generator would get
    recorded    the val/* scores of the run when it was judged; others now: the judgement is of another model

Reports, leaderboards and pages read it here, without waiting for torch. Run folders may be a stranger's: known names,
finite numbers, no errors.
"""

import functools
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from catsweep.errors import DataError, MetricError
from catsweep.metrics import scores
from catsweep.metrics.scores import SCORES, MetricCard, score
from catsweep.records import ANY, NUMBER, TEXT, WHOLE, is_score, misshapen, read_json
from steady.atomic import write_json
from steady.printing import readable_name
from steady.safe_paths import inside

if TYPE_CHECKING:
    from rich.table import Table

    from catsweep.metrics.extractors import Extractor
    from catsweep.metrics.scorer import Scorer
    from catsweep.models.generator import Generator
    from steady.confirm.confirmation import Confirmation

FILE, METRICS = "judge.json", "metrics.json"
PREFIX = "judge/"
NAMES = tuple(f"{PREFIX}{name}" for name, one in SCORES.items() if one.in_features)
FID, JUDGED = scores.FID.key, f"{PREFIX}{scores.FID.name}"  # in features of the extractor and of the judge
TABULATED = [name for name, one in SCORES.items() if one.in_tables]
BESIDE = (  # columns beside the objectives, in their order
    *(SCORES[name].key for name in TABULATED),
    JUDGED,
    *(f"{PREFIX}{name}" for name in TABULATED if SCORES[name].in_features),
)
COMMAND = "make judge, and the line of the sweep again"
TITLE = "Beside the objectives"  # of a table on the terminal
LETTERS = 60  # of a judge's name
SAME = 1e-2  # relative difference of features below which two networks are one
FEWEST = 3  # runs that have an order worth comparing
CARDS: dict[str, Any] = {  # shape of the cards, also of those of metrics.json
    ANY: {field.name: TEXT if field.type is str else WHOLE if field.type is int else {} for field in fields(MetricCard)}
}
NUMBERS: dict[str, Any] = {ANY: NUMBER}
SHAPE = {"scores": NUMBERS, "cards": CARDS, "reference": NUMBERS, "recorded": NUMBERS}
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Judged:
    """The judgement of one run, as `judge.json` holds it; everything by the name of a score."""

    scores: Mapping[str, float]  # judge/fid and so on
    cards: Mapping[str, MetricCard]
    reference: Mapping[str, float]  # of photos in the place of drawn images, judge/fid and also val/fid
    recorded: Mapping[str, float]  # the run's own scores when it was judged, val/fid and so on

    def write(self, folder: Path) -> None:
        """Write `judge.json` into a folder, atomically."""
        write_json(folder / FILE, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Convert to the content of `judge.json`."""
        return asdict(self)

    @property
    def judge(self) -> str:
        """Name of the network, for example `dinov2_vits14`."""
        return next(iter(self.cards.values())).extractor


def read_judged(folder: Path) -> Judged | None:
    """Read the judgement in the folder of a run or a bundle, perhaps a stranger's.

    >>> read_judged(Path("no/such/folder"))

    Returns:
        None if there is none, if it is damaged, or if the folder's `metrics.json` has other scores now, as of a run
        that was gone on with: then it may be judged again.
    """
    try:
        found, metrics = read_json(folder / FILE), read_json(folder / METRICS)
        if misshapen(found, SHAPE) or found["recorded"] != metrics["scores"]:
            return None
        cards = {name: MetricCard.from_dict(found["cards"][name]) for name in found["scores"]}
        parts = [found[key] for key in ("scores", "reference", "recorded")]
        # NaN is no score either.
        numbers = all(is_score(value) for part in parts for value in part.values())
        if not cards or not numbers or not all(map(_is_plain, cards.values())):
            return None
    except (DataError, MetricError, KeyError, TypeError, AttributeError):
        return None
    judged, reference, recorded = ({name: float(value) for name, value in part.items()} for part in parts)
    return Judged(judged, cards, reference, recorded)


def _is_plain(card: MetricCard) -> bool:
    """Whether nothing is missing in a card and its settings are plain values: it is copied, compared and printed."""
    inner = [*card.settings.values(), *card.versions.values()]
    return None not in vars(card).values() and not any(isinstance(value, dict | list) for value in inner)


@dataclass(frozen=True)
class Agreement:
    """Whether two scores put runs into the same order, such as `val/fid` of a run and the judge's."""

    tau: float  # Kendall's tau-b: 1 for the same order, 0 for none, -1 for the reverse
    runs: int  # how many were compared
    p: float  # probability of an order as alike, or as unlike, by chance
    score: str
    judge: str

    def sentence(self) -> str:
        """Format as a sentence, for reports."""
        return (
            f"Over {self.runs} judged runs, {self.judge} and {self.score} order them alike to Kendall's tau "
            f"{self.tau:.2f} (1: the same order, 0: none; by chance p {self.p:.2g})."
        )


def rank_agreement(runs: Iterable[Judged], score: str = FID) -> Agreement | None:
    """Compare the order of judged runs by a score of their own with that by the judge's FID (Kendall 1945, tau-b).

    Runs that lack a score, or were judged otherwise than the first, are left out.

    >>> card = MetricCard("fid", "net", "ab", "none", "float32", "cd", 32, 24, 0)
    >>> judged = [Judged({"judge/fid": n}, {"judge/fid": card}, {}, {"val/fid": n**2}) for n in (3.0, 1.0, 2.0)]
    >>> rank_agreement(judged).tau
    1.0

    Returns:
        None of fewer than 3 runs, or if all are equal in one of the two.
    """
    from scipy.stats import kendalltau

    having = [run for run in runs if score in run.recorded and JUDGED in run.scores]
    alike = [run for run in having if run.cards[JUDGED].measure() == having[0].cards[JUDGED].measure()]
    own, other = [run.recorded[score] for run in alike], [run.scores[JUDGED] for run in alike]
    if len(alike) < FEWEST or len(set(own)) == 1 or len(set(other)) == 1:
        return None
    found = kendalltau(own, other)
    return Agreement(float(found.statistic), len(alike), float(found.pvalue), score, JUDGED)


@dataclass(frozen=True)
class RunScores:
    """The scores of one run."""

    own: Mapping[str, float] = field(default_factory=dict)  # of metrics.json, finite
    judged: Judged | None = None

    @property
    def values(self) -> dict[str, float]:
        """All scores by name: `val/fid`, `judge/recall`."""
        found = self.judged.scores if self.judged else {}
        return {**self.own, **{name: float(found[name]) for name in NAMES if name in found}}

    @property
    def beside(self) -> dict[str, float]:
        """The scores that stand beside objectives, in the order of their columns."""
        values = self.values
        return {name: values[name] for name in BESIDE if name in values}

    def words(self) -> dict[str, str]:
        """Format FID and the scores that stand beside objectives."""
        values = self.values
        return {name: f"{values[name]:.4g}" for name in (FID, *BESIDE) if name in values}

    @property
    def judge(self) -> str:
        """The judge's name; empty without one."""
        return readable_name(self.judged.judge)[:LETTERS] if self.judged else ""


def run_scores(run: Path | None, within: Path | None = None) -> RunScores:
    """Read the scores of a run or a bundle; a file that is missing, damaged or elsewhere has none.

    >>> run_scores(None)
    RunScores(own={}, judged=None)

    No link of its files may lead out of `within`, by default the folder itself.
    """
    if run is None:
        return RunScores()
    own, both = (inside(within or run, run / name) for name in (METRICS, FILE))
    return RunScores(_own(run / METRICS) if own else {}, read_judged(run) if own and both else None)


def _own(path: Path) -> dict[str, float]:
    try:
        found = read_json(path).get("scores") or {}
    except DataError:
        return {}
    if misshapen(found, NUMBERS):
        return {}
    return {name: float(value) for name, value in found.items() if value is not None and is_score(value)}


def comparable(runs: Mapping[K, RunScores]) -> dict[K, RunScores]:
    """Leave out the judge's scores of runs that were not measured as most of the judged ones were.

    >>> comparable({"run": RunScores({"val/fid": 40.0})})
    {'run': RunScores(own={'val/fid': 40.0}, judged=None)}
    """
    measured = {name: how for name, one in runs.items() if (how := _measured(one)) is not None}
    usual = Counter(measured.values()).most_common(1)[0][0] if measured else None
    return {
        name: one if measured.get(name) in (None, usual) else replace(one, judged=None) for name, one in runs.items()
    }


def _measured(one: RunScores) -> tuple[str, ...] | None:
    if one.judged is None or JUDGED not in one.judged.cards:
        return None
    return tuple(map(str, one.judged.cards[JUDGED].measure().values()))


@dataclass(frozen=True)
class StudyScores:
    """The scores of all runs of a study, and whether the judge agrees with the choice."""

    own: Mapping[int, RunScores]  # by trial, of the run of the search
    again: Mapping[int, Mapping[int, RunScores]]  # by trial and seed, of the runs that confirm

    @classmethod
    def of(cls, own: Mapping[int, RunScores], again: Mapping[int, Mapping[int, RunScores]]) -> "StudyScores":
        """Keep, of runs that may have been judged in different ways, only the most usual way."""
        runs: dict[tuple[int, int | None], RunScores] = {(trial, None): one for trial, one in own.items()}
        runs |= {(trial, seed): one for trial, seeds in again.items() for seed, one in seeds.items()}
        kept = comparable(runs)
        return cls(
            {trial: kept[trial, None] for trial in own},
            {trial: {seed: kept[trial, seed] for seed in seeds} for trial, seeds in again.items()},
        )

    @property
    def judged(self) -> list[Judged]:
        """Judgements of the runs of the search by trial, then of those that confirm."""
        return [one.judged for one in self._runs() if one.judged is not None and JUDGED in one.values]

    @property
    def judge(self) -> str:
        """Name of the judge; empty if no run was judged."""
        return next((one.judge for one in self._runs() if one.judge), "")

    @property
    def reals(self) -> dict[str, float]:
        """Scores of photos in the place of drawn images."""
        return next((dict(one.reference) for one in self.judged if one.reference), {})

    def by_judge(self) -> dict[int, tuple[float, ...]]:
        """Collect the judge's FID by trial, the best first: of trials' own runs, or of confirmed ones under each seed.

        Means over seeds are compared where at least two trials were judged under the same ones.
        """
        again = {
            trial: {seed: one.values[JUDGED] for seed, one in seeds.items() if JUDGED in one.values}
            for trial, seeds in self.again.items()
        }
        seen = [set(seeds) for seeds in again.values() if seeds]
        common = sorted(set.intersection(*seen)) if len(seen) > 1 else []
        if common:
            found = {trial: tuple(seeds[seed] for seed in common) for trial, seeds in again.items() if seeds}
        else:
            found = {trial: (one.values[JUDGED],) for trial, one in self.own.items() if JUDGED in one.values}
        return dict(sorted(found.items(), key=lambda item: (fmean(item[1]), item[0])))

    def sentence(self, chosen: int) -> str:
        """Say whether the judge agrees with the chosen trial, or how to ask it."""
        found = self.by_judge()
        if not found:
            return f"What an independent judge says of it is not known: {COMMAND}."
        preferred, asks = next(iter(found)), f"To have trial {chosen} judged: {COMMAND}."
        reals = f" (real photos get {self.reals[JUDGED]:.4g})" if JUDGED in self.reals else ""
        best = f"{JUDGED} {_mean(found[preferred])}"
        if chosen not in found and len(found) == 1:
            return f"The judge ({self.judge}) has seen trial {preferred} alone, {best}{reals}. {asks}"
        if chosen not in found:
            said = f"of the {len(found)} trials that it has seen it prefers trial {preferred}, {best}{reals}"
            return f"The judge ({self.judge}) has not seen trial {chosen}; {said}. {asks}"
        if len(found) == 1:
            said = f"says {best}{reals}, and has seen no other trial"
        elif chosen == preferred:
            said = f"likes it best: {best}, the lowest of {len(found)} judged trials{reals}"
        else:
            said = f"prefers trial {preferred}: {best} against {_mean(found[chosen])}{reals}"
        agreement = rank_agreement(self.judged)
        return f"The judge ({self.judge}) {said}." + (f" {agreement.sentence()}" if agreement else "")

    def to_dict(self, chosen: int) -> dict[str, Any]:
        """Convert to what `choice.json` has of a choice; empty if no run was judged."""
        found, agreement = self.by_judge(), rank_agreement(self.judged)
        if not found:
            return {}
        return {
            "judge": self.judge,
            "prefers": next(iter(found)),
            "agrees": next(iter(found)) == chosen if chosen in found else None,
            JUDGED: {str(trial): fmean(values) for trial, values in found.items()},
            "reals": self.reals,
            "rank_agreement": None if agreement is None else asdict(agreement),
            "sentence": self.sentence(chosen),
        }

    def _runs(self) -> list[RunScores]:
        return [*self.own.values(), *(one for seeds in self.again.values() for one in seeds.values())]


def _mean(values: tuple[float, ...]) -> str:
    spread = f" ± {stdev(values):.2g} over {len(values)} seeds" if len(values) > 1 else ""
    return f"{fmean(values):.4g}{spread}"


def better(name: str) -> str:
    """Show where a score is better as an arrow; empty for what is best in the middle.

    >>> better("judge/recall"), better("val/nearest")
    ('↑', '')
    """
    return score(name).arrow


def table(title: str, rows: Mapping[str, Mapping[str, str]]) -> "Table | None":
    """Build a narrow table for a terminal of the words for each score by trial; None without any.

    >>> table("Beside", {"3": {"val/recall": "0.5"}}).row_count
    1
    """
    from rich.table import Table
    from rich.text import Text

    kept = {trial: cells for trial, cells in rows.items() if any(cells.values())}
    columns = [name for name in BESIDE if any(cells.get(name) for cells in kept.values())]
    if not columns:
        return None
    if JUDGED in columns:
        columns = [FID, *columns]  # an objective, beside what the judge says
    made = Table(title=Text(title), title_justify="left")
    made.add_column("trial", justify="right")
    for name in columns:
        made.add_column(Text(f"{name.replace('/', chr(10))} {better(name)}"), justify="right")
    for trial, cells in kept.items():
        made.add_row(Text(trial), *(Text(cells.get(name, "")) for name in columns))
    return made


def of_confirmation(found: "Confirmation", again: Mapping[int, Mapping[int, RunScores]]) -> dict[str, dict[int, str]]:
    """Average the scores beside the objectives, given by trial and seed, over the seeds of a confirmation.

    >>> from steady.confirm.confirmation import Confirmation, ConfirmedTrial
    >>> found = Confirmation(("val/fid",), ("minimize",), (ConfirmedTrial(3, (9.0,), {1: (9.5,)}),), (), (3,))
    >>> of_confirmation(found, {3: {1: RunScores({"val/recall": 0.5})}})
    {'val/recall': {3: '0.5'}}

    Returns:
        `41.2 ± 0.8` by score and trial; only scores that any has.
    """
    told: dict[str, dict[int, str]] = {}
    for name in (name for name in BESIDE if name not in found.objectives):
        for one in found.candidates:
            runs = again.get(one.trial, {})
            values = [runs[seed].values[name] for seed in one.values if name in runs.get(seed, RunScores()).values]
            if values:
                spread = f" ± {stdev(values):.3g}" if len(values) > 1 else ""
                told.setdefault(name, {})[one.trial] = f"{fmean(values):.4g}{spread}"
    return told


def confirmation_table(found: "Confirmation", told: Mapping[str, Mapping[int, str]]) -> "Table | None":
    """Make a table for a terminal of what `of_confirmation` returns; None of nothing.

    >>> from steady.confirm.confirmation import ConfirmedTrial, Confirmation
    >>> found = Confirmation(("val/fid",), ("minimize",), (ConfirmedTrial(3, (9.0,), {1: (9.5,)}),), (), (3,))
    >>> confirmation_table(found, {"val/recall": {3: "0.5"}}).row_count
    1
    """
    rows = {
        str(one.trial): {name: words.get(one.trial, "") for name, words in told.items()} for one in found.candidates
    }
    return table(f"{TITLE}, under other seeds", rows)


class SweepScores:
    """The scores beside the objectives as a sweep shows them, see `steady.study.results.ExtraScores`."""

    names: Sequence[str] = BESIDE

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
        again = {trial: {seed: run_scores(run, within) for seed, run in own.items()} for trial, own in runs.items()}
        return confirmation_table(found, of_confirmation(found, again))

    def _scores(self, runs: Mapping[int, Path], within: Path) -> dict[int, RunScores]:
        found = {}
        for number, run in runs.items():
            stamps = tuple(_stamp(run / name) for name in (METRICS, FILE))
            found[number] = _read(run, within, stamps) if any(stamps) else RunScores()
        return comparable(found)


EXTRA = SweepScores()


@functools.lru_cache(maxsize=4096)
def _read(run: Path, within: Path, stamps: tuple[object, ...]) -> RunScores:
    """Read the scores of a run once per state of its files, for the leaderboard is written after each trial."""
    return run_scores(run, within)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


class Judge:
    """A `Scorer` with another extractor: same draws, same statistics, same cards.

    Args:
        extractor: the judge's network.
        beside: the scorer of the run, whose photos and scores it takes.
        cache_root: folder of the reference statistics.
        samples: images drawn.
        seed: of the latents and of every other draw.
        reference: which photos drawn images are compared with.
        batch_size: images drawn or read at once.
        required: whether its file has to be there, which `catsweep.judging` looks at.

    Raises:
        MetricError: the network is that of the scorer, by its name, weights or features; or of the family that losses
            and discriminators look through; or as of a `Scorer`.
    """

    def __init__(
        self,
        extractor: "Extractor",
        beside: "Scorer",
        cache_root: str | Path = "data/statistics",
        samples: int = 256,
        seed: int = 0,
        reference: Literal["all", "train", "val"] = "all",
        batch_size: int = 64,
        required: bool = True,
    ) -> None:
        from catsweep.metrics.scorer import Scorer

        del required
        self.name, own = extractor.name, beside.extractor
        if "efficientnetlite" in "".join(filter(str.isalnum, f"{type(extractor).__name__} {self.name}".lower())):
            raise self._refusal("is a relative of what losses and discriminators look through")
        if self.name == own.name or extractor.weights_sha256 == own.weights_sha256:
            raise self._refusal(f"is the extractor of the scores, {own.name}")
        self.beside = beside
        taken = {one.name: one for one in beside.scores if one.in_features}
        self.scorer = Scorer(
            extractor, beside.ready, cache_root, samples, min(2, samples), seed, reference, batch_size, taken
        )
        found, known = self.scorer.reference.features, beside.reference.features
        if found.shape == known.shape and float((found - known).norm()) <= SAME * float(known.norm()):
            raise self._refusal(f"sees what the extractor {own.name} sees")

    def _refusal(self, why: str) -> MetricError:
        return MetricError(
            f"A judge must be a network that nothing was trained on and no score is taken in; {self.name} {why}. "
            "Choose another: metrics/judge=dinov2, or metrics/judge=onnx judge.extractor.file=FILE."
        )

    @cached_property
    def reference(self) -> dict[str, float]:
        """What photos score in the place of drawn images, by the judge and by the run's own scorer."""
        return {
            f"{prefix}{name}": value
            for prefix, scorer in (("val/", self.beside), (PREFIX, self.scorer))
            for name, value in scorer.of_photos().items()
        }

    def cards(self) -> dict[str, MetricCard]:
        """Describe how each score is measured, by name."""
        return {f"{PREFIX}{one.name}": self.scorer.card(one.key) for one in self.scorer.available()}

    def judge(self, model: "Generator", recorded: Mapping[str, float]) -> Judged:
        """Score what a model draws, from its averaged weights if it has them, beside the scores that it has.

        Raises:
            MetricError: images or features that are not finite.
        """
        found = {f"{PREFIX}{name}": value for name, value in self.scorer.in_features(model).items()}
        return Judged(found, self.cards(), self.reference, dict(recorded))
