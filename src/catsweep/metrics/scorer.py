"""The scorer: which images are scored against which, how many, and from which seed; and its Lightning callback.

`catsweep.training` builds one from `conf/metrics/`. Everything about a score that is a choice is an argument here or of
the score, and an entry on its card.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from catsweep.devices import cuda_in_use
from catsweep.errors import DivergedError, MetricError
from catsweep.images import to_float
from catsweep.metrics import distances
from catsweep.metrics.distances import Moments
from catsweep.metrics.extractors import Extractor, device_of
from catsweep.metrics.scores import DEFAULT, SCORES, MetricCard, ReconstructionScore, Score, score
from catsweep.metrics.statistics import Reference, reference_statistics
from catsweep.models.generator import Generator, Reconstructor, draw_latents, generate

if TYPE_CHECKING:
    from catsweep.data.ready import ReadySet

SELF_CHECK_IMAGES = 16
KID_IMAGES = 10_000  # real images KID's subsets are drawn from, at most: their features are copied in float64
SELF_CHECK_BOUND = 1e-3  # share of the total variance; fp32 features computed twice stay below 1e-6 of it


@dataclass(frozen=True)
class Drawn:
    """Drawn images, and the real ones that scores compare them with. D is the number of features."""

    images: Tensor  # uint8, shape (n, H, W, 3), on the CPU; empty where only features are compared
    features: Tensor  # float, shape (n, D); empty where only pixels are compared
    moments: Moments  # of the features of the real images
    reals: Tensor  # float, shape (m, D), features of the real images that are compared one by one
    train: Tensor  # float, shape (t, D), features of the training images
    held_out: Tensor  # float, shape (h, D), features of photos that were not trained on
    similarity: float  # mean MS-SSIM of random pairs of real images
    seed: int  # of every draw

    @cached_property
    def diversity(self) -> distances.Diversity:
        """Recall and coverage."""
        return distances.diversity(self.features, self.reals, self.seed)

    @cached_property
    def nearest(self) -> distances.NearestDistance:
        """Distances to the nearest training images."""
        return distances.nearest_distance(self.features, self.train, self.held_out)


class Scorer:
    """Scores generators against one ready set, without a change of the global random state.

    Building one loads (or computes) the reference statistics and checks the extractor, before training starts.

    Args:
        extractor: the feature network; it follows each model to its device.
        ready: the real images.
        cache_root: folder of the reference statistics.
        samples: images drawn for the final scores.
        rung_samples: images drawn for the rung scores, at most `samples`.
        seed: of the latents and of every other draw.
        reference: which real images generated ones are compared with.
        batch_size: images drawn or read at once.
        scores: by any name; null takes one out. None, as of runs from before there was a choice: `DEFAULT`.

    Raises:
        MetricError: too few images or samples, no rung score, or an extractor that does not reproduce itself.
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
        scores: Mapping[str, Score | None] | None = None,
    ) -> None:
        if not 2 <= rung_samples <= samples:
            raise MetricError(
                f"Scores need 2 <= rung_samples <= samples; got rung_samples={rung_samples}, samples={samples}. "
                "Set metrics.rung_samples and metrics.samples."
            )
        chosen = [SCORES[name] for name in DEFAULT] if scores is None else scores.values()
        self.scores = [one for one in chosen if one is not None]
        self.extractor, self.ready, self.batch_size = extractor, ready, batch_size
        self.samples, self.rung_samples, self.seed = samples, rung_samples, seed
        # The photos themselves are what scores compare with; copies of them would only count some photos more often.
        # All rows here, and those of the features, count these photos.
        self.photos = ready.originals()
        self.train_rows, self.val_rows = (
            np.flatnonzero(np.isin(self.photos, ready.indices(split))) for split in ("train", "val")
        )
        self.cache_root = Path(cache_root)
        self.reference = self._reference(reference)
        self.kid_rows = self._kid_rows()
        self.checked_devices: set[torch.device] = set()
        self._prepare(device_of(extractor))

    def reseeded(self, seed: int) -> "Scorer":
        """Copy the scorer with another seed; reference statistics and extractor are shared, nothing is read."""
        other = copy.copy(self)
        other.seed = seed
        other.kid_rows = other._kid_rows()
        return other

    def rung(self, model: Generator) -> dict[str, float]:
        """Take the cheap scores that checkpoints, early stopping and pruners go by, on few samples, by key."""
        taken = self._taken(model, self.rung_samples, [one for one in self.scores if one.at_rungs])
        return {one.key: value for one, value in taken.items()}

    def rung_names(self) -> list[str]:
        """List the keys of the scores that `rung` gives; training goes by the first. A MetricError if there is none."""
        names = [one.key for one in self.scores if one.at_rungs]
        if not names:
            raise MetricError(
                "Training needs a score that checkpoints go by, such as "
                f"{', '.join(name for name, one in SCORES.items() if one.at_rungs)}; metrics.scores has none."
            )
        return names

    def names(self, model: Generator) -> list[str]:
        """List the keys of the scores that `final` gives for this model, without drawing."""
        possible = [one for one in self.scores if len(self.val_rows) or not one.held_out]
        reconstructs = isinstance(model, Reconstructor)
        return [one.key for one in possible if reconstructs or not isinstance(one, ReconstructionScore)]

    def final(self, model: Generator) -> tuple[dict[str, float], dict[str, MetricCard]]:
        """Take all scores at the full number of samples, with their cards, by key.

        Scores that need held-out photos are left out without any; those of reconstructions also of models that do not
        reconstruct.

        Raises:
            MetricError: images or features that are not finite.
        """
        values = self.drawn(model)
        if isinstance(model, Reconstructor) and len(self.val_rows):
            values |= {key: float(each.mean()) for key, each in self.of_reconstructions(model).items()}
        device = device_of(model)
        return values, {key: self.card(key, device) for key in values}

    def drawn(self, model: Generator) -> dict[str, float]:
        """Take those of the final scores that depend on the latents, by key."""
        wanted = [one for one in self.available() if not isinstance(one, ReconstructionScore)]
        return {one.key: value for one, value in self._taken(model, self.samples, wanted).items()}

    def in_features(self, model: Generator) -> dict[str, float]:
        """Take the scores in the extractor's features, by name."""
        wanted = [one for one in self.available() if one.in_features]
        return {one.name: value for one, value in self._taken(model, self.samples, wanted).items()}

    def of_photos(self) -> dict[str, float]:
        """Score photos in the place of samples, against the others of the reference: what a perfect generator scores.

        As many as there are samples, at most half of the reference. By name, the scores in features that need no
        held-out photos; empty of a reference of fewer than 4 photos.
        """
        rows = self.reference.rows
        count = min(self.samples, len(rows) // 2)
        if count < 2:
            return {}
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]
        photos, others = self.reference.features[order[:count]], self.reference.features[order[count:]]
        none = photos[:0]
        drawn = Drawn(none, photos, Moments.of(others), others[:KID_IMAGES], none, none, 0.0, self.seed)
        return {one.name: one.measure(drawn) for one in self.scores if one.in_features and not one.held_out}

    def of_reconstructions(self, model: Reconstructor) -> dict[str, Tensor]:
        """Score each reconstruction of a held-out photo, at most `samples`: float64 (n,) by key.

        Raises:
            MetricError: no photos were held out, or images that are not finite.
        """
        wanted = [one for one in self.scores if isinstance(one, ReconstructionScore)]
        rows = self.val_rows[: self.samples]
        if not wanted:
            return {}
        if not len(rows):
            prepared = "stages" in self.ready.card.get("parameters", {})  # then a run cannot divide it anew
            remedy = "Prepare the set again with a larger val_fraction." if prepared else "Raise data.val_fraction."
            raise MetricError(f"{wanted[0].key} needs held-out images, but none were held out. {remedy}")
        originals = self._real(rows)
        reconstructor = FiniteImages(model, lambda part: model.reconstruct(to_float(part)))
        images = generate(cast(Generator, reconstructor), originals, self.batch_size)
        return {one.key: one.each(images, originals) for one in wanted}

    def draw(self, model: Generator, n: int) -> Tensor:
        """Draw images from the fixed latents: uint8, shape (n, H, W, 3), on the CPU.

        Raises:
            MetricError: images that are not finite, or not of the ready set's size.
        """
        latents = draw_latents(n, model.latent_size, self.seed)
        images = generate(cast(Generator, FiniteImages(model, model.decode)), latents, self.batch_size)
        if images.shape[1:] != self.ready.images.shape[1:]:
            raise MetricError(
                f"The model draws {tuple(images.shape[1:])}, the real images are {self.ready.images.shape[1:]}; "
                "scores need the same size. Score against the ready set the model was trained on."
            )
        return images

    def card(self, key: str, device: torch.device | None = None) -> MetricCard:
        """Describe how a score, `fid` or `val/fid`, is measured with features taken on a device, by default the CPU."""
        known = next((one for one in self.scores if key in (one.key, one.name)), score(key))
        return known.card(self, device or torch.device("cpu"))

    def available(self) -> list[Score]:
        """List the scores that the held-out photos allow."""
        return [one for one in self.scores if len(self.val_rows) or not one.held_out]

    def _taken(self, model: Generator, n: int, wanted: list[Score]) -> dict[Score, float]:
        images, device = self.draw(model, n), device_of(model)
        self._prepare(device)
        features = torch.cat([self.extractor(part.to(device)).cpu() for part in torch.split(images, self.batch_size)])
        real, every = self.reference, self.reference.features
        reals, train, held_out = every[self.kid_rows], every[self.train_rows], every[self.val_rows]
        drawn = Drawn(images, features, real.moments, reals, train, held_out, real.similarity, self.seed)
        return {one: one.measure(drawn) for one in wanted}

    def _reference(self, which: str) -> Reference:
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
        digest, root = self.ready.digest, self.cache_root
        return reference_statistics(
            self.ready.images, digest, rows[which], self.extractor, root, self.batch_size, self.photos
        )

    def _prepare(self, device: torch.device) -> None:
        """Move the extractor to a device, and check it before first use: FID of cached and new features must be 0."""
        self.extractor.to(device)
        if device in self.checked_devices:
            return
        rows = self.reference.rows[:SELF_CHECK_IMAGES].numpy()
        cached = Moments.of(self.reference.features[rows])
        again = self.extractor(self._real(rows).to(device)).cpu()
        distance = float(distances.frechet_distance(again, cached))
        total = float(cached.trace)
        if not abs(distance) <= SELF_CHECK_BOUND * total + 1e-6:
            raise MetricError(
                f"The extractor {self.extractor.name} must give the same features for the same images, so that "
                f"FID(x, x) = 0; it gives {distance:.4g} (total variance {total:.4g}). Delete the folder of reference "
                f"statistics ({self.cache_root}), or use metrics.extractor.backend=torch."
            )
        self.checked_devices.add(device)

    def _real(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(self.ready.images[self.photos[rows]]))  # a copy: the map is read-only

    def _kid_rows(self) -> Tensor:
        chosen = np.random.default_rng(self.seed).permutation(len(self.reference.rows))[:KID_IMAGES]
        return self.reference.rows[np.sort(chosen)]


class ScoreCallback(Callback):
    """Logs the rung scores at the end of each validation.

    Random state, modes and gradients are what they were. Under DDP rank 0 scores and tells the others. ModelCheckpoint
    and EarlyStopping read what was logged in `on_validation_end`, which comes later.

    Args:
        scorer: takes the scores.
        every: epochs between two scores; the last epoch is always scored. Only epochs with a validation count.
    """

    def __init__(self, scorer: Scorer, every: int = 1) -> None:
        if every < 1:
            raise MetricError(f"Scores are taken every n epochs, n at least 1; got {every}.")
        self.scorer, self.every = scorer, every
        self.scored_at: int | None = None  # the trainer's global step

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score and log; a MetricError is raised on every rank, so that none waits for another."""
        epoch = trainer.current_epoch + 1
        if trainer.sanity_checking or (epoch % self.every and epoch != trainer.max_epochs):
            return
        outcome: tuple[dict[str, float], MetricError | None] = ({}, None)
        if trainer.is_global_zero:
            with isolate_rng(include_cuda=cuda_in_use()):
                try:
                    outcome = self.scorer.rung(cast(Any, pl_module)), None  # Lightning's type knows no latents
                except MetricError as error:
                    outcome = {}, error
        values, failure = trainer.strategy.broadcast(outcome, src=0)
        self.scored_at = trainer.global_step
        if failure is not None:
            raise failure
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)


class ImagesNotFinite(MetricError, DivergedError):
    """Images of a model whose training has diverged; other metric errors say nothing of the model."""


class FiniteImages(nn.Module):
    """A generator whose images must be finite: as uint8 a NaN would be an ordinary black pixel.

    `draw` of the model maps latents, or photos to reconstruct, to images.
    """

    def __init__(self, model: Any, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model  # a submodule if it is a module: its modes and device are then seen through this one
        self.draw = draw

    def decode(self, inputs: Tensor) -> Tensor:
        """Draw; raises `ImagesNotFinite`."""
        images = self.draw(inputs)
        if not torch.isfinite(images).all():
            raise ImagesNotFinite(
                "The model draws images that are not finite, so there is nothing to score: the training has diverged. "
                "Lower the learning rate, or train with trainer.precision=32-true."
            )
        return images
