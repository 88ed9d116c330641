"""What stands beside the objectives, from run folders that may be anybody's."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from catsweep.metrics.judge import Judged, RunScores, better, comparable, run_scores
from catsweep.metrics.scores import MetricCard

CARD = MetricCard("fid", "dinov2", "ab", "none", "float32", "cd", 32, 24, 0)


def judged(fid: float = 95.5, own: dict[str, float] | None = None, judge: str = "dinov2", **more: float) -> Judged:
    card = MetricCard.from_dict(CARD.to_dict() | {"extractor": judge})
    scores = {"judge/fid": fid, **{name.replace("_", "/", 1): value for name, value in more.items()}}
    return Judged(scores, dict.fromkeys(scores, card), {"judge/fid": 42.5}, own or {"val/fid": 40.0})


def run(folder: Path, scores: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"scores": scores or {"val/fid": 40.0}}))
    return folder


def test_both_kinds_of_scores_are_read_in_the_order_of_columns(tmp_path: Path) -> None:
    own = {"val/fid": 40.0, "val/coverage": 0.25, "val/recall": 0.125}
    judged(own=own, judge_recall=0.5, judge_copied=0.0).write(run(tmp_path / "run", own))
    found = run_scores(tmp_path / "run")
    assert list(found.beside) == ["val/recall", "val/coverage", "judge/fid", "judge/recall"]
    assert found.values == own | {"judge/fid": 95.5, "judge/recall": 0.5, "judge/copied": 0.0}
    assert found.judge == "dinov2"


def test_a_run_of_before_there_was_any_of_it_has_nothing(tmp_path: Path) -> None:
    assert run_scores(run(tmp_path / "run")).beside == {}
    assert run_scores(tmp_path / "gone") == run_scores(None) == RunScores()


@pytest.mark.security
@pytest.mark.parametrize(
    "metrics",
    [
        "",
        "[]",
        "{}",
        '{"scores": []}',
        '{"scores": {"val/fid": "<b>"}}',
        '{"scores": {"val/recall": 1e999}}',
        '{"scores": {"val/recall": 1e308}}',
        "[" * 9999,
    ],
)
def test_damaged_scores_are_none(tmp_path: Path, metrics: str) -> None:
    folder = run(tmp_path / "run")
    (folder / "metrics.json").write_text(metrics)
    judged().write(folder)
    assert run_scores(folder).beside == {}


@pytest.mark.security
def test_what_is_elsewhere_is_not_read(tmp_path: Path) -> None:
    judged(judge_recall=0.5).write(run(tmp_path / "elsewhere", {"val/fid": 40.0, "val/recall": 0.5}))
    inner = run(tmp_path / "runs/0")
    for name in ("metrics.json", "judge.json"):
        (inner / name).unlink(missing_ok=True)
        os.symlink(tmp_path / "elsewhere" / name, inner / name)
    os.symlink(tmp_path / "elsewhere", tmp_path / "runs/1")
    assert run_scores(inner) == run_scores(tmp_path / "runs/1", tmp_path / "runs") == RunScores()
    assert run_scores(tmp_path / "runs/../elsewhere", tmp_path / "runs") == RunScores()


@pytest.mark.security
def test_a_strangers_judge_has_known_scores_and_a_short_name_that_can_be_seen() -> None:
    found = RunScores(judged=judged(judge="dino\x1b[2J\n" * 99, **{"judge_<b>": 1.0}))
    assert list(found.values) == ["judge/fid"]
    assert found.judge.isprintable()
    assert len(found.judge) == 60


def test_runs_that_were_judged_otherwise_than_most_lose_the_judges_scores() -> None:
    clip = RunScores({"val/fid": 1.0}, judged(judge="clip"))
    dino = RunScores({"val/fid": 2.0}, judged())
    plain = RunScores({"val/fid": 3.0})
    kept = comparable({0: clip, 1: dino, 2: plain, 3: dino})
    assert kept == {0: RunScores({"val/fid": 1.0}), 1: dino, 2: plain, 3: dino}
    assert comparable({}) == {}
    assert comparable({0: clip, 1: plain}) == {0: clip, 1: plain}


def test_arrows_point_to_where_a_score_is_better() -> None:
    assert [better(name) for name in ("val/fid", "judge/coverage", "judge/copied")] == ["↓", "↑", ""]
