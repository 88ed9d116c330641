"""Scores and their cards: what each says of itself, how one is added, what configurations of before take."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from catsweep.errors import MetricError
from catsweep.export.intervals import of_draws
from catsweep.instantiation import instantiate
from catsweep.metrics.judge import NAMES, better
from catsweep.metrics.scorer import Drawn, Scorer
from catsweep.metrics.scores import DEFAULT, SCORES, MetricCard, ReconstructionScore, Score, require_comparable, score
from catsweep.untrusted_config import rebuild

CARD = MetricCard(
    metric="fid",
    extractor="efficientnet_lite0",
    weights_sha256="5793",
    resize="bilinear antialiased to 224",
    dtype="float32",
    reference_digest="ab12",
    reference_size=1706,
    samples=512,
    seed=0,
    settings={"subsets": 10},
    versions={"torch": "2.13.0"},
)


def changed(value: Any) -> Any:
    return {"another": "1"} if isinstance(value, dict) else value * 2 + 1 if isinstance(value, int) else value + "!"


def test_a_card_survives_json() -> None:
    assert MetricCard.from_dict(json.loads(json.dumps(CARD.to_dict()))) == CARD


def test_equal_cards_are_comparable() -> None:
    require_comparable(CARD, MetricCard.from_dict(CARD.to_dict()))


@pytest.mark.parametrize("name", [entry.name for entry in fields(MetricCard)])
def test_a_difference_in_any_field_is_refused_and_shown(name: str) -> None:
    other = replace(CARD, **{name: changed(getattr(CARD, name))})
    with pytest.raises(MetricError, match=f"{name}: .* against ") as failure:
        require_comparable(CARD, other)
    assert repr(getattr(CARD, name)) in str(failure.value)
    assert repr(getattr(other, name)) in str(failure.value)
    require_comparable(CARD, other, ignore=[name])


def test_ignoring_one_field_does_not_ignore_another() -> None:
    other = replace(CARD, seed=1, samples=64)
    with pytest.raises(MetricError, match="samples: 512 against 64") as failure:
        require_comparable(CARD, other, ignore=["seed"])
    assert "seed:" not in str(failure.value)


@pytest.mark.parametrize("broken", [{"metric": "fid"}, CARD.to_dict() | {"colour": "red"}])
def test_what_is_no_card_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(MetricError, match="Score again"):
        MetricCard.from_dict(broken)


def test_cards_are_those_of_before_scores_were_objects(scorer: Callable[..., Scorer]) -> None:
    """Contracts of studies hold them, without versions."""
    shared: dict[str, Any] = {
        "dtype": "float32, moments float64",
        "extractor": "tiny",
        "weights_sha256": "00",
        "resize": "none",
    }
    shared |= {"reference_size": 32, "samples": 24, "seed": 0, "settings": {}}
    pixels = {"dtype": "float32, mean float64", "extractor": "pixels", "weights_sha256": "", "resize": "none"}
    compared, split = {"k": 5, "images": 24}, {"train": 24, "held_out": 8}
    own: dict[str, dict[str, Any]] = {
        "fid": {},
        "kid": {"settings": {"subsets": 10, "subset_size": 24}},
        "recall": {"settings": compared | {"method": "Kynkaanniemi et al. 2019, arXiv:1904.06991"}},
        "coverage": {"settings": compared | {"method": "Naeem et al. 2020, arXiv:2002.09797"}},
        "nearest": {"settings": split},
        "copied": {"settings": split},
        "ssim_gap": pixels | {"settings": {"window": 11, "scales": 1, "pairs": 24, "real_pairs": 32}},
        "ssim": pixels
        | {"reference_size": 8, "samples": 8, "reference_digest": "digest"}
        | {"settings": {"window": 11, "images": "held-out reconstructions"}},
    }
    taken = scorer()
    for name, different in own.items():
        found = taken.card(f"val/{name}").to_dict()
        libraries = {"torch", "torchmetrics"}
        assert set(found.pop("versions")) == libraries
        digest = {"reference_digest": taken.reference.images_digest}
        assert found == {"metric": name} | shared | digest | different
        assert list(found["settings"]) == list(different.get("settings", {}))


@pytest.fixture
def scorer(tmp_path: Path, tiny_extractor: Callable[..., Any], tiny_ready: Callable[..., Any]) -> Callable[..., Scorer]:
    def build(**changes: Any) -> Scorer:
        settings: dict[str, Any] = {"cache_root": tmp_path, "samples": 24, "rung_samples": 12} | changes
        return Scorer(tiny_extractor(), tiny_ready(), **settings)

    return build


def configured(root: Path, *overrides: str) -> Any:
    with initialize_config_dir(str(root / "conf")):
        return compose("metrics/default", overrides=list(overrides)).metrics


def test_the_configuration_names_the_scores_that_are_taken_without_one(
    root: Path, scorer: Callable[..., Scorer], tiny_reconstructor: Any
) -> None:
    node = configured(root).scores
    assert [*node][: len(DEFAULT)] == [*SCORES][: len(DEFAULT)] == [*DEFAULT]
    model = tiny_reconstructor()
    named, unnamed = scorer(scores=instantiate(node)).final(model), scorer().final(model)
    assert [*unnamed[0]] == scorer().names(model) == [f"val/{name}" for name in DEFAULT]
    kind: Any
    before: Any
    for kind, before in zip(named, unnamed, strict=True):
        assert {name: kind[name] for name in before} == before


def test_a_saved_configuration_without_scores_loads_and_scores_the_same(
    root: Path, tmp_path: Path, tiny_ready: Any, tiny_extractor: Any, tiny_generator: Any
) -> None:
    metrics = OmegaConf.to_container(configured(root, "metrics.samples=24", "metrics.rung_samples=12"), resolve=True)
    assert isinstance(metrics, dict)
    old = {key: value for key, value in metrics.items() if key != "scores"}
    build = {"ready": tiny_ready(), "extractor": tiny_extractor(), "cache_root": tmp_path}
    was, now = (rebuild({"metrics": one}, "metrics")(**build) for one in (old, metrics))
    values, cards = was.final(tiny_generator())
    assert values.items() <= now.final(tiny_generator())[0].items()
    assert cards == {key: now.card(key) for key in values}


def test_a_score_can_be_left_out(root: Path, scorer: Callable[..., Scorer], tiny_generator: Any) -> None:
    taken = scorer(scores=instantiate(configured(root, "metrics.scores.nearest=null").scores))
    assert "val/nearest" not in taken.final(tiny_generator())[0]
    assert "val/copied" in taken.names(tiny_generator())
    blind = scorer(scores=instantiate(configured(root, "metrics.scores.kid=null").scores))
    assert blind.rung(tiny_generator()) == {}
    with pytest.raises(MetricError, match=r"checkpoints go by, such as kid; metrics\.scores has none"):
        blind.rung_names()


@pytest.fixture
def brightness() -> Iterator[type[Score]]:
    """A score as somebody else would add it."""

    class Brightness(Score):
        name, title, better, least, in_features, interval = "light", "brightness", "higher", 0.0, False, "share"
        meaning = "how light drawn cats are"

        def measure(self, drawn: Drawn) -> float:
            return float(drawn.images.double().mean() / 255)

        def settings(self, scorer: Scorer) -> dict[str, Any]:
            return {"images": scorer.samples}

    yield Brightness
    del SCORES["light"]


def test_a_new_score_is_a_class_and_a_name(
    scorer: Callable[..., Scorer], tiny_generator: Any, brightness: type[Score]
) -> None:
    taken = scorer(scores={"kid": SCORES["kid"], "light": brightness()})
    values, cards = taken.final(tiny_generator())
    assert list(values) == list(cards) == taken.names(tiny_generator()) == ["val/kid", "val/light"]
    assert 0 < values["val/light"] < 1
    assert (cards["val/light"].extractor, cards["val/light"].settings) == ("pixels", {"images": 24})
    assert (score("val/light").title, better("val/light")) == ("brightness", "↑")
    assert of_draws("val/light", [0.9, 1.0, 0.8], 512).high == 1


def test_a_score_of_reconstructions_is_the_mean_over_held_out_photos(
    scorer: Callable[..., Scorer], tiny_reconstructor: Any
) -> None:
    class Difference(ReconstructionScore):
        def each(self, images: Tensor, originals: Tensor) -> Tensor:
            return (images.double() - originals.double()).abs().mean((1, 2, 3))

    Difference.key = "val/difference"  # without a name it is known to this scorer alone
    model = tiny_reconstructor()
    model.reconstruct = lambda images: images / 2
    taken = scorer(scores={"difference": Difference()})
    each = taken.of_reconstructions(model)["val/difference"]
    assert each.shape == (8,)
    assert taken.final(model)[0] == {"val/difference": float(each.mean())}
    assert torch.allclose(each, taken.of_reconstructions(model)["val/difference"])


def test_judges_take_the_scores_in_features() -> None:
    assert NAMES[:6] == tuple(f"judge/{name}" for name in ("fid", "kid", "recall", "coverage", "nearest", "copied"))


def test_an_unknown_score_is_shown_by_its_name() -> None:
    for name in ("val/other", "else/fid", ""):
        assert (score(name).title, score(name).better, better(name)) == (name, "", "")


def test_a_study_from_before_there_were_names_goes_on(root: Path) -> None:
    """Which scores are taken is no part of its contract; how its objectives are measured is."""
    assert "metrics.scores" in OmegaConf.load(root / "conf/hydra/sweeper/steady.yaml").contract_ignore
