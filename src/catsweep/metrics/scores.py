"""Scores: what each is called, which way is better, how it is taken, recorded on a card, and bounded in a bundle.

A new score is a subclass of `Score` here or in a package of your own (`trust=[mypackage.*]`), a line under `scores` in
`conf/metrics/default.yaml`, and a test. Nothing here imports torch until a score is taken: reports and leaderboards do
not wait for it.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from catsweep.errors import MetricError

if TYPE_CHECKING:
    import torch

    from catsweep.metrics.scorer import Drawn, Scorer

ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class MetricCard:
    """How one score was measured. Two scores are compared only if their cards agree."""

    metric: str  # name of the score, for example fid
    extractor: str  # its name; `pixels` for scores that need none
    weights_sha256: str  # of the extractor; empty for `pixels`
    resize: str  # before the extractor, in words; `none` for `pixels`
    dtype: str  # precision of the features, and of what is accumulated over them
    reference_digest: str  # of the real images compared with: the ready set's pixels and which rows of it
    reference_size: int  # number of those images
    samples: int  # number of generated or reconstructed images
    seed: int  # of their latents, and of every other draw in the score
    settings: Mapping[str, Any] = field(default_factory=dict)  # the metric's own parameters, plain values
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that computed it

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, ready for JSON or YAML."""
        return asdict(self)

    def measure(self) -> dict[str, Any]:
        """Convert to plain values without the versions of libraries, as newer ones do not make another score."""
        return self.to_dict() | {"versions": None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MetricCard":
        """Build a card from the values of `to_dict`; a MetricError if a field is missing or unknown."""
        known = [entry.name for entry in fields(cls)]
        if wrong := sorted(set(known) ^ set(values)):
            raise MetricError(f"A metric card has the fields {known}; missing or unknown here: {wrong}. Score again.")
        return cls(**values)


def require_comparable(first: MetricCard, second: MetricCard, ignore: Collection[str] = ()) -> None:
    """Refuse to compare two scores that were not measured the same way.

    >>> card = MetricCard("fid", "net", "ab", "none", "float32", "cd", reference_size=32, samples=24, seed=0)
    >>> require_comparable(card, MetricCard.from_dict(card.to_dict() | {"seed": 1}), ignore=["seed"])

    A MetricError lists each field that differs and is not in `ignore`, with both values.
    """
    differences = [
        f"  {entry.name}: {getattr(first, entry.name)!r} against {getattr(second, entry.name)!r}"
        for entry in fields(MetricCard)
        if entry.name not in ignore and getattr(first, entry.name) != getattr(second, entry.name)
    ]
    if differences:
        raise MetricError(
            "Two scores can be compared only if they were measured the same way; these were not:\n"
            + "\n".join(differences)
            + "\nScore both again under one configuration (python src/evaluate.py)."
        )


class Score:
    """A score of drawn images; the base of all. Subclasses with a `name` enter `SCORES` when they are defined."""

    name: ClassVar[str] = ""  # val/NAME in metrics.json, judge/NAME where a judge takes it
    key: ClassVar[str] = ""  # val/NAME
    title: str = ""  # for readers, for example FID
    better: str = ""  # `lower`, `higher`, or the best value in words; empty if unknown
    meaning: str = ""  # one line for the README of a bundle
    in_features: bool = True  # taken in an extractor's features, hence also by judges; else in pixels
    held_out: bool = False  # needs photos that were not trained on
    # Cheap and unbiased enough for few samples: taken during training for checkpoints, early stopping and pruners,
    # which want the lower one.
    at_rungs: bool = False
    in_tables: bool = False  # a column beside the objectives in reports and leaderboards
    least: float | None = None  # lowest value that it can have
    # How `catsweep.export.intervals` finds where it may land: `draws`, a prediction interval over draws of latents;
    # `count`, exact limits of a count of drawn images; `share`, both, of a share of real images; `photos`, a bootstrap
    # over held-out photos.
    interval: Literal["draws", "count", "share", "photos"] = "draws"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name:
            cls.key = f"val/{cls.name}"
            SCORES[cls.name] = cls()

    @property
    def arrow(self) -> str:
        """The direction of better values as an arrow, `↓` or `↑`; empty for what is best in the middle."""
        return ARROWS.get(self.better, "")

    def measure(self, drawn: "Drawn") -> float:
        """Take the score of drawn images or their features, beside the real ones they are compared with."""
        raise NotImplementedError

    def settings(self, scorer: "Scorer") -> dict[str, Any]:
        """List the score's own parameters, plain values, for its card."""
        return {}

    def card(self, scorer: "Scorer", device: "torch.device") -> MetricCard:
        """Describe how a scorer measures the score, with features taken on a device."""
        network = scorer.extractor if self.in_features else None
        libraries = {name: version(name) for name in ("torch", "torchmetrics")}
        return MetricCard(
            metric=self.name,
            extractor=network.name if network else "pixels",
            weights_sha256=network.weights_sha256 if network else "",
            resize=network.resize if network else "none",
            dtype=f"{network.dtype}, moments float64" if network else "float32, mean float64",
            **self.images(scorer),
            seed=scorer.seed,
            settings=self.settings(scorer),
            versions=libraries | (network.versions(device) if network else {}),
        )

    def images(self, scorer: "Scorer") -> dict[str, Any]:
        """Fill the fields of the card that say which images are compared."""
        digest, n = scorer.reference.images_digest, scorer.reference.moments.size
        return {"reference_digest": digest, "reference_size": n, "samples": scorer.samples}


SCORES: dict[str, Score] = {}  # by name, in the order of their definition


def score(name: str) -> Score:
    """Look up a score by its name, with `val/` or `judge/` before it or without; an unknown one has only a title.

    >>> score("val/fid").title, score("judge/fid").arrow, score("fid").key
    ('FID', '↓', 'val/fid')
    >>> score("other").title
    'other'
    """
    prefix, _, last = name.rpartition("/")
    if prefix in ("", "val", "judge") and last in SCORES:
        return SCORES[last]
    unknown = Score()
    unknown.title = name
    return unknown


class FID(Score):
    """Frechet distance of features (Heusel et al. 2017, arXiv:1706.08500)."""

    name, title, better, least = "fid", "FID", "lower", 0.0
    meaning = "distance between drawn and real images, in features of the extractor"

    def measure(self, drawn: "Drawn") -> float:
        """See `Score`."""
        from catsweep.metrics.distances import CachedFID

        metric = CachedFID(drawn.moments)
        metric.update(drawn.features, real=False)
        return float(metric.compute())


class KID(Score):
    """Kernel distance of features (Binkowski et al. 2018, arXiv:1801.01401); may be slightly negative."""

    name, title, better, at_rungs = "kid", "KID", "lower", True
    meaning = "the same question, answered well by fewer samples"

    def measure(self, drawn: "Drawn") -> float:
        """See `Score`."""
        from catsweep.metrics.distances import kernel_distance

        return kernel_distance(drawn.features, drawn.reals, drawn.seed)

    def settings(self, scorer: "Scorer") -> dict[str, Any]:
        """See `Score`."""
        from catsweep.metrics.distances import KID_SUBSETS

        return {"subsets": KID_SUBSETS, "subset_size": min(scorer.samples, len(scorer.kid_rows))}


class _Neighbours(Score):
    """Base of the scores that count real images near drawn ones."""

    better, in_tables, least, interval = "higher", True, 0.0, "share"
    method = ""

    def measure(self, drawn: "Drawn") -> float:
        """See `Score`."""
        return float(getattr(drawn.diversity, self.name))

    def settings(self, scorer: "Scorer") -> dict[str, Any]:
        """See `Score`."""
        from catsweep.metrics.distances import DIVERSITY_IMAGES, NEIGHBOURS

        images = min(scorer.samples, len(scorer.kid_rows), DIVERSITY_IMAGES)
        return {"k": NEIGHBOURS, "images": images, "method": self.method}


class Recall(_Neighbours):
    """Share of real images that lie among the drawn ones."""

    name = title = "recall"
    meaning = "share of real images that look like some drawn one: how much of them it can draw"
    method = "Kynkaanniemi et al. 2019, arXiv:1904.06991"


class Coverage(_Neighbours):
    """Share of real images that have a drawn one among their neighbours."""

    name = title = "coverage"
    meaning = "share of real images that have a drawn one near them; one cat drawn well scores 0"
    method = "Naeem et al. 2020, arXiv:2002.09797"


class Nearest(Score):
    """Median distance to the nearest training image, over that of held-out images."""

    name = title = "nearest"
    better, held_out, least = "near 1", True, 0.0
    meaning = "distance to the nearest training photo, against that of unseen photos"

    def measure(self, drawn: "Drawn") -> float:
        """See `Score`."""
        return drawn.nearest.ratio

    def settings(self, scorer: "Scorer") -> dict[str, Any]:
        """See `Score`."""
        return {"train": len(scorer.train_rows), "held_out": len(scorer.val_rows)}


class Copied(Nearest):
    """Share of drawn images that are nearer to a training image than 95 % of held-out images are."""

    name = title = "copied"
    better, interval = "near 0.05", "count"
    meaning = "share nearer to a training photo than 95 % of unseen photos are"

    def measure(self, drawn: "Drawn") -> float:
        """See `Score`."""
        return drawn.nearest.copied


class SSIMGap(Score):
    """How far the likeness of random pairs of drawn images is from that of real ones (Odena et al. 2017)."""

    name, title, better, least, in_features = "ssim_gap", "SSIM gap", "lower", 0.0, False
    meaning = "how far the diversity of drawn images is from that of real ones"

    def measure(self, drawn: "Drawn") -> float:
        """See `Score`."""
        from catsweep.metrics.distances import pair_similarity

        return abs(pair_similarity(drawn.images, len(drawn.images), drawn.seed) - drawn.similarity)

    def settings(self, scorer: "Scorer") -> dict[str, Any]:
        """See `Score`."""
        from catsweep.metrics.distances import WINDOW, scales
        from catsweep.metrics.statistics import PAIRS

        real_pairs, side = min(PAIRS, scorer.reference.moments.size), scorer.ready.images.shape[1]
        return {"window": WINDOW, "scales": scales(side), "pairs": scorer.samples, "real_pairs": real_pairs}


class ReconstructionScore(Score):
    """A score of held-out photos against their reconstructions: the mean over photos; the base of all such."""

    in_features, held_out, interval = False, True, "photos"

    def each(self, images: "torch.Tensor", originals: "torch.Tensor") -> "torch.Tensor":
        """Score each reconstruction: two times uint8 (N, H, W, 3) to float64 (N,)."""
        raise NotImplementedError

    def images(self, scorer: "Scorer") -> dict[str, Any]:
        """See `Score`."""
        n, digest = len(scorer.val_rows), scorer.ready.digest
        return {"reference_digest": digest, "reference_size": n, "samples": min(scorer.samples, n)}


class SSIM(ReconstructionScore):
    """Structural similarity of reconstructions (Wang et al. 2004)."""

    name, title, better = "ssim", "SSIM", "higher"
    meaning = "how well photos it has not seen are reconstructed"

    def each(self, images: "torch.Tensor", originals: "torch.Tensor") -> "torch.Tensor":
        """See `ReconstructionScore`."""
        from catsweep.metrics.distances import ssim

        return ssim(images, originals)

    def settings(self, scorer: "Scorer") -> dict[str, Any]:
        """See `Score`."""
        from catsweep.metrics.distances import WINDOW

        return {"window": WINDOW, "images": "held-out reconstructions"}


# Taken by configurations that name no scores, as those of runs from before scores had names.
DEFAULT = ("fid", "kid", "recall", "coverage", "nearest", "copied", "ssim_gap", "ssim")
