"""What the demo's page says of the model: its name, size and scores, and the command that draws the same cats."""

import shlex
from html import escape

from catsweep.errors import DataError
from catsweep.generation.sources import Source
from catsweep.runs import RunDir

SCORES = {"val/fid": "FID", "val/ssim": "SSIM"}


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
        judges = {key: f" ({cards[key]['extractor']})" if key == "val/fid" else "" for key in SCORES if key in scores}
        return [f"{SCORES[key]} {scores[key]:.3g}{judge}" for key, judge in judges.items()]
    except (DataError, KeyError, TypeError):
        return []


def command(source: Source, n: int, seed: int, truncation: float) -> str:
    """The command line that draws the same page."""
    kind = "bundle" if source.is_bundle else "run"
    place = f"{kind}={source.folder}"
    return shlex.join(["python", "src/generate.py", place, f"n={n}", f"seed={seed}", f"truncation={truncation:g}"])
