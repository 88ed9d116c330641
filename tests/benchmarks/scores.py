"""Prints what the scores cost, as a table: `python tests/benchmarks/scores.py` (part of `make bench`).

Every pair of numbers is from this one run, with the same weights, images and threads. Images are demo cats.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from catsweep.metrics.distances import CachedFID, GivenFeatures, kernel_distance

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from catsweep.metrics.distances import Moments
from catsweep.metrics.extractors import EfficientNetLite0, Extractor
from catsweep.synthetic.renderer import render

SAMPLES, REALS, SIDE, ROUNDS = 512, 1400, 64, 2
BATCH = 64


def fastest(*works: Callable[[], object]) -> list[float]:
    """Least seconds of each over some rounds, taken in turn so that a disturbance meets all of them."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, taken in zip(works, times, strict=True):
            taken.append(seconds(work))
    return [min(taken) for taken in times]


def extract(extractor: Extractor, images: Tensor) -> Tensor:
    return torch.cat([extractor(part) for part in images.split(BATCH)])


def torchmetrics_fid(real: Tensor, num_features: int) -> FrechetInceptionDistance:
    metric = FrechetInceptionDistance(feature=GivenFeatures(num_features), reset_real_features=False)
    metric.update(real, real=True)
    return metric


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(what: str, ours: str, theirs: str, ratio: float) -> None:
    print(f"| {what} | {ours} | {theirs} | {ratio:.1f}x |", flush=True)


def main() -> None:
    images = torch.from_numpy(render(REALS + SAMPLES, SIDE, seed=0).images)
    real_images, samples = images[:REALS], images[REALS:]
    with tempfile.TemporaryDirectory() as cache:
        onnx, plain = EfficientNetLite0(backend="onnx", cache_root=cache), EfficientNetLite0(backend="torch")
        probe = samples[:BATCH]
        difference = float((onnx(probe) - plain(probe)).norm() / plain(probe).norm())  # also warms both up
        real = extract(onnx, real_images)

    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {version('torch')}, ", end="")
    print(f"onnxruntime {version('onnxruntime')}, torchmetrics {version('torchmetrics')}; {SIDE}x{SIDE} images\n")
    print("| | catsweep | torch / torchmetrics, same weights | ratio |\n| --- | ---: | ---: | ---: |")

    ours, theirs = fastest(lambda: onnx(probe), lambda: plain(probe))
    row("efficientnet_lite0, images/s", f"{BATCH / ours:.0f}", f"{BATCH / theirs:.0f}", theirs / ours)

    reference, features = Moments.of(real), extract(onnx, samples)
    small, large = CachedFID(reference), torchmetrics_fid(real.double(), onnx.num_features)
    small.update(features, real=False)
    large.update(features.double(), real=False)
    found: list[Tensor] = []
    expected: list[Tensor] = []
    # By the unbound functions, since an instance's `compute` keeps its result.
    ours, theirs = fastest(
        lambda: found.append(CachedFID.compute(small)), lambda: expected.append(FrechetInceptionDistance.compute(large))
    )
    row(f"FID of {SAMPLES} samples from features, s", f"{ours:.2f}", f"{theirs:.2f}", theirs / ours)

    small.reset()
    large.reset()
    ours = seconds(lambda: (small.update(extract(onnx, samples), real=False), small.compute()))
    theirs = seconds(lambda: (large.update(extract(plain, samples).double(), real=False), large.compute()))
    row(f"FID of {SAMPLES} samples from images, reals cached, s", f"{ours:.2f}", f"{theirs:.2f}", theirs / ours)

    (rung,) = fastest(lambda: kernel_distance(extract(onnx, samples[:256]), real, seed=0))
    print(f"\nThe rung score (KID of 256 samples, from images) takes {rung:.2f} s.")
    print(f"Features differ by {difference:.1e}; FID {float(found[0]):.8g} against {float(expected[0]):.8g}.")


if __name__ == "__main__":
    main()
