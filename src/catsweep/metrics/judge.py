"""The judge: scores of drawn images in features of another network, and what is known of a run beside its objectives.

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
from dataclasses import dataclass, field, fields, replace
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
    """The judgement of one run, as `judge.json` holds it.

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
        """Convert to the content of `judge.json`."""
        cards = {name: card.to_dict() for name, card in self.cards.items()}
        scores, reference, recorded = map(dict, (self.scores, self.reference, self.recorded))
        return {"scores": scores, "cards": cards, "reference": reference, "recorded": recorded}

    @property
    def judge(self) -> str:
        """Name of the network, for example `dinov2_vits14`."""
        return next(iter(self.cards.values())).extractor


def read_judged(folder: Path) -> Judged | None:
    """Read the judgement in the folder of a run or a bundle.

    >>> read_judged(Path("no/such/folder"))

    Args:
        folder: may be a stranger's.

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
        if not cards or not all(is_score(value) for part in parts for value in part.values()):
            return None
        if not all(map(_is_plain, cards.values())):
            return None
    except (DataError, MetricError, KeyError, TypeError, AttributeError):
        return None
    judged, reference, recorded = ({name: float(value) for name, value in part.items()} for part in parts)
    return Judged(judged, cards, reference, recorded)


def _is_plain(card: MetricCard) -> bool:
    """Whether nothing is missing in a card and its settings are plain values: it is copied, compared and printed."""
    values = [getattr(card, entry.name) for entry in fields(card)]
    inner = [*card.settings.values(), *card.versions.values()]
    return None not in values and not any(isinstance(value, dict | list) for value in inner)


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
        """Say it in a sentence, for reports."""
        return (
            f"Over {self.runs} judged runs, {self.judge} and {self.score} order them alike to Kendall's tau "
            f"{self.tau:.2f} (1: the same order, 0: none; by chance p {self.p:.2g})."
        )


def rank_agreement(runs: Iterable[Judged], score: str = FID, judge: str = JUDGED) -> Agreement | None:
    """Compare the order of runs by a score of their own with that by the judge (Kendall 1945, tau-b).

    >>> card = MetricCard("fid", "net", "ab", "none", "float32", "cd", 32, 24, 0)
    >>> judged = [Judged({"judge/fid": n}, {"judge/fid": card}, {}, {"val/fid": n**2}) for n in (3.0, 1.0, 2.0)]
    >>> rank_agreement(judged).tau
    1.0

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


@dataclass(frozen=True)
class RunScores:
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
        """Format FID and the scores that stand beside objectives."""
        values = self.values
        return {name: f"{values[name]:.4g}" for name in (FID, *BESIDE) if name in values}

    @property
    def judge(self) -> str:
        """The judge's name; empty without one."""
        return readable_name(self.judged.judge)[:LETTERS] if self.judged else ""


def run_scores(run: Path | None, within: Path | None = None) -> RunScores:
    """Read the scores of a run; a file that is missing, damaged or elsewhere has none.

    >>> run_scores(None)
    RunScores(own={}, judged=None)

    Args:
        run: its folder, or a bundle; None has none.
        within: the folder that its files may not lead out of by a link; that of the run if None.
    """
    if run is None:
        return RunScores()
    files = [inside(within or run, run / name) for name in (METRICS, FILE)]
    return RunScores(_own(run / METRICS) if files[0] else {}, read_judged(run) if all(files) else None)


def _own(path: Path) -> dict[str, float]:
    try:
        found = {"scores": read_json(path).get("scores")}
    except DataError:
        return {}
    if misshapen(found, {"scores": NUMBERS}):
        return {}
    values = (found["scores"] or {}).items()
    return {name: float(value) for name, value in values if value is not None and is_score(value)}


def comparable(runs: Mapping[K, RunScores]) -> dict[K, RunScores]:
    """Leave out the judge's scores of runs that were not measured as most of the judged ones were.

    >>> comparable({"run": RunScores({"val/fid": 40.0})})
    {'run': RunScores(own={'val/fid': 40.0}, judged=None)}

    Args:
        runs: by any name.
    """
    measured = {name: how for name, one in runs.items() if (how := _measured(one)) is not None}
    usual = Counter(measured.values()).most_common(1)[0][0] if measured else None
    return {
        name: one if measured.get(name) in (None, usual) else replace(one, judged=None) for name, one in runs.items()
    }


def _measured(one: RunScores) -> tuple[Any, ...] | None:
    if one.judged is None or JUDGED not in one.judged.cards:
        return None
    return tuple(map(str, one.judged.cards[JUDGED].measure().values()))


def better(name: str) -> str:
    """Show where a score is better as an arrow; empty for what is best in the middle.

    >>> better("judge/recall"), better("val/nearest")
    ('↑', '')
    """
    return score(name).arrow


def table(title: str, rows: Mapping[str, Mapping[str, str]]) -> "Table | None":
    """Build a narrow table for a terminal: those of the objectives have no room for more columns.

    >>> table("Beside", {"3": {"val/recall": "0.5"}}).row_count
    1

    Args:
        title: of the table.
        rows: by trial, the words for each score, by name; those without any are left out.

    Returns:
        None without any words.
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


def of_confirmation(found: "Confirmation", again: Mapping[int, Mapping[int, RunScores]]) -> dict[str, dict[int, str]]:
    """Average what runs that confirm a winner have beside the objectives.

    >>> from steady.confirm.confirmation import Candidate, Confirmation
    >>> found = Confirmation(("val/fid",), ("minimize",), (Candidate(3, (9.0,), {1: (9.5,)}),), (), (3,))
    >>> of_confirmation(found, {3: {1: RunScores({"val/recall": 0.5})}})
    {'val/recall': {3: '0.5'}}

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
            values = [runs[seed].values[name] for seed in one.values if name in runs.get(seed, RunScores()).values]
            if values:
                spread = f" ± {stdev(values):.3g}" if len(values) > 1 else ""
                told.setdefault(name, {})[one.trial] = f"{fmean(values):.4g}{spread}"
    return told


def confirmation_table(found: "Confirmation", told: Mapping[str, Mapping[int, str]]) -> "Table | None":
    """Make a table for a terminal of what `of_confirmation` returns; None of nothing.

    >>> from steady.confirm.confirmation import Candidate, Confirmation
    >>> found = Confirmation(("val/fid",), ("minimize",), (Candidate(3, (9.0,), {1: (9.5,)}),), (), (3,))
    >>> confirmation_table(found, {"val/recall": {3: "0.5"}}).row_count
    1
    """
    rows = {
        str(one.trial): {name: words.get(one.trial, "") for name, words in told.items()} for one in found.candidates
    }
    return table(f"{TITLE}, under other seeds", rows)


class Beside:
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


EXTRA = Beside()


@functools.lru_cache(maxsize=4096)
def _read(run: Path, within: Path, stamps: tuple[object, ...]) -> RunScores:
    """What a run folder says; read once, for the leaderboard is written after each trial."""
    return run_scores(run, within)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


class Judge:
    """Judges generators of one ready set: a `Scorer` with another extractor, same draws, same statistics, same cards.

    Args:
        extractor: its network.
        beside: the scorer of the run, whose photos and scores it takes.
        cache_root: folder of the reference statistics.
        samples: images drawn.
        seed: of the latents and of every other draw.
        reference: which photos drawn images are compared with: `all`, `train` or `val`.
        batch_size: images drawn or read at once.
        required: whether its file has to be there, which `catsweep.judging` looks at.

    Raises:
        MetricError: it is no other network than that of the scorer; or as of a `Scorer`.
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
        require_other(extractor, beside.extractor)
        self.beside = beside
        taken = {one.name: one for one in beside.scores if one.in_features}
        self.scorer = Scorer(
            extractor, beside.ready, cache_root, samples, min(2, samples), seed, reference, batch_size, taken
        )
        own, other = self.scorer.reference.features, beside.reference.features
        if own.shape == other.shape and float((own - other).norm()) <= SAME * float(other.norm()):
            raise MetricError(_refusal(self.name, f"sees what the extractor {beside.extractor.name} sees"))

    @property
    def name(self) -> str:
        """Of its network."""
        return self.scorer.extractor.name

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
        held_out = len(self.scorer.val_rows)
        taken = [one for one in self.scorer.scores if held_out or not one.held_out]
        return {f"{PREFIX}{one.name}": self.scorer.card(one.key) for one in taken}

    def judge(self, model: "Generator", recorded: Mapping[str, float]) -> Judged:
        """Score what a model draws.

        Args:
            model: a generator; drawn from its averaged weights if it has them.
            recorded: the scores that it has.

        Raises:
            MetricError: images or features that are not finite.
        """
        found = {f"{PREFIX}{name}": value for name, value in self.scorer.in_features(model).items()}
        return Judged(found, self.cards(), self.reference, dict(recorded))


def require_other(judge: "Extractor", extractor: "Extractor") -> None:
    """Refuse a judge that is the network of the scores, or of the family that losses and discriminators look through.

    >>> from types import SimpleNamespace
    >>> one, other = (SimpleNamespace(name=name, weights_sha256=name) for name in ("inception", "dinov2"))
    >>> require_other(other, one)

    Args:
        judge: the judge's.
        extractor: that of the scores.

    Raises:
        MetricError: it is one of those, by its name, its kind or its weights.
    """
    known = "".join(letter for letter in f"{type(judge).__name__} {judge.name}".lower() if letter.isalnum())
    if "efficientnetlite" in known:
        raise MetricError(_refusal(judge.name, "is a relative of what losses and discriminators look through"))
    if judge.name == extractor.name or judge.weights_sha256 == extractor.weights_sha256:
        raise MetricError(_refusal(judge.name, f"is the extractor of the scores, {extractor.name}"))


def _refusal(name: str, why: str) -> str:
    return (
        f"A judge must be a network that nothing was trained on and no score is taken in; {name} {why}. Choose "
        "another: metrics/judge=dinov2, or metrics/judge=onnx judge.extractor.file=FILE."
    )
