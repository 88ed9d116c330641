"""The card travels whole, and scores with different cards are never compared."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from catsweep.errors import MetricError
from catsweep.metrics.card import MetricCard, require_comparable

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
