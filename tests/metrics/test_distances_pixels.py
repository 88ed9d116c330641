"""SSIM and MS-SSIM on stored images, at every size that is trained."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure, StructuralSimilarityIndexMeasure

from catsweep.errors import MetricError
from catsweep.images import to_float
from catsweep.metrics import distances


def noise(n: int, side: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, side, side, 3), generator=generator, dtype=torch.uint8)


def test_ssim_is_torchmetrics(images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BATCH", 3)
    originals = torch.from_numpy(images(10, seed=0, side=32))
    others = (originals.float() * 0.8 + noise(10, 32, 1) * 0.2).byte()
    expected = StructuralSimilarityIndexMeasure(data_range=1.0)(to_float(others), to_float(originals))
    each = distances.ssim(others, originals)
    assert float(each.mean()) == pytest.approx(float(expected), abs=1e-6)
    assert distances.ssim(originals, originals).tolist() == pytest.approx([1] * 10)
    assert each.tolist() == pytest.approx(
        [distances.ssim(a[None], b[None]).item() for a, b in zip(others, originals, strict=True)]
    )


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (16, 1), (22, 2), (32, 2), (44, 3), (64, 3), (128, 4), (176, 5), (512, 5)]
)
def test_scales_that_fit(side: int, scales: int) -> None:
    assert distances.scales(side) == scales


@pytest.mark.parametrize("side", [11, 32, 48, 64, 128])
def test_ms_ssim_works_at_every_size(side: int) -> None:
    images = noise(2, side, 0)
    assert distances.ms_ssim(images, images) == pytest.approx(1)
    # Opposite images have negative contrast terms, whose fractional powers are NaN unless they are cut off.
    assert 0 <= distances.ms_ssim(images, 255 - images) < 0.2


def test_ms_ssim_is_torchmetrics(images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BATCH", 4)
    first, second = (torch.from_numpy(images(6, seed=seed, side=64)) for seed in (0, 1))
    weights = torch.tensor([0.0448, 0.2856, 0.3001])
    metric = MultiScaleStructuralSimilarityIndexMeasure(
        data_range=1.0, betas=tuple((weights / weights.sum()).tolist()), normalize="relu"
    )
    expected = float(metric(to_float(first), to_float(second)))
    assert distances.ms_ssim(first, second) == pytest.approx(expected, abs=1e-6)


def test_a_similarity_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Tensor, **__: object) -> Tensor:
        return torch.tensor([0.5, float("nan")])

    monkeypatch.setattr(distances, "structural_similarity_index_measure", broken)
    with pytest.raises(MetricError, match="not finite"):
        distances.ssim(noise(2, 16, 0), noise(2, 16, 1))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 30), pairs=st.integers(1, 40), seed=st.integers(0, 1000))
def test_no_image_is_paired_with_itself(n: int, pairs: int, seed: int) -> None:
    calls = []

    def record(first: Tensor, second: Tensor) -> float:
        calls.append((first.flatten().tolist(), second.flatten().tolist()))
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "ms_ssim", record)
        distances.pair_similarity(torch.arange(n), pairs, seed)
        distances.pair_similarity(torch.arange(n), pairs, seed)
    first, second = calls[0]
    assert calls[0] == calls[1]
    assert len(first) == min(n, pairs)
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert len(set(first)) == len(first)


def test_a_collapsed_set_is_more_alike(images: Callable[..., np.ndarray]) -> None:
    varied = torch.from_numpy(images(12, seed=0, side=32))
    collapsed = varied[:1].repeat(12, 1, 1, 1)
    assert distances.pair_similarity(collapsed, 12, 0) == pytest.approx(1)
    assert distances.pair_similarity(varied, 12, 0) < 0.9


@pytest.mark.parametrize(
    "call",
    [
        lambda: distances.ssim(noise(2, 16, 0), noise(3, 16, 0)),
        lambda: distances.ssim(noise(2, 16, 0).float(), noise(2, 16, 0).float()),
        lambda: distances.ms_ssim(noise(0, 16, 0), noise(0, 16, 0)),
        lambda: distances.scales(10),
        lambda: distances.pair_similarity(noise(1, 16, 0), 4, 0),
    ],
    ids=["other shapes", "floats", "no images", "too small", "no pair"],
)
def test_what_cannot_be_compared_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(MetricError):
        call()
