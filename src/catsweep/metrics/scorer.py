"""The scorer: which images are scored against which, how many, and from which seed.

`catsweep.training` builds one from `conf/metrics/`, hands it to the callback for the rung score during training, and
asks it for the final scores at the end. Everything about a score that is a choice is an argument here and an entry
on the card.
"""

import copy
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor

from catsweep.errors import MetricError
from catsweep.images import to_float, to_uint8
from catsweep.metrics import scores, similarity
from catsweep.metrics.card import MetricCard
from catsweep.metrics.extractors import Extractor
from catsweep.metrics.finite import FiniteImages, device_of
from catsweep.metrics.statistics import PAIRS, Moments, Reference, reference_statistics
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating, generate

if TYPE_CHECKING:
    from catsweep.data.ready import ReadySet

log = logging.getLogger(__name__)

SELF_CHECK_IMAGES = 16
KID_IMAGES = 10_000  # real images KID's subsets are drawn from, at most: their features are copied in float64
SELF_CHECK_BOUND = 1e-3  # share of the total variance; fp32 features computed twice stay below 1e-6 of it


class Scorer:
    """Scores generators against one ready set.

    Building one loads (or computes) the reference statistics and checks the extractor, so that what is wrong shows
    before training starts. Nothing in it changes afterwards, and no method touches the global random state.

    Args:
        extractor: the feature network; it follows each model to its device.
        ready: the real images.
        cache_root: folder of the reference statistics.
        samples: images drawn for the final scores.
        rung_samples: images drawn for the rung score, at most `samples`.
        seed: of the latents and of every other draw.
        reference: which real images generated ones are compared with: `all`, `train` or `val`.
        batch_size: images drawn or read at once.

    Raises:
        MetricError: too few images or samples, or an extractor that does not reproduce itself.
    """

    def __init__(
        self,
        extractor: Extractor,
        ready: "ReadySet",
        cache_root: str | Path = "data/statistics",
        samples: int = 512,
        rung_samples: int = 256,
        seed: int = 0,
        reference: Literal["all", "train", "val"] = "all",
        batch_size: int = 64,
    ) -> None:
        if not 2 <= rung_samples <= samples:
            raise MetricError(
                f"Scores need 2 <= rung_samples <= samples; got rung_samples={rung_samples}, samples={samples}. "
                "Set metrics.rung_samples and metrics.samples."
            )
        self.extractor = extractor
        self.ready = ready
        self.samples = samples
        self.rung_samples = rung_samples
        self.seed = seed
        self.batch_size = batch_size
        # The photos themselves are what scores compare with; copies of them would only count some photos more often.
        # All rows here, and those of the features, count these photos.
        self.photos = ready.originals()
        self.train_rows, self.val_rows = (
            np.flatnonzero(np.isin(self.photos, ready.indices(split))) for split in ("train", "val")
        )
        self.cache_root = Path(cache_root)
        self.reference = self._reference(reference, self.cache_root)
        self.kid_rows = self._kid_rows()
        self.checked_devices: set[torch.device] = set()
        self._prepare(device_of(extractor))

    def reseeded(self, seed: int) -> "Scorer":
        """The scorer that differs in its seed alone; reference statistics and extractor are shared, nothing is read."""
        other = copy.copy(self)
        other.seed = seed
        other.kid_rows = other._kid_rows()
        return other

    def rung(self, model: Generator) -> dict[str, float]:
        """The cheap score that checkpoints, early stopping and pruners go by: KID on few samples.

        Args:
            model: a generator; drawn from its averaged weights if it has them.

        Raises:
            MetricError: images or features that are not finite.
        """
        features = self._features(self.draw(model, self.rung_samples), device_of(model))
        return {"val/kid": self._kernel_distance(features)}

    @staticmethod
    def rung_names() -> list[str]:
        """Names of the scores that `rung` gives."""
        return ["val/kid"]

    def names(self, model: Generator) -> list[str]:
        """Names of the scores that `final` gives for this model, known before there is anything to score."""
        names = ["val/fid", "val/kid", "val/recall", "val/coverage", "val/ssim_gap"]
        if len(self.val_rows):
            names += ["val/nearest", "val/copied"]
        return [*names, "val/ssim"] if _compares(model, self.val_rows) else names

    def final(self, model: Generator) -> tuple[dict[str, float], dict[str, MetricCard]]:
        """All scores at the full number of samples, each with its card.

        `val/fid`, `val/kid`, `val/recall`, `val/coverage`, `val/ssim_gap`; `val/nearest` and `val/copied` where images
        were held out; and there `val/ssim` of their reconstructions where the model can reconstruct.

        Args:
            model: a generator, perhaps a `Reconstructor`.

        Raises:
            MetricError: images or features that are not finite, or a reconstructor and no held-out images.
        """
        values = self.drawn(model)
        if _compares(model, self.val_rows):
            values["val/ssim"] = float(self.held_out_similarities(model).mean())
        device = device_of(model)
        return values, {key: self.card(key, device) for key in values}

    def drawn(self, model: Generator) -> dict[str, float]:
        """Those of the final scores that depend on the latents: all but `val/ssim`.

        Raises:
            MetricError: images or features that are not finite.
        """
        images = self.draw(model, self.samples)
        found = self.of_features(self._features(images, device_of(model)))
        alike = similarity.pair_similarity(images, self.samples, self.seed)
        found["ssim_gap"] = abs(alike - self.reference.similarity)
        return {f"val/{name}": value for name, value in found.items()}

    def in_features(self, model: Generator) -> dict[str, float]:
        """Those scores of drawn images that are taken in the extractor's features, by their names without `val/`.

        Raises:
            MetricError: images or features that are not finite.
        """
        return self.of_features(self._features(self.draw(model, self.samples), device_of(model)))

    def of_features(self, features: Tensor) -> dict[str, float]:
        """The same of images whose features are known.

        Args:
            features: float, shape (n, D).
        """
        every = self.reference.features
        found = _distances(features, self.reference.moments, every[self.kid_rows], self.seed)
        if len(self.val_rows):
            nearest = scores.nearest_distance(features, every[self.train_rows], every[self.val_rows])
            found |= {"nearest": nearest.ratio, "copied": nearest.copied}
        return found

    def of_photos(self) -> dict[str, float]:
        """What a perfect generator would score: photos in the place of samples, against the others of the reference.

        As many as there are samples, but at most half of the reference; drawn from the seed. `fid`, `kid`, `recall` and
        `coverage`; empty of a reference of fewer than 4 photos.
        """
        rows = self.reference.rows
        count = min(self.samples, len(rows) // 2)
        if count < 2:
            return {}
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]
        features = self.reference.features
        others = features[order[count:]]
        return _distances(features[order[:count]], Moments.of(others), others[:KID_IMAGES], self.seed)

    def held_out_similarities(self, model: Reconstructor) -> Tensor:
        """SSIM of each reconstruction of a held-out photo, at most `samples` of them; `val/ssim` is their mean.

        Returns:
            float64, shape (n,).

        Raises:
            MetricError: no photos were held out, or images that are not finite.
        """
        rows = self.val_rows[: self.samples]
        if not len(rows):
            prepared = "stages" in self.ready.card.get("parameters", {})  # then a run cannot divide it anew
            remedy = "Prepare the set again with a larger val_fraction." if prepared else "Raise data.val_fraction."
            raise MetricError(f"val/ssim needs held-out images, but none were held out. {remedy}")
        device = device_of(model)
        originals = torch.from_numpy(self._real(rows))
        checked = FiniteImages(model)
        with evaluating(checked), torch.autocast(device.type, enabled=False):
            parts = [
                to_uint8(checked.reconstruct(to_float(part.to(device)))).cpu()
                for part in torch.split(originals, self.batch_size)
            ]
        return similarity.ssim(torch.cat(parts), originals)

    def draw(self, model: Generator, n: int) -> Tensor:
        """Draw images from the fixed latents: uint8, shape (n, H, W, 3), on the CPU.

        Raises:
            MetricError: images that are not finite, or not of the ready set's size.
        """
        latents = draw_latents(n, model.latent_size, self.seed)
        # The check is inside, on what the model draws: rounding to uint8 would turn a NaN into an ordinary black.
        images = generate(cast(Generator, FiniteImages(model)), latents, self.batch_size)
        if images.shape[1:] != self.ready.images.shape[1:]:
            raise MetricError(
                f"The model draws {tuple(images.shape[1:])}, the real images are {self.ready.images.shape[1:]}; "
                "scores need the same size. Score against the ready set the model was trained on."
            )
        return images

    def card(self, key: str, device: torch.device | None = None) -> MetricCard:
        """The card of one of the scores, by its key in `final`.

        Args:
            key: for example `val/fid`.
            device: where the features are taken; the CPU by default.
        """
        metric = key.removeprefix("val/")
        in_pixels = metric in ("ssim", "ssim_gap")
        side = self.ready.images.shape[1]
        held_out = metric == "ssim"
        split = {"train": len(self.train_rows), "held_out": len(self.val_rows)}
        compared = {"k": scores.NEIGHBOURS, "images": scores.variety_size(self.samples, len(self.kid_rows))}
        settings: Mapping[str, Mapping[str, Any]] = {
            "recall": compared | {"method": "Kynkaanniemi et al. 2019, arXiv:1904.06991"},
            "coverage": compared | {"method": "Naeem et al. 2020, arXiv:2002.09797"},
            "kid": {"subsets": scores.KID_SUBSETS, "subset_size": min(self.samples, len(self.kid_rows))},
            "nearest": split,
            "copied": split,
            "ssim": {"window": similarity.WINDOW, "images": "held-out reconstructions"},
            "ssim_gap": {
                "window": similarity.WINDOW,
                "scales": similarity.scales(side),
                "pairs": self.samples,
                "real_pairs": min(PAIRS, self.reference.moments.size),
            },
        }
        libraries = {name: version(name) for name in ("torch", "torchmetrics")}
        return MetricCard(
            metric=metric,
            extractor="pixels" if in_pixels else self.extractor.name,
            weights_sha256="" if in_pixels else self.extractor.weights_sha256,
            resize="none" if in_pixels else self.extractor.resize,
            dtype="float32, mean float64" if in_pixels else f"{self.extractor.dtype}, moments float64",
            reference_digest=self.ready.digest if held_out else self.reference.images_digest,
            reference_size=len(self.val_rows) if held_out else self.reference.moments.size,
            samples=min(self.samples, len(self.val_rows)) if held_out else self.samples,
            seed=self.seed,
            settings=settings.get(metric, {}),
            versions=libraries | ({} if in_pixels else self.extractor.versions(device or torch.device("cpu"))),
        )

    def _reference(self, which: str, root: Path) -> Reference:
        everything = np.arange(len(self.photos))
        rows = {"all": everything, "train": self.train_rows, "val": self.val_rows}
        if which not in rows:
            raise MetricError(f"A reference is all, train or val; got {which!r}. Set metrics.reference.")
        if len(rows[which]) < 2:
            # Only what would help: all of the photos may be too few as well.
            other = ", or set metrics.reference=all" if len(everything) >= 2 else ""
            raise MetricError(
                f"Scores need at least 2 real images in the reference ({which}); there are {len(rows[which])}. "
                f"Add photos{other}."
            )
        return reference_statistics(
            self.ready.images, self.ready.digest, rows[which], self.extractor, root, self.batch_size, self.photos
        )

    def _prepare(self, device: torch.device) -> None:
        """Move the extractor to a device, and check it there before it is first trusted.

        FID(x, x) must be 0, with one x from the cache and the other extracted now.

        Raises:
            MetricError: it is not: the extractor is not the one of the cached statistics, or not deterministic.
        """
        self.extractor.to(device)
        if device in self.checked_devices:
            return
        rows = self.reference.rows[:SELF_CHECK_IMAGES].numpy()
        cached = Moments.of(self.reference.features[rows])
        images = torch.from_numpy(self._real(rows))
        distance = float(scores.frechet_distance(self.extractor(images.to(device)).cpu(), cached))
        total = float(cached.trace)
        if not abs(distance) <= SELF_CHECK_BOUND * total + 1e-6:
            raise MetricError(
                f"The extractor {self.extractor.name} must give the same features for the same images, so that "
                f"FID(x, x) = 0; it gives {distance:.4g} (total variance {total:.4g}). Delete the folder of reference "
                f"statistics ({self.cache_root}), or use metrics.extractor.backend=torch."
            )
        self.checked_devices.add(device)

    def _features(self, images: Tensor, device: torch.device) -> Tensor:
        self._prepare(device)
        return torch.cat([self.extractor(part.to(device)).cpu() for part in torch.split(images, self.batch_size)])

    def _real(self, rows: np.ndarray) -> np.ndarray:
        """Photos by their rows: uint8, (n, H, W, 3), a copy that may be written to."""
        return np.array(self.ready.images[self.photos[rows]])

    def _kernel_distance(self, features: Tensor) -> float:
        return scores.kernel_distance(features, self.reference.features[self.kid_rows], self.seed)

    def _kid_rows(self) -> Tensor:
        chosen = np.random.default_rng(self.seed).permutation(len(self.reference.rows))[:KID_IMAGES]
        return self.reference.rows[np.sort(chosen)]


def _distances(features: Tensor, moments: Moments, others: Tensor, seed: int) -> dict[str, float]:
    """What a set of images scores against another by the distances between them.

    Args:
        features: of the images.
        moments: of the real images.
        others: features of the real images, or of those that are compared one by one.
        seed: of the draws.
    """
    fid = scores.FID(moments)
    fid.update(features, real=False)
    variety = scores.variety(features, others, seed)
    return {
        "fid": float(fid.compute()),
        "kid": scores.kernel_distance(features, others, seed),
        "recall": variety.recall,
        "coverage": variety.coverage,
    }


def _compares(model: Generator, held_out: np.ndarray) -> TypeGuard[Reconstructor]:
    """Whether there are held-out photos to compare with their reconstructions."""
    return isinstance(model, Reconstructor) and len(held_out) > 0
