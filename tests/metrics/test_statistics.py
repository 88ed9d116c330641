"""The cache of reference statistics: keyed by content, computed once, never believed when damaged."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from catsweep.errors import MetricError
from catsweep.metrics import extractors
from catsweep.metrics.distances import Moments, pair_similarity
from catsweep.metrics.statistics import Reference, reference_statistics


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(1, 30), seed=st.integers(0, 1000), offset=st.floats(-100, 100))
def test_moments(n: int, d: int, seed: int, offset: float) -> None:
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + offset
    moments = Moments.of(features)
    values = features.double().numpy()
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values, rowvar=False).reshape(d, d), atol=1e-10)
    np.testing.assert_allclose(moments.root @ moments.root, moments.covariance, atol=1e-9)
    np.testing.assert_allclose(moments.root, moments.root.T, atol=1e-9)
    assert moments.size == n
    assert moments.mean.dtype == moments.covariance.dtype == moments.root.dtype == torch.float64


def test_moments_need_two_images() -> None:
    with pytest.raises(MetricError, match="at least 2 real images; got 1"):
        Moments.of(torch.zeros(1, 3))


ROWS = np.arange(4, 20)


def take(extractor: Any, root: Path, images: np.ndarray, **changes: Any) -> Reference:
    arguments = {"digest": "d", "rows": ROWS} | changes
    return reference_statistics(images, arguments["digest"], arguments["rows"], extractor, root, batch_size=7)


def test_what_is_kept(tmp_path: Path, tiny_extractor: Callable[..., Any], images: Callable[..., np.ndarray]) -> None:
    real, extractor = images(24, seed=0), tiny_extractor()
    for _ in range(2):  # computed, then read
        kept = take(extractor, tmp_path, real)
        features = tiny_extractor()(torch.from_numpy(real))
        torch.testing.assert_close(kept.features, features)
        assert kept.rows.tolist() == ROWS.tolist()
        torch.testing.assert_close(kept.moments.mean, features[ROWS].double().mean(0))
        assert kept.moments.size == len(ROWS)
        expected = pair_similarity(torch.from_numpy(real[ROWS]), 16, 5)
        assert kept.similarity == pytest.approx(expected, abs=0.1)  # the same pictures, another cycle through them
    assert extractor.seen == 24
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == [".safetensors"]


def test_a_read_only_memory_map_is_enough(
    tmp_path: Path, tiny_extractor: Callable[..., Any], images: Callable[..., np.ndarray]
) -> None:
    np.save(tmp_path / "images.npy", images(24, seed=0))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert len(take(tiny_extractor(), tmp_path, mapped).features) == 24


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        ({}, {"digest": "e"}),
        ({}, {"rows": ROWS[:-1]}),
        ({"name": "other"}, {}),
        ({"weights_sha256": "01"}, {}),
        ({"resize": "nearest"}, {}),
        ({"backend": "auto"}, {}),
    ],
    ids=["pixels", "rows", "extractor", "weights", "resize", "library"],
)
def test_other_content_has_another_key(
    tmp_path: Path,
    tiny_extractor: Callable[..., Any],
    images: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, str],
    changes: dict[str, Any],
) -> None:
    take(tiny_extractor(), tmp_path, images(24, seed=0))
    other = tiny_extractor(**facts)
    # `auto` would export the network, which takes seconds.
    session = SimpleNamespace(run=lambda _, feed: [other.network(torch.from_numpy(feed["images"])).numpy()])
    monkeypatch.setattr(extractors, "export_onnx", lambda *_: b"")
    monkeypatch.setattr(extractors, "open_graph", lambda *_: session)
    take(other, tmp_path, images(24, seed=0), **changes)
    assert other.seen == 24
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_another_precision_has_another_key(
    tmp_path: Path, tiny_extractor: Callable[..., Any], images: Callable[..., np.ndarray]
) -> None:
    take(tiny_extractor(), tmp_path, images(24, seed=0))
    other = tiny_extractor()
    other.dtype = "bfloat16"
    take(other, tmp_path, images(24, seed=0))
    assert other.seen == 24


def flip_a_bit(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 16]) + content[-8:]


@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[:100], lambda c: c[:-1], flip_a_bit, lambda c: b"\xff" * len(c), lambda c: c + b"x"],
    ids=["empty", "header only", "a byte short", "a bit flipped", "noise", "a byte long"],
)
def test_a_damaged_file_is_computed_again(
    tmp_path: Path,
    tiny_extractor: Callable[..., Any],
    images: Callable[..., np.ndarray],
    damage: Callable[[bytes], bytes],
) -> None:
    expected = take(tiny_extractor(), tmp_path, images(24, seed=0))
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    extractor = tiny_extractor()
    again = take(extractor, tmp_path, images(24, seed=0))
    assert extractor.seen == 24
    torch.testing.assert_close(again.moments.root, expected.moments.root)
    third = tiny_extractor()
    take(third, tmp_path, images(24, seed=0))
    assert third.seen == 0
    assert len(load_file(path)) == 6


def _one_of_eight(root: Path, extractor: Any, images: np.ndarray, start: Any, results: Any) -> None:
    start.wait()
    kept = take(extractor, root, images)
    results.put((extractor.seen, float(kept.moments.covariance.sum())))


# Trials are forked from a parent that has imported torch; from Python 3.12 on that warns.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_eight_processes_at_once_compute_once(
    tmp_path: Path, tiny_extractor: Callable[..., Any], images: Callable[..., np.ndarray]
) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(8), context.Queue()
    arguments = (tmp_path, tiny_extractor(), images(24, seed=0), start, results)
    processes = [context.Process(target=_one_of_eight, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(seen for seen, _ in outcomes) == [0] * 7 + [24]
    assert len({total for _, total in outcomes}) == 1


def test_copies_of_photos_are_neither_measured_nor_counted(
    tmp_path: Path, tiny_extractor: Callable[..., Any], images: Callable[..., np.ndarray]
) -> None:
    photos = np.array([0, 1, 5, 9, 12, 13, 20, 22])
    real, rows, extractor = images(24, seed=0), np.array([1, 3, 4, 7]), tiny_extractor()
    kept = reference_statistics(real, "d", rows, extractor, tmp_path, batch_size=3, photos=photos)
    alone = reference_statistics(real[photos], "other", rows, tiny_extractor(), tmp_path, batch_size=3)
    assert extractor.seen == len(photos)
    torch.testing.assert_close(kept.features, alone.features)
    torch.testing.assert_close(kept.moments.root, alone.moments.root)
    assert kept.similarity == alone.similarity
    assert kept.rows.tolist() == rows.tolist()


def test_which_images_are_photos_is_part_of_the_key_but_only_if_not_all_are(
    tmp_path: Path, tiny_extractor: Callable[..., Any], images: Callable[..., np.ndarray]
) -> None:
    real, everything = images(24, seed=0), np.arange(24)
    for photos, seen in (
        (None, 24),
        (everything, 0),
        (everything[:20], 20),
        (np.delete(everything, 21), 23),  # with the same reference rows
    ):
        extractor = tiny_extractor()
        reference_statistics(real, "d", ROWS, extractor, tmp_path, photos=photos)
        assert extractor.seen == seen
