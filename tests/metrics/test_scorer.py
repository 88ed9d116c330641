"""The scorer: fixed latents, one path for real and generated images, nothing depends on when it is asked."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from catsweep.errors import MetricError
from catsweep.images import to_float
from catsweep.metrics import distances
from catsweep.metrics.distances import Moments
from catsweep.metrics.extractors import device_of
from catsweep.metrics.scorer import FiniteImages, Scorer
from catsweep.metrics.scores import MetricCard, require_comparable
from catsweep.models.generator import draw_latents, generate


@pytest.fixture
def build(tmp_path: Path, tiny_extractor: Callable[..., Any], tiny_ready: Callable[..., Any]) -> Callable[..., Scorer]:
    def build(**changes: Any) -> Scorer:
        arguments = {
            "extractor": tiny_extractor(),
            "ready": tiny_ready(),
            "cache_root": tmp_path,
            "samples": 24,
            "rung_samples": 12,
            "batch_size": 10,
        }
        return Scorer(**(arguments | changes))

    return build


class Replay:
    """Draws given images, in order."""

    latent_size = 4

    def __init__(self, images: np.ndarray) -> None:
        self.images = to_float(torch.from_numpy(images))
        self.image_size = images.shape[1]
        self.latents: list[Tensor] = []

    def decode(self, latents: Tensor) -> Tensor:
        drawn = sum(len(part) for part in self.latents)
        self.latents.append(latents)
        return self.images[drawn : drawn + len(latents)]


class Broken(nn.Module):
    latent_size, image_size = 4, 16

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def decode(self, latents: Tensor) -> Tensor:
        images = torch.full((len(latents), 3, 16, 16), 0.5)
        images[-1, 0, 0, 0] = self.value
        return images


def test_scores_are_those_of_the_parts(build: Callable[..., Scorer], tiny_generator: Any, tiny_ready: Any) -> None:
    scorer, model, real = build(), tiny_generator(), tiny_ready().images
    values, _ = scorer.final(model)
    drawn = generate(model, draw_latents(24, 4, seed=0))
    fakes, reals = scorer.extractor(drawn), scorer.extractor(torch.from_numpy(real))
    assert values["val/fid"] == pytest.approx(float(distances.frechet_distance(fakes, Moments.of(reals))), rel=1e-6)
    assert values["val/kid"] == pytest.approx(distances.kernel_distance(fakes, reals, seed=0), rel=1e-6)
    nearest = distances.nearest_distance(fakes, reals[:24], reals[24:])
    assert (values["val/nearest"], values["val/copied"]) == pytest.approx((nearest.ratio, nearest.copied), rel=1e-5)
    diversity = distances.diversity(fakes, reals, seed=0)
    assert (values["val/recall"], values["val/coverage"]) == (diversity.recall, diversity.coverage)
    gap = abs(distances.pair_similarity(drawn, 24, 0) - scorer.reference.similarity)
    assert values["val/ssim_gap"] == pytest.approx(gap)
    assert scorer.rung(model)["val/kid"] == pytest.approx(
        distances.kernel_distance(fakes[:12], reals, seed=0), rel=1e-6
    )


def test_a_model_that_draws_the_real_images_scores_zero(build: Callable[..., Scorer], tiny_ready: Any) -> None:
    """Real and generated images take the same path: to uint8, through the resize, into float64."""
    values, _ = build(samples=32).final(Replay(tiny_ready().images))
    assert values["val/fid"] == pytest.approx(0, abs=1e-6)
    assert values["val/kid"] < 1e-6
    assert values["val/nearest"] < 1e-3
    assert values["val/copied"] >= 0.75


def test_a_generator_that_draws_one_cat_well_loses(
    build: Callable[..., Scorer], tiny_ready: Any, images: Callable[..., np.ndarray]
) -> None:
    photos = images(96, seed=0)
    scorer = build(ready=tiny_ready(photos, held_out=24), samples=64)
    rng = np.random.default_rng(0)
    one_well = np.repeat(photos[3:4], 64, axis=0) + rng.integers(0, 3, (64, *photos.shape[1:]), dtype=np.uint8)
    all_badly = (0.7 * images(64, seed=1) + 60 * rng.random((64, *photos.shape[1:]))).astype(np.uint8)
    (one, _), (many, _) = (scorer.final(Replay(drawn)) for drawn in (one_well, all_badly))
    assert one["val/fid"] > many["val/fid"]
    assert one["val/recall"] < many["val/recall"]
    assert one["val/coverage"] < many["val/coverage"]


def test_photos_in_the_place_of_samples_score_what_a_perfect_generator_would(
    build: Callable[..., Scorer], tiny_ready: Any, images: Callable[..., np.ndarray], tiny_extractor: Any
) -> None:
    extractor, photos = tiny_extractor(), images(400, seed=0)
    scorer = build(ready=tiny_ready(photos, held_out=40), samples=150, extractor=extractor)
    seen = extractor.seen
    found = scorer.of_photos()
    assert extractor.seen == seen
    assert found == scorer.of_photos()
    perfect, _ = scorer.final(Replay(images(150, seed=1)))  # of the same kind, and none of the reference
    assert found["fid"] == pytest.approx(perfect["val/fid"], rel=0.5)
    assert found["coverage"] == pytest.approx(perfect["val/coverage"], abs=0.1)
    assert found["recall"] == pytest.approx(perfect["val/recall"], abs=0.1)
    worse, _ = scorer.final(Replay(images(150, seed=1) // 2))
    assert found["fid"] < worse["val/fid"]
    assert build(ready=tiny_ready(images(3, seed=0), held_out=0)).of_photos() == {}


def test_samples_come_from_fixed_latents(build: Callable[..., Scorer], images: Callable[..., np.ndarray]) -> None:
    scorer, seen = build(seed=5), []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        model = Replay(images(12, seed=1))
        scorer.rung(model)
        seen.append(torch.cat(model.latents))
    model = Replay(images(24, seed=1))
    scorer.final(model)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(torch.cat(model.latents)[:12], seen[0])
    assert torch.equal(seen[0], draw_latents(12, 4, seed=5))


def test_scores_do_not_depend_on_mode_autocast_or_global_seed(
    build: Callable[..., Scorer], tiny_reconstructor: Any
) -> None:
    scorer, model = build(), tiny_reconstructor()
    expected = scorer.rung(model), *scorer.final(model.eval())
    model.train()
    model.net[0].eval()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (scorer.rung(model), *scorer.final(model)) == expected
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_second_scorer_gives_the_same_scores_and_cards(
    build: Callable[..., Scorer], tiny_generator: Any, tiny_extractor: Any
) -> None:
    extractor = tiny_extractor()
    first = build().final(tiny_generator())
    assert build(extractor=extractor).final(tiny_generator()) == first
    assert extractor.seen < 32 + 24  # the real images came from the cache, but for the self-check


def test_reseeded_it_is_the_scorer_of_that_seed(
    build: Callable[..., Scorer], tiny_reconstructor: Any, tiny_extractor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catsweep.metrics.scorer.KID_IMAGES", 20)  # of the 32, so that which they are is drawn as well
    extractor, model = tiny_extractor(), tiny_reconstructor()
    scorer = build(extractor=extractor)
    before, seen = scorer.final(model), extractor.seen
    other = scorer.reseeded(5)
    assert other.final(model) == build(seed=5).final(model)
    assert extractor.seen == seen + 24  # the samples, and no real image again
    assert other.final(model)[0]["val/fid"] != before[0]["val/fid"]
    assert other.final(model)[1]["val/fid"].seed == 5
    assert scorer.final(model) == before


def test_final_scores_are_those_of_drawn_images_and_of_reconstructions(
    build: Callable[..., Scorer], tiny_reconstructor: Any
) -> None:
    scorer, model = build(), tiny_reconstructor()
    model.reconstruct = lambda images: images * torch.linspace(0.5, 1, len(images))[:, None, None, None]
    similarities = scorer.of_reconstructions(model)["val/ssim"]
    assert similarities.shape == (8,)
    assert scorer.final(model)[0] == scorer.drawn(model) | {"val/ssim": float(similarities.mean())}
    assert len(set(similarities.tolist())) == 8


def test_only_a_reconstructor_has_an_ssim(
    build: Callable[..., Scorer], tiny_generator: Any, tiny_reconstructor: Any
) -> None:
    assert "val/ssim" not in build().final(tiny_generator())[0]
    model = tiny_reconstructor()
    assert build().final(model)[0]["val/ssim"] == pytest.approx(1)
    model.reconstruct = lambda images: 1 - images
    assert build().final(model)[0]["val/ssim"] < 0.5


def test_ssim_is_of_held_out_images(build: Callable[..., Scorer], tiny_reconstructor: Any, tiny_ready: Any) -> None:
    seen: list[Tensor] = []
    model = tiny_reconstructor()
    model.reconstruct = lambda images: seen.append(images) or images
    build().final(model)
    assert torch.equal(torch.cat(seen), to_float(torch.from_numpy(tiny_ready().images[24:])))


def test_every_score_has_a_card_that_says_how(
    build: Callable[..., Scorer], tiny_reconstructor: Any, tiny_extractor: Any
) -> None:
    values, cards = build(extractor=tiny_extractor(weights_sha256="ab", name="net"), seed=3).final(tiny_reconstructor())
    assert set(cards) == set(values)
    assert sorted(build().names(tiny_reconstructor())) == sorted(values)
    fid = cards["val/fid"]
    assert (fid.metric, fid.extractor, fid.weights_sha256, fid.resize) == ("fid", "net", "ab", "none")
    assert (fid.reference_size, fid.samples, fid.seed) == (32, 24, 3)
    assert {"torch", "torchmetrics"} <= set(fid.versions)
    assert cards["val/ssim"].extractor == cards["val/ssim_gap"].extractor == "pixels"
    assert cards["val/ssim"].samples == 8
    for card in cards.values():
        assert MetricCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 20},
        {"seed": 1},
        {"reference": "train"},
        {"ready": {"held_out": 6, "digest": "other"}},
        {"extractor": {"weights_sha256": "cd"}},
        {"extractor": {"resize": "nearest"}},
        {"extractor": {"name": "inception"}},
    ],
    ids=str,
)
def test_scores_taken_otherwise_are_not_comparable(
    build: Callable[..., Scorer], tiny_extractor: Any, tiny_ready: Any, changes: dict[str, Any]
) -> None:
    kinds = {"extractor": tiny_extractor, "ready": tiny_ready}
    built = {key: kinds[key](**value) if key in kinds else value for key, value in changes.items()}
    first, second = build().card("val/fid"), build(**built).card("val/fid")
    require_comparable(first, build().card("val/fid"))
    with pytest.raises(MetricError, match="measured the same way"):
        require_comparable(first, second)


def test_the_extractor_checks_itself_at_the_start(build: Callable[..., Scorer], tiny_extractor: Any) -> None:
    build()
    impostor = tiny_extractor(seed=1)  # other weights under the same name and digest: the cache is not its own
    with pytest.raises(MetricError, match=r"FID\(x, x\) = 0; it gives.* statistics \(.*\)") as refused:
        build(extractor=impostor)
    (folder,) = re.findall(r"statistics \((.*?)\)", str(refused.value))
    assert list(Path(folder).iterdir())  # where they are, and not where they usually are


def test_the_extractor_is_checked_once_on_each_device(build: Callable[..., Scorer], tiny_generator: Any) -> None:
    scorer = build()
    extractor: Any = scorer.extractor
    before = extractor.seen
    scorer.rung(tiny_generator())
    assert extractor.seen - before == 12
    scorer.checked_devices.clear()
    scorer.rung(tiny_generator())
    assert extractor.seen - before == 12 + 12 + 16


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_refused(build: Callable[..., Scorer], value: float) -> None:
    """Rounding to uint8 would make an ordinary black of a NaN, and a score of a diverged model."""
    with pytest.raises(MetricError, match="diverged"):
        build().rung(Broken(value))


def test_reconstructions_that_are_not_finite_are_refused(build: Callable[..., Scorer], tiny_reconstructor: Any) -> None:
    model = tiny_reconstructor()
    model.reconstruct = lambda images: images / 0
    with pytest.raises(MetricError, match="diverged"):
        build().final(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1, "rung_samples": 1}, "metrics.rung_samples"),
        ({"samples": 10, "rung_samples": 20}, "2 <= rung_samples <= samples"),
        ({"reference": "test"}, "all, train or val; got 'test'"),
    ],
)
def test_choices_that_cannot_be_scored_are_refused(
    build: Callable[..., Scorer], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        build(**changes)


def test_too_few_real_images_are_refused(
    build: Callable[..., Scorer], tiny_ready: Any, tiny_reconstructor: Any, images: Callable[..., np.ndarray]
) -> None:
    for reference in ("all", "train"):  # the others would be no more
        with pytest.raises(MetricError, match=r"at least 2 real images in the reference.* there are 1\. Add photos\.$"):
            build(ready=tiny_ready(images(1, seed=0), held_out=0), reference=reference)
    with pytest.raises(
        MetricError, match=r"at least 2 real images.*\(val\); there are 1.*set metrics\.reference=all\.$"
    ):
        build(ready=tiny_ready(held_out=1), reference="val")
    scorer = build(ready=tiny_ready(held_out=0))
    with pytest.raises(MetricError, match=r"Raise data\.val_fraction\."):
        scorer.of_reconstructions(tiny_reconstructor())
    scorer.ready.card["parameters"] = {"stages": []}  # as of a set that prepare.py made
    with pytest.raises(MetricError, match=r"Prepare the set again with a larger val_fraction\."):
        scorer.of_reconstructions(tiny_reconstructor())


def test_a_model_of_another_size_is_refused(build: Callable[..., Scorer], images: Callable[..., np.ndarray]) -> None:
    with pytest.raises(MetricError, match="need the same size"):
        build().rung(Replay(images(12, seed=0, side=24)))


def test_without_held_out_images_nothing_is_said_of_copies_and_reconstructions(
    build: Callable[..., Scorer], tiny_ready: Any, tiny_generator: Any, tiny_reconstructor: Any
) -> None:
    scorer = build(ready=tiny_ready(held_out=0))
    for model in (tiny_generator(), tiny_reconstructor()):
        values, _ = scorer.final(model)
        always = {"val/fid", "val/kid", "val/recall", "val/coverage", "val/ssim_gap"}
        assert set(values) == set(scorer.names(model)) == always


@pytest.mark.parametrize(("option", "extractor"), [("default", "EfficientNetLite0"), ("inception", "Inception")])
def test_the_configurations_name_their_extractor(root: Path, option: str, extractor: str) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = compose(f"metrics/{option}", overrides=["metrics.cache_root=elsewhere"]).metrics
    assert cfg._target_ == "catsweep.metrics.scorer.Scorer"
    assert cfg.extractor._target_.endswith(f".{extractor}")
    assert cfg.extractor.cache_root == "elsewhere"


class Copied:
    """The tiny ready set with two copies of each training photo, dimmed, right behind it."""

    digest = "with copies"

    def __init__(self, plain: Any) -> None:
        boundary = len(plain.images) - plain.held_out
        counts = np.where(np.arange(len(plain.images)) < boundary, 3, 1)
        self.places = np.cumsum(counts) - counts
        self.images = np.repeat(plain.images, counts, axis=0) // 2
        self.images[self.places] = plain.images
        self.splits = np.repeat(np.where(np.arange(len(counts)) < boundary, "train", "val"), counts)

    def indices(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.splits == split)

    def originals(self) -> np.ndarray:
        return self.places


@pytest.mark.parametrize("reference", ["all", "train", "val"])
def test_copies_of_training_photos_change_no_score(
    build: Callable[..., Scorer], tiny_reconstructor: Any, tiny_ready: Any, tiny_extractor: Any, reference: str
) -> None:
    extractor, model = tiny_extractor(), tiny_reconstructor()
    without = build(reference=reference).final(model)
    scorer = build(ready=Copied(tiny_ready()), reference=reference, extractor=extractor)
    assert extractor.seen == 32 + (8 if reference == "val" else 16)  # the photos, and the check
    values, cards = scorer.final(model)
    assert values == without[0]
    assert scorer.rung(model) == build(reference=reference).rung(model)
    for name, card in cards.items():
        assert card.reference_size == without[1][name].reference_size
        assert card.settings == without[1][name].settings
        assert card.reference_digest != without[1][name].reference_digest  # another set is another set


def test_finite_images_pass_untouched(tiny_reconstructor: Any) -> None:
    model = tiny_reconstructor().eval()
    guarded, latents = FiniteImages(model, model.decode), torch.randn(3, 4)
    images = model.decode(latents)
    assert torch.equal(guarded.decode(latents), images)
    assert torch.equal(FiniteImages(model, model.reconstruct).decode(images), images)
    assert model in list(guarded.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_enough(tiny_reconstructor: Any, value: float) -> None:
    images = torch.rand(2, 3, 16, 16)
    images[1, 2, 3, 4] = value
    model = tiny_reconstructor()
    model.decode = model.reconstruct = lambda _: images
    for draw in (model.decode, model.reconstruct):
        with pytest.raises(MetricError, match="diverged"):
            FiniteImages(model, draw).decode(images)


def test_the_device_is_that_of_the_parameters(tiny_reconstructor: Any) -> None:
    assert device_of(tiny_reconstructor().to("meta")) == torch.device("meta")
    assert device_of(object()) == torch.device("cpu")
