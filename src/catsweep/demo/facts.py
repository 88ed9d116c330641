"""What the demo's page says of the model: its name, size and scores, and the command that draws the same cats."""

import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

from catsweep.generation.sources import Source
from catsweep.metrics.scores import FID, SSIM

SCORES = (FID, SSIM)


def line(source: Source) -> str:
    """Facts about the model in one line of HTML; what its folder does not tell is left out."""
    side = source.generator.image_size
    facts = [source.folder.resolve().name, f"{side} x {side} pixels", *_scores(source.folder / "metrics.json")]
    return " · ".join(f"<span>{escape(fact)}</span>" for fact in facts)


def _scores(file: Path) -> list[str]:
    try:
        metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        scores, cards = metrics["scores"], metrics["cards"]
        # Never FID alone: it is comparable only where the same network judged.
        judges = {one: f" ({cards[one.key]['extractor']})" if one is FID else "" for one in SCORES if one.key in scores}
        return [f"{one.title} {scores[one.key]:.3g}{judge}" for one, judge in judges.items()]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def command(source: Source, n: int, seed: int, truncation: float) -> str:
    """The command line that draws the same page."""
    kind = "bundle" if source.is_bundle else "run"
    place = f"{kind}={source.folder}"
    return shlex.join(["python", "src/generate.py", place, f"n={n}", f"seed={seed}", f"truncation={truncation:g}"])
