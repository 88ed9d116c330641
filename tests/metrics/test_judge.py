"""The judge beside a scorer: another network, the same draws; independent, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from catsweep.errors import MetricError
from catsweep.metrics.extractors import Extractor
from catsweep.metrics.judge import Judge
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import draw_latents, generate

Build = Callable[..., Judge]
NAMES = tuple(f"judge/{name}" for name in ("fid", "kid", "recall", "coverage", "nearest", "copied"))


@pytest.fixture
def build(tmp_path: Path, tiny_extractor: Callable[..., Extractor], tiny_ready: Callable[..., Any]) -> Build:
    def build(extractor: Extractor | None = None, held_out: int = 8, **settings: Any) -> Judge:
        scorer = Scorer(tiny_extractor(), tiny_ready(held_out=held_out), tmp_path, samples=24, rung_samples=12)
        other = tiny_extractor(seed=3, name="other", weights_sha256="11") if extractor is None else extractor
        return Judge(other, scorer, tmp_path, **({"samples": 16} | settings))

    return build


def test_it_scores_as_a_scorer_with_its_network(build: Build, tiny_generator: Any, tiny_extractor: Any) -> None:
    judge, model = build(), tiny_generator()
    judged = judge.judge(model, {"val/fid": 3.0})
    again = Scorer(
        tiny_extractor(seed=3, name="other", weights_sha256="11"), judge.beside.ready, judge.scorer.cache_root,
        samples=16, rung_samples=2,
    ).final(model)[0]  # fmt: skip
    assert judged.scores == {name: again[name.replace("judge/", "val/")] for name in NAMES}
    assert judged.recorded == {"val/fid": 3.0}
    assert judged.judge == "other"


def test_cards_say_how(build: Build, tiny_generator: Any) -> None:
    judged = build(seed=5).judge(tiny_generator(), {})
    assert tuple(judged.cards) == tuple(judged.scores) == NAMES
    card = judged.cards["judge/coverage"]
    assert (card.metric, card.extractor, card.weights_sha256) == ("coverage", "other", "11")
    assert (card.samples, card.seed) == (16, 5)
    assert card.settings["k"] == 5
    assert "Naeem" in card.settings["method"]
    assert card.reference_size == 32


def test_without_held_out_photos_nothing_is_said_of_copies(build: Build, tiny_generator: Any) -> None:
    judged = build(held_out=0).judge(tiny_generator(), {})
    assert tuple(judged.scores) == tuple(judged.cards) == NAMES[:4]


def test_photos_are_scored_by_both(build: Build, tiny_generator: Any) -> None:
    judged = build().judge(tiny_generator(), {})
    names = ("fid", "kid", "recall", "coverage")
    assert set(judged.reference) == {f"{prefix}/{name}" for prefix in ("val", "judge") for name in names}
    assert judged.reference["judge/fid"] < judged.scores["judge/fid"]


def test_real_images_are_looked_at_once(build: Build, tiny_extractor: Any, tiny_generator: Any) -> None:
    build()
    extractor = tiny_extractor(seed=3, name="other", weights_sha256="11")
    judge = build(extractor)
    judge.judge(tiny_generator(), {})
    assert extractor.seen == 16 + 16  # the check, and what is drawn


def test_no_random_state_is_touched(build: Build, tiny_generator: Any) -> None:
    judge, model = build(), tiny_generator()
    state = torch.get_rng_state()
    judge.judge(model, {})
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"name": "tiny"}, "is the extractor of the scores, tiny"),
        ({"weights_sha256": "00"}, "is the extractor of the scores, tiny"),
        ({"name": "efficientnet_lite1"}, "relative of what losses and discriminators look through"),
        ({"name": "EfficientNet-Lite0-224"}, "relative of what losses"),
        ({"seed": 0}, "sees what the extractor tiny sees"),
    ],
)
def test_a_judge_that_is_not_independent_is_refused(
    build: Build, tiny_extractor: Any, facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        build(tiny_extractor(**({"seed": 3, "name": "other", "weights_sha256": "11"} | facts)))


def test_the_extractors_of_losses_are_refused_by_their_class(build: Build, lite0: Extractor) -> None:
    with pytest.raises(MetricError, match="relative"):
        build(lite0)


def test_one_photo_drawn_well_loses_by_the_judge_too(build: Build, tiny_generator: Any) -> None:
    judge, model = build(samples=16), tiny_generator()
    one = tiny_generator()
    photo = torch.from_numpy(judge.beside.ready.images[3:4]).permute(0, 3, 1, 2) / 255
    one.decode = lambda latents: photo.repeat(len(latents), 1, 1, 1)
    drawn = generate(one, draw_latents(16, 4, seed=0))
    assert len(drawn.unique(dim=0)) == 1
    found, varied = judge.judge(one, {}), judge.judge(model, {})
    assert found.scores["judge/copied"] == 1 > varied.scores["judge/copied"]
    assert found.scores["judge/nearest"] < 0.01
    assert found.scores["judge/recall"] < 0.1
