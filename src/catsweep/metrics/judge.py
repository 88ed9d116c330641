"""The judge: the scores of drawn images once more, in features of a network that nothing was trained on.

Whoever trains through a network flatters its relatives: the loss and the discriminator look through EfficientNet-Lite1,
and the scores that choose trials are taken in Lite0. `conf/metrics/judge/` names another, and `catsweep.judging` has it
look at the few models that count. It is a `Scorer` with another extractor: same draws, same statistics, same cards.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from catsweep.errors import MetricError
from catsweep.metrics.card import MetricCard
from catsweep.metrics.extractors import Extractor
from catsweep.metrics.judged import NAMES, PREFIX, Judged
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import Generator

SAME = 1e-2  # relative difference of features below which two networks are one


class Judge:
    """Judges generators of one ready set.

    Args:
        extractor: its network.
        beside: the scorer of the run, whose photos it compares with.
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
        extractor: Extractor,
        beside: Scorer,
        cache_root: str | Path = "data/statistics",
        samples: int = 256,
        seed: int = 0,
        reference: Literal["all", "train", "val"] = "all",
        batch_size: int = 64,
        required: bool = True,
    ) -> None:
        del required
        require_other(extractor, beside.extractor)
        self.beside = beside
        self.scorer = Scorer(
            extractor, beside.ready, cache_root, samples, min(2, samples), seed, reference, batch_size=batch_size
        )
        self._require_other_features()

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
        """How each score is measured, by name."""
        names = NAMES if len(self.scorer.val_rows) else NAMES[:4]
        return {name: self.scorer.card(name.removeprefix(PREFIX)) for name in names}

    def judge(self, model: Generator, recorded: Mapping[str, float]) -> Judged:
        """Look at what a model draws.

        Args:
            model: a generator; drawn from its averaged weights if it has them.
            recorded: the scores that it has.

        Raises:
            MetricError: images or features that are not finite.
        """
        found = self.scorer.in_features(model)
        cards = self.cards()
        scores = {name: found[name.removeprefix(PREFIX)] for name in cards}
        return Judged(scores, cards, self.reference, dict(recorded))

    def _require_other_features(self) -> None:
        own, other = self.scorer.reference.features, self.beside.reference.features
        if own.shape == other.shape and float((own - other).norm()) <= SAME * float(torch.linalg.norm(other)):
            raise MetricError(_refusal(self.name, f"sees what the extractor {self.beside.extractor.name} sees"))


def require_other(judge: Extractor, extractor: Extractor) -> None:
    """Refuse a judge that is the network of the scores, or of the family that losses and discriminators look through.

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
