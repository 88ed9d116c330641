"""The sweep's own run: what it holds, that a sweep which goes on continues it, and who calls it."""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from catsweep import judging
from catsweep.grids import save_png
from catsweep.metrics.judge import Judged
from catsweep.metrics.scores import MetricCard
from catsweep.tracking import sweep_run
from catsweep.tracking.loggers import run_id
from steady.confirm import confirmation
from steady.sweep import Sweep

SPACE = {"loss": CategoricalDistribution(["mse", "l1"]), "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}
Read = Callable[[Path], list[Any]]


def add(study: optuna.Study, runs: Path, values: tuple[float, float] | None, slot: int, lr: float) -> None:
    """A trial that took ten seconds in its slot, finished or pruned, with its folder."""
    number = len(study.trials)
    begin = 1000.0 + 10 * number
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE if values else TrialState.PRUNED,
            values=values,
            params={"loss": "mse" if number % 2 else "l1", "optimizer.lr": lr},
            distributions=SPACE,
            user_attrs={"catsweep:runs": [{"slot": slot, "start": begin, "end": begin + 10}]},
        )
    )
    trial = study.trials[number]
    trial.datetime_complete = datetime(2026, 1, 1) + timedelta(seconds=begin)
    folder = runs / str(number)
    save_png(folder / "samples" / "epoch_0001.png", np.full((8, 8, 3), number, np.uint8))
    if values:
        scores = dict(zip(("val/fid", "val/ssim"), values, strict=True))
        (folder / "metrics.json").write_text(json.dumps({"scores": scores}))


def judged(run: Path, recall: float, by_judge: float) -> None:
    """A finished run has a recall, too, and a judge has seen it."""
    scores = json.loads((run / "metrics.json").read_text())["scores"] | {"val/recall": recall}
    (run / "metrics.json").write_text(json.dumps({"scores": scores}))
    card = MetricCard("fid", "dinov2", "ab", "none", "float32", "cd", 32, 24, 0)
    Judged({"judge/fid": by_judge}, {"judge/fid": card}, {}, scores).write(run)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    made = optuna.create_study(study_name="cats", directions=["minimize", "maximize"])
    made.set_user_attr("objective", ["val/fid", "val/ssim"])
    made.set_user_attr(
        "contract", {"space": {"loss": "choice(mse, l1)"}, "facts": {"digest": "d1"}, "config": {"x": 1}}
    )
    runs = tmp_path / "outputs" / "cats"
    for values, lr in (((9.0, 0.2), 1e-3), (None, 2e-3), ((7.0, 0.1), 3e-3), ((8.0, 0.5), 4e-3), ((9.5, 0.1), 5e-3)):
        add(made, runs, values, slot=len(made.trials) % 2, lr=lr)
    return made


@pytest.fixture
def config(logger_node: Callable[[str], DictConfig]) -> DictConfig:
    return OmegaConf.create({"logger": logger_node("wandb")})


def table(record: Any, key: str) -> dict[str, list[Any]]:
    """A logged table, by column."""
    [row] = [row for row in record.history if f"{key}.path" in row]
    content = json.loads((record.folder / "files" / row[f"{key}.path"]).read_text())
    return {name: [cells[i] for cells in content["data"]] for i, name in enumerate(content["columns"])}


@pytest.mark.usefixtures("signed_out")
def test_a_sweep_has_a_run_and_continues_it_when_it_goes_on(
    study: optuna.Study, config: DictConfig, tmp_path: Path, read_all: Read, capfd: pytest.CaptureFixture[str]
) -> None:
    runs, sweeps = tmp_path / "outputs" / "cats", tmp_path / "sweeps" / "cats"
    sweep_run.record(study, runs, sweeps, config)
    add(study, runs, (6.0, 0.6), slot=1, lr=6e-3)
    time.sleep(1.0)  # wandb names the folder of a record by the second
    confirmed = [(5, 7, [6.1, 0.6]), (5, 8, [6.3, 0.6]), (2, 7, [7.9, 0.1]), (2, 8, [7.7, 0.1])]
    confirmation.compare(study, confirmed, ["val/fid", "val/ssim"], ["minimize", "maximize"]).write(sweeps)
    judged(runs / "5", recall=0.25, by_judge=95.5)
    sweep_run.record(study, runs, sweeps, config)
    assert capfd.readouterr() == ("", "")

    first, second = read_all(tmp_path / "outputs")
    for record in (first, second):
        assert record.run["run_id"] == run_id("cats/sweep")
        assert record.run["resume"]
        assert (record.run["run_group"], record.run["job_type"]) == ("cats", "sweep")
        assert record.run["display_name"] == "cats sweep"
        assert record.exit_code == 0
    assert first.config["objectives"] == {"val/fid": "minimize", "val/ssim": "maximize"}
    assert (first.config["space"], first.config["facts"]) == ({"loss": "choice(mse, l1)"}, {"digest": "d1"})

    # history: each finished trial once, in both together
    rows = [[row for row in record.history if "trial" in row] for record in (first, second)]
    assert [[row["trial"] for row in part] for part in rows] == [[0, 2, 3, 4], [5]]
    assert [row["best/val/fid"] for row in rows[0]] == [9.0, 7.0, 7.0, 7.0]
    assert [row["best/val/ssim"] for row in rows[0]] == [0.2, 0.2, 0.5, 0.5]
    assert [row["_step"] for part in rows for row in part] == [1, 2, 3, 4, 5]
    assert [next(row["_step"] for row in r.history if "sweep/pareto.path" in row) for r in (first, second)] == [4, 5]
    defined = {one.get("name"): one for one in first.records["metric"]}
    assert defined["best/val/fid"]["summary"] == {"min": True}
    assert defined["best/val/ssim"]["summary"] == {"max": True}
    assert defined["best/val/fid"]["step_metric"] == "trials"

    # tables
    pareto = table(first, "sweep/pareto")
    assert (pareto["trial"], pareto["val/fid"], pareto["loss"]) == ([2, 3], [7.0, 8.0], ["l1", "mse"])
    assert pareto["samples"] == ["Image", "Image"]
    pictures = [entry for one in first.records["artifact"] for entry in one["manifest"]["contents"]]
    assert sum(entry["path"].endswith("epoch_0001.png") for entry in pictures) == 2
    trials = table(first, "sweep/trials")
    assert (trials["trial"], trials["state"]) == ([2, 3, 0, 4, 1], ["finished"] * 4 + ["pruned"])
    assert trials["seconds"] == [10.0] * 5
    slots = table(first, "sweep/slots")
    assert (slots["trial"], slots["slot"], slots["start"]) == ([0, 1, 2, 3, 4], [0, 1, 0, 1, 0], [0, 10, 20, 30, 40])
    assert "sweep/timeline._type" in next(row for row in first.history if "sweep/pareto.path" in row)
    shares = table(first, "sweep/importance/val/fid_table")
    assert sorted(shares["parameter"]) == ["loss", "optimizer.lr"]
    assert sum(shares["importance"]) == pytest.approx(1)
    confirmed_table = table(second, "sweep/confirmation")
    assert confirmed_table["trial"] == [5, 5, 2, 2]
    assert confirmed_table["role"][0] == "winner"
    assert confirmed_table["val/fid"] == [6.1, 6.3, 7.9, 7.7]

    # what stands beside the objectives, where there is any
    assert not {"val/recall", "judge/fid"} & {*trials, *first.summary}
    found = table(second, "sweep/trials")
    assert (found["trial"][0], found["val/recall"], found["judge/fid"]) == (5, [0.25, *[None] * 5], [95.5, *[None] * 5])
    assert table(second, "sweep/pareto")["judge/fid"] == [95.5]
    assert (second.summary["val/recall"], second.summary["judge/fid"]) == (0.25, 95.5)
    assert second.summary["judge"]["judge"] == "dinov2"

    # summary: of the search alone, then of what was confirmed
    assert (first.summary["winner"], first.summary["objective"]) == (2, 7.0)
    assert (second.summary["winner"], second.summary["objective"]) == (5, pytest.approx(6.2))
    assert {k: v for k, v in second.summary.items() if k.startswith("count/")} == {
        "count/finished": 5,
        "count/pruned": 1,
    }


@pytest.mark.usefixtures("signed_out")
@pytest.mark.parametrize("name", ["csv", "none"])
def test_without_wandb_nothing_is_written(
    study: optuna.Study, logger_node: Callable[[str], DictConfig], tmp_path: Path, name: str
) -> None:
    sweep_run.record(study, tmp_path, tmp_path, OmegaConf.create({"logger": logger_node(name)}))
    sweep_run.record(study, tmp_path, tmp_path, OmegaConf.create({}))
    assert not list(tmp_path.rglob("*.wandb"))


@pytest.mark.usefixtures("signed_out")
def test_disabled_leaves_no_trace_in_the_study(study: optuna.Study, config: DictConfig, tmp_path: Path) -> None:
    config.logger.mode = "disabled"
    sweep_run.record(study, tmp_path / "outputs" / "cats", tmp_path, config)
    assert sweep_run.RECORDED not in study.user_attrs
    assert not list(tmp_path.rglob("*.wandb"))


def test_the_timeline_has_a_bar_for_each_stay() -> None:
    figure = sweep_run.timeline(
        [[0, 0, 0.0, 10.0, "finished"], [1, 1, 1.0, 4.0, "pruned"], [2, 1, 5.0, 9.0, "finished"]]
    )
    assert [bar.name for bar in figure.data] == ["finished", "pruned"]
    assert (list(figure.data[0].base), list(figure.data[0].x)) == ([0.0, 5.0], [10.0, 4.0])
    assert list(figure.data[0].y) == ["slot 0", "slot 1"]


# --- how the sweep calls it

CALLED: list[dict[str, Any]] = []


def remember(**given: Any) -> None:
    CALLED.append(given)


def fail(**given: Any) -> None:
    raise RuntimeError("no disk")


def ended(on_end: str | list[str] | None) -> None:
    names = () if on_end is None else (on_end,) if isinstance(on_end, str) else tuple(on_end)
    sweep = SimpleNamespace(options=SimpleNamespace(on_end=names, record=Path("sweeps/cats")), config="config")
    Sweep.call_on_end(sweep, "study", Path("outputs/cats"))  # type: ignore[arg-type]


def test_any_function_can_be_called_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_run, "remember", remember, raising=False)
    CALLED.clear()
    ended(None)
    ended("catsweep.tracking.sweep_run.remember")
    given = {"study": "study", "folder": Path("outputs/cats"), "study_folder": Path("sweeps/cats"), "config": "config"}
    assert [given] == CALLED
    ended(["catsweep.tracking.sweep_run.remember", "catsweep.tracking.sweep_run.remember"])
    assert [given, given, given] == CALLED


def test_its_failure_is_said_and_harms_no_sweep(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweep_run, "fail", fail, raising=False)
    monkeypatch.setattr(sweep_run, "remember", remember, raising=False)
    CALLED.clear()
    ended(["catsweep.tracking.sweep_run.fail", "catsweep.tracking.sweep_run.remember"])
    assert len(CALLED) == 1
    assert "catsweep.tracking.sweep_run.fail failed; the study is complete without it" in caplog.text
    assert "no disk" in caplog.text


def test_our_sweeps_name_it(root: Path) -> None:
    named = OmegaConf.load(root / "conf/hydra/sweeper/steady.yaml").on_end
    assert [get_method(name) for name in named] == [judging.judge_study, sweep_run.record]
