"""What folders of runs and bundles hold, read typed."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from catsweep.errors import ConfigError, DataError, ExportError
from catsweep.runs import SCORES, Bundle, RunDir

METRICS = {"scores": {"val/fid": 2, "val/kid": 0.5}, "cards": {"val/fid": {}}, "checkpoint": "last", "epoch": 10}


def write(folder: Path, **metrics: Any) -> RunDir:
    (folder / "metrics.json").write_text(json.dumps(METRICS | metrics))
    return RunDir(folder)


def test_metrics_are_read_typed(tmp_path: Path) -> None:
    found = write(tmp_path).metrics()
    assert found.scores == found.finite == {"val/fid": 2.0, "val/kid": 0.5}
    assert found.score("val/kid") == 0.5
    assert (found.cards, found.intervals, found.checkpoint, found.epoch) == ({"val/fid": {}}, {}, "last", 10.0)
    assert RunDir(tmp_path).scored_checkpoint() == "last"


@pytest.mark.security
@pytest.mark.parametrize("scores", [None, [1], 3, {"val/fid": None}, {"val/fid": "much"}, {"val/fid": [1]}])
def test_scores_that_are_none_are_refused(tmp_path: Path, scores: object) -> None:
    found = write(tmp_path, scores=scores).metrics()
    with pytest.raises(DataError, match=r"metrics\.json holds"):
        _ = found.scores
    with pytest.raises(DataError, match=r"metrics\.json holds no score val/fid"):
        found.score("val/fid")
    assert found.finite == {}


def test_scores_that_cannot_be_drawn_are_not_finite(tmp_path: Path) -> None:
    scores = {"a": 1e200, "b": math.nan, "c": None, "d": 1.0}
    assert write(tmp_path, scores=scores).metrics().finite == {"d": 1.0}


@pytest.mark.security
@pytest.mark.parametrize("key", ["cards", "intervals"])
def test_parts_that_are_no_objects_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match=f"holds {key} that are no object"):
        getattr(write(tmp_path, **{key: [1]}).metrics(), key)


@pytest.mark.security
@pytest.mark.parametrize("epoch", [None, "ten", [1], {}])
def test_an_epoch_that_nobody_knows_is_infinite(tmp_path: Path, epoch: object) -> None:
    assert write(tmp_path, epoch=epoch).metrics().epoch == math.inf


def test_a_run_without_metrics_was_not_scored(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not the record of a finished run"):
        RunDir(tmp_path).scored_checkpoint()
    with pytest.raises(DataError, match=r"metrics\.json cannot be read"):
        RunDir(tmp_path).metrics()


def test_the_other_documents(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.choice() is None
    (tmp_path / "config.yaml").write_text("model: {latent_size: 8}\n")
    for name in ("provenance.json", "judge.json", "choice.json"):
        (tmp_path / name).write_text(json.dumps({"name": name}))
    assert run.config() == {"model": {"latent_size": 8}}
    assert [run.provenance(), run.judgement(), run.choice()] == [
        {"name": name} for name in ("provenance.json", "judge.json", "choice.json")
    ]
    (tmp_path / "config.yaml").write_text("model: ${oc.env:HOME}\n")
    with pytest.raises(ConfigError, match=r"oc\.env"):
        run.config()


def test_a_document_is_written_whole(tmp_path: Path) -> None:
    RunDir(tmp_path).write(SCORES, {"scores": {"ä": 1}}, ascii_only=False)
    assert (tmp_path / "metrics.json").read_text(encoding="utf-8") == '{\n  "scores": {\n    "ä": 1\n  }\n}\n'
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["metrics.json"]


def test_a_grid_is_the_last_up_to_an_epoch(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.grid("samples") is None
    (tmp_path / "samples").mkdir()
    for name in ("epoch_0005.png", "epoch_0010.png", "epoch_x.png", "epoch_10000.png"):
        (tmp_path / "samples" / name).touch()
    found = [run.grid("samples", until) for until in (math.inf, 10, 9, 1)]
    names = [None if page is None else page.name for page in found]
    assert names == ["epoch_10000.png", "epoch_0010.png", "epoch_0005.png", "epoch_0005.png"]


def test_a_bundle_is_known_by_what_draws(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No bundle in"):
        Bundle.latest(tmp_path)
    for number, name in enumerate(("b", "a", ".unfinished")):
        (tmp_path / name).mkdir()
        (tmp_path / name / Bundle.GENERATOR).touch()
        os.utime(tmp_path / name / Bundle.GENERATOR, (number, number))
    assert Bundle.latest(tmp_path) == tmp_path / "a"
    assert Bundle.is_at(tmp_path / "a")
    assert not Bundle.is_at(tmp_path)
