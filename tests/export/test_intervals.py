"""Intervals: how often they hold what they promise to hold, counted; and what happens where there is no spread."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catsweep.errors import ExportError
from catsweep.export import intervals
from catsweep.export.intervals import Interval, fresh_seeds, limits_of_count, measure, of_draws, of_photos
from catsweep.images import to_float
from catsweep.metrics.extractors import Extractor
from catsweep.metrics.scorer import Scorer

SAMPLES = 40


class Ready:
    """24 photos of noise, the last 8 held out."""

    digest = "digest"
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)

    def indices(self, split: str) -> np.ndarray:
        return {"train": np.arange(16), "val": np.arange(16, 24)}[split]

    def originals(self) -> np.ndarray:
        return np.arange(24)


class Painter:
    """No module, as an ONNX file is none. Paints what the latents say, and a training photo if the first is above 1."""

    latent_size, image_size = 3, 16

    def decode(self, latents: Tensor) -> Tensor:
        waves = torch.linspace(0, 3, 16).outer(torch.linspace(1, 2, 16))
        photo = to_float(torch.from_numpy(Ready.images[:1]))
        return torch.where(latents[:, :1, None, None] > 1, photo, (latents[:, :, None, None] + waves).sigmoid())


class Redrawer(Painter):
    """Reconstructs as well, each photo darker than the one before."""

    def reconstruct(self, images: Tensor) -> Tensor:
        return images * torch.linspace(1, 0.3, len(images))[:, None, None, None]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    facts = {"name": "means", "weights_sha256": "00", "resize": "none", "backend": "torch"}
    extractor = Extractor(network, num_features=12, size=16, **facts)  # type: ignore[arg-type]
    return Scorer(extractor, Ready(), tmp_path_factory.mktemp("statistics"), SAMPLES, rung_samples=20)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pool(scorer: Scorer) -> list[dict[str, float]]:
    """The scores of 80 draws."""
    return [scorer.reseeded(seed).drawn(Painter()) for seed in range(1000, 1080)]


def coverage(score: str, draw: Callable[[np.random.Generator, int], np.ndarray], k: int, times: int = 2500) -> float:
    """How often the interval of k draws holds the next one."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(times):
        *scores, following = draw(rng, k + 1).tolist()
        interval = of_draws(score, scores, SAMPLES)
        held += interval.low <= following <= interval.high
    return held / times


@pytest.mark.parametrize("k", [2, 8])
def test_the_next_of_normal_scores_is_inside_19_times_in_20(k: int) -> None:
    assert coverage("val/fid", lambda rng, n: rng.normal(200, 3, n), k) == pytest.approx(0.95, abs=0.013)


@pytest.mark.parametrize("mean", [0, 1, 3])
def test_so_is_the_next_gap_where_gaps_end_at_zero(mean: float) -> None:
    """A gap is the absolute value of a difference that is normal; around 0 it is not."""
    assert 0.94 <= coverage("val/ssim_gap", lambda rng, n: abs(rng.normal(mean, 1, n)), 8) <= 0.985


@pytest.mark.parametrize("score", ["val/copied", "val/recall", "val/coverage"])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_the_next_share_is_inside_at_least_19_times_in_20(share: float, score: str) -> None:
    assert coverage(score, lambda rng, n: rng.binomial(SAMPLES, share, n) / SAMPLES, 8, 400) >= 0.93


@pytest.mark.parametrize("score", ["val/fid", "val/kid", "val/ssim_gap", "val/nearest", "val/copied"])
def test_the_scores_of_fresh_seeds_are_inside_19_times_in_20(pool: list[dict[str, float]], score: str) -> None:
    """Real scores of small draws; any 9 of the pool are 8 and a next one."""
    values = np.array([scores[score] for scores in pool])
    assert len(set(values.tolist())) > 5  # or there would be nothing to hold
    held = coverage(score, lambda rng, n: rng.choice(values, n, replace=False), 8, 1000)
    assert 0.93 <= held <= (1 if score == "val/copied" else 0.975)


def test_photos_of_another_time_have_a_mean_inside_19_times_in_20(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(150):
        interval = of_photos(rng.beta(8, 2, 80))  # skewed, as similarities are; their mean is 0.8
        held += interval.low <= 0.8 <= interval.high
    assert 0.9 <= held / 150 <= 0.985


def test_scores_that_cannot_be_negative_have_no_negative_end() -> None:
    scores = [0.0, 0.01, 0.03]
    for name in ("val/fid", "val/ssim_gap", "val/nearest", "val/copied", "val/recall", "val/coverage"):
        assert of_draws(name, scores, 100).low == 0
    assert of_draws("val/kid", scores, 100).low < 0


@pytest.mark.parametrize("name", ["val/recall", "val/coverage"])
def test_a_share_that_never_varied_may_still_be_another_next_time_and_is_never_above_1(name: str) -> None:
    assert of_draws(name, [0.0] * 8, 512).high == 1 / 512
    assert of_draws(name, [1.0] * 8, 512).low == 511 / 512
    assert of_draws(name, [0.9, 1.0, 0.8], 512).high == 1
    assert of_draws(name, [0.5, 0.6, 0.4], 512).low < 0.3  # one sample may hold several photos


def test_no_copy_in_any_draw_still_lets_one_be_found() -> None:
    """Of 9 draws each is as likely to have the one copy, so it would be no wonder; two would be."""
    assert of_draws("val/copied", [0.0] * 8, 512).high == 1 / 512


def test_limits_of_a_count_mirror_those_of_the_other_images() -> None:
    low, high = limits_of_count(30, 400, 50)
    assert (50 - high, 50 - low) == limits_of_count(370, 400, 50)
    assert 0 <= low <= 30 / 8 <= high
    assert limits_of_count(400, 400, 50)[1] == 50


def test_every_score_has_an_interval_that_holds_the_recorded_one(scorer: Scorer) -> None:
    model = Redrawer()
    recorded, _ = scorer.final(model)
    found = measure(model, scorer, draws=3)
    assert set(found) == set(recorded)
    for name, values in json.loads(json.dumps(found)).items():
        assert set(values) == {"low", "high", "level", "draws", "method"}
        assert values["level"] == 0.95
        assert values["draws"] == (2000 if name == "val/ssim" else 3)
        assert recorded[name] in Interval.from_dict(values)
        assert values["low"] <= recorded[name] * 0.9991 <= recorded[name] * 1.0009 <= values["high"]
    assert found["val/ssim"]["method"] == "percentile bootstrap over 8 held-out photos"
    assert found["val/ssim"]["high"] - found["val/ssim"]["low"] > 0.01
    assert "from 3 other draws of 40 images" in found["val/fid"]["method"]
    assert measure(model, scorer, draws=3) == found


def test_the_recorded_draw_widens_an_interval_but_does_not_shape_it(scorer: Scorer) -> None:
    others = [scorer.reseeded(seed).drawn(Painter())["val/fid"] for seed in fresh_seeds(0, 3)]
    expected = of_draws("val/fid", others, SAMPLES).holding(scorer.drawn(Painter())["val/fid"])
    found = measure(Painter(), scorer, draws=3)["val/fid"]
    assert (found["low"], found["high"]) == (expected.low, expected.high)
    assert Interval(2, 3, 0.95, 8, "").holding(5) == Interval(2, 5.005, 0.95, 8, "")
    assert Interval(2, 3, 0.95, 8, "").holding(-1) == Interval(-1.001, 3, 0.95, 8, "")


def test_seeds_are_none_that_a_person_types() -> None:
    seeds = fresh_seeds(0, 50)
    assert len(set(seeds)) == 50
    assert min(seeds) > 10_000
    assert fresh_seeds(0, 3) == seeds[:3]
    assert fresh_seeds(1, 3) != seeds[:3]


def test_a_record_of_another_model_is_refused(scorer: Scorer) -> None:
    recorded = scorer.drawn(Painter())
    assert measure(Painter(), scorer, 2, recorded) == measure(Painter(), scorer, 2)
    with pytest.raises(ExportError, match=r"The record of val/fid is .* with other latents .* not those that were"):
        measure(Painter(), scorer, 2, recorded | {"val/fid": recorded["val/fid"] * 3})


def test_one_draw_tells_no_spread(scorer: Scorer) -> None:
    with pytest.raises(ExportError, match=r"at least 2 draws.*got 1"):
        measure(Painter(), scorer, 1)


def test_a_score_on_the_edge_is_inside() -> None:
    assert 2 in Interval(2, 3, 0.95, 8, "")
    assert 3 in Interval(2, 3, 0.95, 8, "")
    assert float("nan") not in Interval(2, 3, 0.95, 8, "")


def test_statistics_are_read_once(scorer: Scorer, tmp_path: Path) -> None:
    other = scorer.reseeded(5)
    assert other.reference is scorer.reference
    assert (scorer.seed, other.seed) == (0, 5)
