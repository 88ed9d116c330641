"""Score a bundle or a run again from its own files: `python src/evaluate.py bundle=…`.

Reads an exported bundle (drawn with ONNX Runtime) or the folder of a run (its scored checkpoint), and the photos it was
scored against. Prints each score beside the recorded one and the interval it must land in, see
`catsweep.export.intervals`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from catsweep import judging
from catsweep.errors import EvaluationError
from catsweep.export import digests
from catsweep.export.graphs import load_bundle
from catsweep.export.intervals import LEVEL, ROUNDING, Interval
from catsweep.export.recorded import Recorded, open_photos, other_versions, scorer_for
from catsweep.metrics.judge import JUDGED, Judged, read_judged
from catsweep.metrics.scorer import Scorer
from catsweep.metrics.scores import MetricCard, score
from catsweep.models.generator import Generator
from catsweep.ownership import require_file
from catsweep.runs import Bundle, RunDir, load_run
from steady import places, printing
from steady.atomic import write_json


def run(cfg: DictConfig) -> Path:
    """Score again, print, and compare; return the folder that was scored.

    Raises:
        ExportError: there is no bundle, or a damaged one.
        DataError: its photos are not here.
        MetricError: its scores cannot be taken as they were.
        EvaluationError: a score lies outside.
        PlaceError: `out` cannot be written.
    """
    if cfg.out is not None:
        require_file(Path(cfg.out), '"recorded_seed"', "out=FILE")
        places.check(Path(cfg.out).parent, cfg, file=Path(cfg.out).name, key="out=FILE.json")
    folder = Path(cfg.bundle) if cfg.bundle is not None else Bundle.latest(Path(cfg.exports))
    said = digests.verify(folder) if Bundle.is_at(folder) else []
    recorded = Recorded.read(folder)
    ready = open_photos(recorded, cfg.ready)
    console = printing.console()
    console.print(f"Scoring {folder} again, against {ready.path.name}", highlight=False, soft_wrap=True)
    scorer = scorer_for(recorded, ready, cfg.seed)
    judge = judging.factory(cfg)
    model = open_model(folder)
    scores, cards = scorer.final(model)
    judged = None if judge is None else judge(beside=scorer).judge(model, recorded.scores)
    rows = [compare(recorded, name, scores.get(name), scorer.seed) for name in recorded.scores]
    outcome = Outcome(recorded, rows, cards, scorer.seed, judged)
    console.print(outcome.table())
    lines = (_networks(cards), outcome.judgement(), judging.absent(cfg), *outcome.remarks(), *said)
    for line in filter(None, lines):
        console.print(line, highlight=False, soft_wrap=True)
    if cfg.out is not None:
        write_json(Path(cfg.out), outcome.to_dict(scorer))
    if failure := outcome.failure():
        raise EvaluationError(failure)
    console.print(outcome.sentence(), highlight=False, soft_wrap=True)
    return folder


def open_model(folder: Path) -> Generator:
    """Open the generator of a bundle, or of a run's scored checkpoint, on the CPU."""
    if Bundle.is_at(folder):
        return load_bundle(folder)
    model, _ = load_run(folder, RunDir(folder).scored_checkpoint())
    assert isinstance(model, Generator)
    return model


@dataclass(frozen=True)
class Row:
    """A recorded score beside the same one measured again."""

    name: str
    recorded: float
    now: float | None  # None: not taken
    interval: Interval | None  # in which it must land, if anything says so
    rounding: float  # by how much it may differ though nothing but the runtime does

    @property
    def inside(self) -> bool | None:
        """Whether the score landed where it must; None if nothing says where."""
        return None if self.interval is None else self.now is not None and self.now in self.interval

    @property
    def agrees(self) -> bool:
        """Whether the score is the recorded one but for rounding."""
        return self.now is not None and abs(self.now - self.recorded) <= self.rounding


def compare(recorded: Recorded, name: str, now: float | None, seed: int) -> Row:
    """Compare a recorded score with the same one measured again with the latents of a seed.

    Without a recorded interval, as of a run, the same latents must give the record, but for rounding.
    """
    value, interval, card = recorded.scores[name], recorded.intervals.get(name), recorded.cards[name]
    # Near 0 a share of the score says nothing: there it is a difference of larger numbers, or a count of images.
    spread = interval.high - interval.low if interval else 0.0
    kind, least = score(name).interval, score(name).least
    images = card.settings.get("images", card.samples) if kind == "share" else card.samples
    rounding = max(ROUNDING * max(abs(value), spread), 1 / images if kind in ("count", "share") else 1e-6)
    if interval is None and seed == recorded.seed:
        low = value - rounding if least is None else max(least, value - rounding)
        interval = Interval(low, value + rounding, LEVEL, 1, "the record and its rounding")
    return Row(name, value, now, interval, rounding)


@dataclass(frozen=True)
class Outcome:
    """Recorded scores beside those that were measured again."""

    recorded: Recorded
    rows: list[Row]  # of the recorded scores; an older record lacks those that are new
    cards: dict[str, MetricCard]  # of what was measured again
    seed: int  # of its latents
    judged: Judged | None  # what another network says now

    def table(self) -> Table:
        """Tabulate the scores for a terminal."""
        drawn = max(card.samples for card in self.cards.values())
        title = f"Scores of {self.recorded.folder.name}: {drawn} images from seed {self.seed}"
        table = Table(title=title, title_justify="left")
        table.add_column("score")
        allowed = f"{LEVEL:.0%} interval" if self.recorded.intervals else "with rounding"
        for heading in ("recorded", allowed, "now"):
            table.add_column(heading, justify="right")
        table.add_column("inside")
        for row in self.rows:
            span = "" if row.interval is None else f"{row.interval.low:.5g} to {row.interval.high:.5g}"
            now = "not taken" if row.now is None else f"{row.now:.5g}"
            word = "?" if row.inside is None else "yes" if row.inside else "NO"
            style = "bold red" if row.inside is False else None
            table.add_row(row.name, f"{row.recorded:.5g}", span, now, word, style=style)
        return table

    def remarks(self) -> list[str]:
        """List the differences from the record that the table does not show."""
        said = []
        if versions := other_versions(self.recorded, self.cards):
            said.append(f"Not the libraries of the record: {'; '.join(versions)}.")
        off = [
            f"{row.name} is {row.now:.6g}, not {row.recorded:.6g}" for row in self.rows if row.inside and not row.agrees
        ]
        if off and self.seed == self.recorded.seed:
            said.append(
                f"The same latents as for the record should give the record to {ROUNDING:.1%}; {'; '.join(off)}. "
                "Other libraries, or not the weights that were scored."
            )
        if any(row.inside is None for row in self.rows):
            why = "a run's folder has no intervals. Export it, and evaluate the bundle."
            if Bundle.is_at(self.recorded.folder):
                why = "the bundle was exported without intervals (draws=0). Export it again."
            said.append(f"Nothing says where other latents than those of seed {self.recorded.seed} may land: {why}")
        return said

    def failure(self) -> str:
        """List the scores that are not what the folder says; empty if all are."""
        words = [
            f"{row.name} cannot be taken, for the model does not reconstruct"
            if row.now is None
            else f"{row.name} is {row.now:.6g}, not within {row.interval.low:.6g} to {row.interval.high:.6g}"
            for row in self.rows
            if row.interval is not None and not row.inside
        ]
        if not words:
            return ""
        again = self.seed == self.recorded.seed
        hint = "" if again else " By chance one seed in 20 lands each score outside: try another."
        return f"{self.recorded.folder} does not score as it says: {'; '.join(words)}.{hint}"

    def sentence(self) -> str:
        """Say how the scores agree, if none is outside."""
        inside = [row for row in self.rows if row.inside]
        if not inside:
            return f"{self.recorded.folder} was scored; there was nothing to compare with."
        same = self.seed == self.recorded.seed and all(row.agrees for row in inside)
        like = "agrees with its record" if same else "scores as it says"
        return f"{self.recorded.folder} {like}: all {len(inside)} scores are inside."

    def judgement(self) -> str:
        """Format what the judge says now, and said then; empty without a judge."""
        if self.judged is None:
            return ""
        then = read_judged(self.recorded.folder)
        before = then.scores.get(JUDGED) if then and then.judge == self.judged.judge else None
        recorded = "" if before is None else f" (recorded: {JUDGED} {before:.4g})"
        return f"Judged by {self.judged.judge}: {judging.line(self.judged)}{recorded}"

    def to_dict(self, scorer: Scorer) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return {
            "folder": self.recorded.folder.as_posix(),
            "seed": self.seed,
            "recorded_seed": self.recorded.seed,
            "data_digest": scorer.ready.digest,
            "scores": {
                row.name: {
                    "recorded": row.recorded,
                    "now": row.now,
                    "interval": None if row.interval is None else asdict(row.interval),
                    "inside": row.inside,
                }
                for row in self.rows
            },
            "cards": {name: card.to_dict() for name, card in self.cards.items()},
            "judge": None if self.judged is None else self.judged.to_dict(),
            "remarks": self.remarks(),
        }


def _networks(cards: dict[str, MetricCard]) -> str:
    """Name the networks in whose features the distances are."""
    by: dict[tuple[str, str, str], list[str]] = {}
    for name, card in cards.items():
        by.setdefault((card.extractor, card.weights_sha256, card.resize), []).append(name)
    words = [
        f"{_listed(names)} in pixels"
        if name == "pixels"
        else f"{_listed(names)} in features of {name} (weights {weights[:12]}…; {resize})"
        for (name, weights, resize), names in by.items()
    ]
    return f"Extractor: {'; '.join(words)}."


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
