import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catsweep.metrics.judge import FILE, Judged, rank_agreement, read_judged
from catsweep.metrics.scores import MetricCard

CARD = MetricCard("fid", "dinov2", "ab", "none", "float32", "cd", 32, 24, 0, {"k": 5}, {"torch": "2"})


def judged(own: float = 40.0, found: float = 90.0, **changes: Any) -> Judged:
    cards = {"judge/fid": MetricCard.from_dict(CARD.to_dict() | changes)}
    return Judged({"judge/fid": found}, cards, {"val/fid": 5.0, "judge/fid": 40.0}, {"val/fid": own})


def changed(**parts: Any) -> str:
    return json.dumps(judged().to_dict() | parts)


def of_card(**parts: Any) -> str:
    return changed(cards={"judge/fid": CARD.to_dict() | parts})


def write_scores(folder: Path, **scores: float) -> None:
    (folder / "metrics.json").write_text(json.dumps({"scores": scores}))


def test_a_judgement_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_scores(tmp_path, **{"val/fid": 40.0})
    judged().write(tmp_path)
    assert read_judged(tmp_path) == judged()
    assert judged().judge == "dinov2"


def test_a_judgement_of_other_scores_is_none_of_this_model(tmp_path: Path) -> None:
    judged().write(tmp_path)
    assert read_judged(tmp_path) is None
    write_scores(tmp_path, **{"val/fid": 39.0})
    assert read_judged(tmp_path) is None


@pytest.mark.security
@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", '{"scores": {}}', '{"scores": [1]}', "[" * 100_000,
        changed(scores={}), changed(scores={"judge/fid": None}), changed(scores={"judge/fid": "<b>"}),
        changed(cards={}), changed(reference={"judge/fid": float("nan")}), changed(reference=None),
        changed(cards={"judge/fid": {"metric": 1}}), changed(scores={"judge/fid": 1e308}),
        changed(scores={"judge/fid": 10**299}), changed(reference={"judge/fid": -1e308}),
        of_card(extractor=None), of_card(samples=None), of_card(resize=["bicubic"]), of_card(settings=[]),
        of_card(reference_size={}), of_card(settings={"k": [[]]}),
        of_card(settings={"nested": "HERE"}).replace('"HERE"', '{"a":' * 900 + "0" + "}" * 900),
    ],
    ids=lambda content: content[:40],
)  # fmt: skip
def test_what_is_damaged_counts_as_not_judged(tmp_path: Path, content: str) -> None:
    write_scores(tmp_path, **{"val/fid": 40.0})
    (tmp_path / FILE).write_text(content)
    assert read_judged(tmp_path) is None


def test_scores_are_of_one_type_so_that_orders_can_be_compared(tmp_path: Path) -> None:
    write_scores(tmp_path, **{"val/fid": 40.0})
    (tmp_path / FILE).write_text(changed(scores={"judge/fid": 10**30}))
    found = read_judged(tmp_path)
    assert found is not None
    assert isinstance(found.scores["judge/fid"], float)


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=12, unique=True))
def test_the_same_order_agrees_and_the_reverse_disagrees(values: list[float]) -> None:
    same = rank_agreement(judged(own=value, found=2 * value) for value in values)
    reverse = rank_agreement(judged(own=value, found=-value) for value in values)
    assert same is not None
    assert reverse is not None
    assert (same.tau, same.runs, reverse.tau) == (pytest.approx(1), len(values), pytest.approx(-1))
    assert "tau 1.00" in same.sentence()


def test_an_order_needs_three_runs_that_differ_and_were_judged_alike() -> None:
    two = [judged(1, 2), judged(2, 3)]
    assert rank_agreement(two) is None
    assert rank_agreement([*two, judged(3, 1, samples=12)]) is None
    assert rank_agreement([*two, judged(3, 1, versions={"torch": "3"})]) is not None
    assert rank_agreement([judged(1, 5), judged(2, 5), judged(3, 5)]) is None
    assert rank_agreement([*two, judged(3, 4)], score="val/other") is None
