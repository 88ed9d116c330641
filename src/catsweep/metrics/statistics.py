"""Reference statistics: what the scores need to know of the real images, computed once and cached.

They are a file in `data/statistics/`, keyed by content (which pixels, which rows, which extractor, which resize and
precision), so nothing in it can go stale.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from catsweep.heartbeat import every_minute
from catsweep.metrics.distances import Moments, pair_similarity, scales
from catsweep.metrics.extractors import Extractor, device_of
from steady.atomic import write_bytes

log = logging.getLogger(__name__)

FORMAT = 1  # raise when the meaning of the file changes
PAIRS = 1024  # real pairs whose similarity is averaged; the standard error is then about 0.002
PAIR_SEED = 0


@dataclass(frozen=True)
class Reference:
    """Statistics of the real images."""

    moments: Moments  # of the features of the reference rows
    features: Tensor  # float32, shape (N, D), of every photo of the ready set, in its order; not of copies
    rows: Tensor  # int64, the reference rows of `features`
    similarity: float  # mean MS-SSIM of random pairs of reference images
    images_digest: str  # hexadecimal; identifies the reference images, not how they were measured


def reference_statistics(
    images: np.ndarray,
    digest: str,
    rows: np.ndarray,
    extractor: Extractor,
    root: Path,
    batch_size: int = 64,
    photos: np.ndarray | None = None,
) -> Reference:
    """Load the statistics of real images, or compute and cache them.

    Safe for any number of processes at once: one computes, the others wait. A damaged file is computed again.

    >>> import tempfile
    >>> network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> means = Extractor(network, name="means", num_features=3, weights_sha256="", size=16, resize="", backend="torch")
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = reference_statistics(images, "digest", np.arange(3), means, Path(folder))
    >>> found.features.shape, found.moments.size
    (torch.Size([4, 3]), 3)

    Args:
        images: uint8, shape (N, H, W, 3): the ready set.
        digest: of the ready set.
        rows: integers, which of the photos are the reference.
        extractor: on its device.
        root: folder of the cache; made when missing.
        batch_size: images read at once.
        photos: ascending integers, which of the images are photos and no copies made of them; None: all.
    """
    photos = np.arange(len(images)) if photos is None else photos
    images_digest = _images_digest(digest, photos[rows])
    # Which are photos is said only if not all are: what was computed before there were copies stays good.
    of = None if len(photos) == len(images) else _images_digest(digest, photos)
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{_key(images_digest, extractor, images.shape[1], of)[:32]}.safetensors"
    if (tensors := _read(path)) is None:
        with FileLock(f"{path}.lock"):
            if (tensors := _read(path)) is None:  # someone else may have written it while we waited
                tensors = _compute(images, photos, rows, extractor, batch_size)
                write_bytes(path, save(tensors, {"sha256": _checksum(tensors)}))
    moments = Moments(len(tensors["rows"]), tensors["mean"], tensors["covariance"], tensors["root"])
    return Reference(moments, tensors["features"], tensors["rows"], float(tensors["similarity"]), images_digest)


def _images_digest(digest: str, rows: np.ndarray) -> str:
    return hashlib.sha256(digest.encode() + np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()


def _key(images_digest: str, extractor: Extractor, side: int, photos: str | None) -> str:
    content: dict[str, Any] = {
        "format": FORMAT,
        "images": images_digest,
        "extractor": extractor.name,
        "weights": extractor.weights_sha256,
        "resize": extractor.resize,
        "dtype": extractor.dtype,
        "versions": extractor.versions(device_of(extractor)),
        "pairs": [PAIRS, PAIR_SEED, scales(side)],
    }
    if photos is not None:
        content["photos"] = photos
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _compute(
    images: np.ndarray, photos: np.ndarray, rows: np.ndarray, extractor: Extractor, batch_size: int
) -> dict[str, Tensor]:
    device, parts = device_of(extractor), []
    starts = range(0, len(photos), batch_size)
    for start in every_minute(starts, log, f"%s batches of {batch_size} photos looked at so far"):
        batch = torch.from_numpy(np.array(images[photos[start : start + batch_size]]))  # a copy: the map is read-only
        parts.append(extractor(batch.to(device)).cpu())
    features = torch.cat(parts)
    moments = Moments.of(features[rows])
    chosen = rows[np.random.default_rng(PAIR_SEED).permutation(len(rows))[:PAIRS]]
    similarity = pair_similarity(torch.from_numpy(np.array(images[photos[np.sort(chosen)]])), PAIRS, PAIR_SEED)
    return {
        "features": features,
        "rows": torch.from_numpy(np.asarray(rows, dtype=np.int64).copy()),
        "mean": moments.mean,
        "covariance": moments.covariance,
        "root": moments.root,
        "similarity": torch.tensor(similarity, dtype=torch.float64),
    }


def _read(path: Path) -> dict[str, Tensor] | None:
    """Read the file; None if there is none, or it is damaged."""
    try:
        content = path.read_bytes()
        tensors: dict[str, Tensor] = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        intact = header["__metadata__"]["sha256"] == _checksum(tensors)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return tensors if intact else None


def _checksum(tensors: dict[str, Tensor]) -> str:
    """Digest of every name and value: safetensors notices a short file, not a flipped bit."""
    checksum = hashlib.sha256()
    for name in sorted(tensors):
        checksum.update(name.encode())
        checksum.update(tensors[name].contiguous().numpy().tobytes())
    return checksum.hexdigest()
