"""What the demo's page says of the model: its name, size and scores, and the command that draws the same cats."""

import shlex
from html import escape

from catsweep.errors import DataError
from catsweep.generation.sources import Source
from catsweep.metrics.scores import FID, SSIM
from catsweep.runs import RunDir

SCORES = (FID, SSIM)


def line(source: Source) -> str:
    """Facts about the model in one line of HTML; what its folder does not tell is left out."""
    side = source.generator.image_size
    facts = [source.folder.resolve().name, f"{side} x {side} pixels", *_scores(RunDir(source.folder))]
    return " · ".join(f"<span>{escape(fact)}</span>" for fact in facts)


def _scores(run: RunDir) -> list[str]:
    try:
        metrics = run.metrics()
        scores, cards = metrics.finite, metrics.cards
        # Never FID alone: it is comparable only where the same network judged.
        judges = {one: f" ({cards[one.key]['extractor']})" if one is FID else "" for one in SCORES if one.key in scores}
        return [f"{one.title} {scores[one.key]:.3g}{judge}" for one, judge in judges.items()]
    except (DataError, KeyError, TypeError):
        return []


def command(source: Source, n: int, seed: int, truncation: float) -> str:
    """The command line that draws the same page."""
    kind = "bundle" if source.is_bundle else "run"
    place = f"{kind}={source.folder}"
    return shlex.join(["python", "src/generate.py", place, f"n={n}", f"seed={seed}", f"truncation={truncation:g}"])
