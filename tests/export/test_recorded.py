"""What a folder tells of its scores; `test_evaluation.py` scores again with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from catsweep.errors import ExportError
from catsweep.export.intervals import Interval
from catsweep.export.recorded import Recorded, open_photos, other_versions
from catsweep.metrics.scores import MetricCard

CARD = MetricCard(
    "fid", "means", "00", "none", "float32", "d", 24, 40, seed=4, versions={"torch": "1", "onnxruntime": "2"}
)
INTERVAL = {"low": 1.0, "high": 3.0, "level": 0.95, "draws": 8, "method": "counted"}


def write(folder: Path, **metrics: object) -> Path:
    content = {"scores": {"val/fid": 2}, "cards": {"val/fid": CARD.to_dict()}} | metrics
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "provenance.json").write_text(json.dumps({"data_digest": "d1"}))
    return folder


def test_scores_cards_and_intervals_are_read(tmp_path: Path) -> None:
    found = Recorded.read(write(tmp_path, intervals={"val/fid": INTERVAL}))
    assert (found.scores, found.cards, found.data_digest, found.seed) == ({"val/fid": 2.0}, {"val/fid": CARD}, "d1", 4)
    assert found.intervals == {"val/fid": Interval(1, 3, 0.95, 8, "counted")}
    assert Recorded.read(write(tmp_path)).intervals == {}


@pytest.mark.parametrize(
    "metrics",
    [
        {"scores": {}},
        {"scores": [1]},
        {"scores": {"val/fid": None}},
        {"cards": {}},
        {"cards": {"val/fid": {"metric": "fid"}}},
        {"intervals": {"val/fid": {"low": 1}}},
    ],
    ids=str,
)
def test_what_is_no_record_is_refused(tmp_path: Path, metrics: dict[str, object]) -> None:
    with pytest.raises(ExportError, match=r"metrics\.json.*export it again"):
        Recorded.read(write(tmp_path, **metrics))


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"config\.yaml"):
        open_photos(Recorded.read(write(tmp_path)))


def test_libraries_are_compared_where_both_cards_name_them_or_one_does(tmp_path: Path) -> None:
    recorded = Recorded.read(write(tmp_path))
    now = replace(CARD, versions={"torch": "1.1", "torchmetrics": "3"})
    assert other_versions(recorded, {"val/fid": CARD, "val/new": now}) == []
    assert other_versions(recorded, {"val/fid": now}) == [
        "onnxruntime 2, now none", "torch 1, now 1.1", "torchmetrics none, now 3",
    ]  # fmt: skip
