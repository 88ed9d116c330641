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
    outcome = Outcome(recorded, scores, cards, scorer.seed, judged)
    console.print(outcome.table())
    lines = (outcome.extractor(), outcome.judgement(), judging.absent(cfg), *outcome.remarks(), *said)
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
class Outcome:
    """Recorded scores beside those that were measured again."""

    recorded: Recorded
    now: dict[str, float]
    cards: dict[str, MetricCard]  # of `now`
    seed: int  # of the latents of `now`
    judged: Judged | None = None  # what another network says now

    @property
    def repeated(self) -> bool:
        """Whether the same latents were drawn as for the record."""
        return self.seed == self.recorded.seed

    def interval(self, name: str) -> Interval | None:
        """Find the interval that a score must land in; None if nothing says so.

        Without a recorded one, as of a run, the same latents must give the record, but for rounding.
        """
        if found := self.recorded.intervals.get(name):
            return found
        if not self.repeated:
            return None
        record, slack = self.recorded.scores[name], self._rounding(name)
        least = score(name).least
        low = record - slack if least is None else max(least, record - slack)
        return Interval(low, record + slack, LEVEL, 1, "the record and its rounding")

    def inside(self, name: str) -> bool | None:
        """Whether a score landed where it must; None if nothing says where."""
        interval = self.interval(name)
        return None if interval is None else name in self.now and self.now[name] in interval

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
        for name, record in self.recorded.scores.items():
            interval, inside = self.interval(name), self.inside(name)
            span = "" if interval is None else f"{interval.low:.5g} to {interval.high:.5g}"
            now = f"{self.now[name]:.5g}" if name in self.now else "not taken"
            word = "?" if inside is None else "yes" if inside else "NO"
            table.add_row(name, f"{record:.5g}", span, now, word, style="bold red" if inside is False else None)
        return table

    def extractor(self) -> str:
        """Name the networks in whose features the distances are."""
        by: dict[tuple[str, str, str], list[str]] = {}
        for name, card in self.cards.items():
            by.setdefault((card.extractor, card.weights_sha256, card.resize), []).append(name)
        words = [
            f"{_listed(names)} in pixels"
            if name == "pixels"
            else f"{_listed(names)} in features of {name} (weights {weights[:12]}…; {resize})"
            for (name, weights, resize), names in by.items()
        ]
        return f"Extractor: {'; '.join(words)}."

    def remarks(self) -> list[str]:
        """List the differences from the record that the table does not show."""
        said = []
        if versions := other_versions(self.recorded, self.cards):
            said.append(f"Not the libraries of the record: {'; '.join(versions)}.")
        names = self.recorded.scores  # an older record lacks those that are new, though intervals were drawn for them
        if self.repeated and (off := [name for name in names if self.inside(name) and not self._agrees(name)]):
            said.append(
                f"The same latents as for the record should give the record to {ROUNDING:.1%}; "
                + "; ".join(f"{name} is {self.now[name]:.6g}, not {self.recorded.scores[name]:.6g}" for name in off)
                + ". Other libraries, or not the weights that were scored."
            )
        if any(self.inside(name) is None for name in self.recorded.scores):
            said.append(
                f"Nothing says where other latents than those of seed {self.recorded.seed} may land: a run's folder "
                f"has no intervals. Export it, and evaluate the bundle."
            )
        return said

    def failure(self) -> str:
        """List the scores that are not what the folder says; empty if all are."""
        outside = [name for name in self.recorded.scores if self.inside(name) is False]
        if not outside:
            return ""
        words = []
        for name in outside:
            interval = self.interval(name)
            assert interval is not None
            words.append(
                f"{name} is {self.now[name]:.6g}, not within {interval.low:.6g} to {interval.high:.6g}"
                if name in self.now
                else f"{name} cannot be taken, for the model does not reconstruct"
            )
        folder = self.recorded.folder
        hint = "" if self.repeated else " By chance one seed in 20 lands each score outside: try another."
        return f"{folder} does not score as it says: {'; '.join(words)}.{hint}"

    def sentence(self) -> str:
        """Say how the scores agree, if none is outside."""
        judged = [name for name in self.recorded.scores if self.inside(name)]
        if not judged:
            return f"{self.recorded.folder} was scored; there was nothing to compare with."
        like = "agrees with its record" if self.repeated and all(map(self._agrees, judged)) else "scores as it says"
        return f"{self.recorded.folder} {like}: all {len(judged)} scores are inside."

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
                name: {
                    "recorded": record,
                    "now": self.now.get(name),
                    "interval": None if (interval := self.interval(name)) is None else asdict(interval),
                    "inside": self.inside(name),
                }
                for name, record in self.recorded.scores.items()
            },
            "cards": {name: card.to_dict() for name, card in self.cards.items()},
            "judge": None if self.judged is None else self.judged.to_dict(),
            "remarks": self.remarks(),
        }

    def _rounding(self, name: str) -> float:
        """By how much a score may differ though nothing but the runtime does."""
        record, interval = abs(self.recorded.scores[name]), self.recorded.intervals.get(name)
        # Near 0 a share of the score says nothing: there it is a difference of larger numbers, or a count of images.
        spread = interval.high - interval.low if interval else 0.0
        card = self.recorded.cards[name]
        kind = score(name).interval
        images = card.settings.get("images", card.samples) if kind == "share" else card.samples
        least = 1 / images if kind in ("count", "share") else 1e-6
        return max(ROUNDING * max(record, spread), least)

    def _agrees(self, name: str) -> bool:
        return name in self.now and abs(self.now[name] - self.recorded.scores[name]) <= self._rounding(name)


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
