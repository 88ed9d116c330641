"""Who is judged and when: runs of tiny nets, by a network of a few kilobytes, never by a file of this machine."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial
from tests import onnx_networks

from catsweep import judging
from catsweep.data.datamodule import CatDataModule
from catsweep.errors import MetricError
from catsweep.instantiation import instantiate
from catsweep.metrics.judge import FILE, NAMES, Judge, read_judged
from catsweep.runs import load_run
from catsweep.tracking import loggers
from catsweep.training import fit
from catsweep.training.preflight import facts
from steady.study import meta

Compose = Callable[..., DictConfig]
pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("quick_scorers")]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_networks.write(tmp_path_factory.mktemp("judge") / "tiny.onnx", shape=("N", 3, 32, 32), side=32)


@pytest.fixture(scope="session")
def composed(compose: Compose, network: Path, graphs: Path) -> Compose:
    """A run that `network` judges."""

    def composed(*overrides: str) -> DictConfig:
        words = ["metrics/judge=onnx", f"judge.extractor.file={network}", "judge.extractor.pool=cls"]
        words += ["judge.extractor.threads=1", "judge.samples=24", f"judge.cache_root={graphs}", "epochs=1"]
        return compose(*words, *overrides)

    return composed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["judge.extractor.file=."], r"Expected a network in \.?, but: Is a directory"),
        (["judge.extractor.file=no.onnx"], r"judge\.extractor\.file=no\.onnx; it is not there"),
        (["metrics=inception", "metrics.extractor.weights=no.pth"], r"expects its weights in no\.pth; there is no"),
    ],
)
def test_a_file_that_is_no_network_is_told_before_photos_are_prepared(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr(CatDataModule, "prepare_data", lambda self: pytest.fail("photos were prepared"))
    tried: Any = SimpleNamespace(problems=lambda attempt: pytest.fail("a search was tried"))
    for begin in (lambda cfg: fit.run(cfg, tmp_path / "run"), lambda cfg: facts(cfg, tried)):
        with pytest.raises(MetricError, match=said):
            begin(composed(*words))


TOLD: list[Any] = []  # what the logger of `finished` was told


@pytest.fixture(scope="session")
def finished(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was judged at its end; to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loggers, "summarise", lambda log_to, *given: TOLD.append(given))
        fit.run(composed(), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run that nobody has judged."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / FILE).unlink()
    return folder


@pytest.fixture
def judge(composed: Compose) -> Judge:
    cfg = composed()
    data = instantiate(cfg.data)
    data.prepare_data()
    made = judging.factory(cfg)
    assert made is not None
    return made(beside=instantiate(cfg.metrics)(ready=data.ready))


def test_a_run_is_judged_at_its_end_beside_its_scores(finished: Path) -> None:
    judged = read_judged(finished)
    assert judged is not None
    assert tuple(judged.scores) == NAMES
    assert judged.judge == "tiny"
    assert judged.cards["judge/fid"].samples == 24
    assert {"val/fid", "judge/fid"} <= set(judged.reference)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert judged.recorded == metrics["scores"]
    assert not any(name.startswith("judge/") for name in metrics["scores"])


def test_the_logger_is_told_of_both(finished: Path) -> None:
    ((scores, cards, _),) = TOLD
    assert {*NAMES, "val/fid"} <= set(scores) == set(cards)


def test_a_trial_is_not_judged_while_the_sweep_goes_on(composed: Compose, tmp_path: Path) -> None:
    fit.run(composed("trial.number=0", "trial.study=cats"), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / FILE).exists()


@pytest.mark.parametrize("option", ["dinov2", "onnx"])
def test_a_judge_that_was_named_and_is_not_there_is_told_before_anything_is_trained(
    compose: Compose, tmp_path: Path, option: str
) -> None:
    cfg = compose(f"metrics/judge={option}", f"judge.extractor.file={tmp_path / 'no.onnx'}")
    for step in (lambda: fit.run(cfg, tmp_path / "run"), lambda: facts(cfg)):
        with pytest.raises(MetricError, match=r"no\.onnx; it is not there\. `make judge` fetches it"):
            step()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_without_the_file_one_line_says_how_to_get_it(
    compose: Compose,
    finished: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cfg = compose("metrics/judge=auto", f"judge.extractor.file={tmp_path / 'no.onnx'}", "epochs=1")
    with caplog.at_level(logging.INFO):
        fit.run(cfg, tmp_path / "run")
    assert len([line for line in caplog.messages if "`make judge` fetches it" in line]) == 1
    assert not (tmp_path / "run" / FILE).exists()
    scores = [json.loads((run / "metrics.json").read_text())["scores"] for run in (finished, tmp_path / "run")]
    assert scores[0] == scores[1]  # nor has the judge changed anything of the run that it has judged
    facts(cfg)
    for other, times in ((cfg, 0), (compose("metrics/judge=auto", f"judge.extractor.file={tmp_path / 'new.onnx'}"), 1)):
        for _ in range(2):  # it is said once in a process
            judging.judge_study(None, tmp_path, tmp_path, other)  # type: ignore[arg-type]  # it is not looked at
        said = capsys.readouterr().out
        assert said.count("`make judge` fetches it; metrics/judge=none leaves this out.") == times


def test_of_no_judge_nothing_is_said(compose: Compose) -> None:
    cfg = compose("metrics/judge=none")
    assert judging.factory(cfg) is None
    assert judging.absent(cfg) == ""
    assert judging.factory(OmegaConf.create({})) is None


def test_by_default_the_judge_is_used_if_it_was_fetched(root: Path) -> None:
    for command in ("train", "export", "evaluate"):
        assert {"metrics/judge": "auto"} in OmegaConf.load(root / f"conf/{command}.yaml").defaults
    assert OmegaConf.load(root / "conf/metrics/judge/auto.yaml").required is False


def test_it_is_no_part_of_the_contract(root: Path) -> None:
    ignored = OmegaConf.load(root / "conf/hydra/sweeper/steady.yaml").contract_ignore
    assert {"judge", "metrics.judge"} <= set(ignored)


def test_a_run_goes_on_under_another_judge(composed: Compose, run: Path) -> None:
    fit.run(composed("epochs=2", f"resume={run}", "judge.samples=12"), run)
    judged = read_judged(run)
    assert judged is not None
    assert judged.cards["judge/fid"].samples == 12


def test_a_finished_run_is_judged_as_at_its_end_and_only_once(
    judge: Judge, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = judging.judge_run(judge, run)
    assert judged == read_judged(run) == read_judged(finished)
    calls: list[Any] = []
    look = judge.judge
    monkeypatch.setattr(judge, "judge", lambda *given: (calls.append(given), look(*given))[1])
    assert judging.judge_run(judge, run) == judged
    assert calls == []
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["scores"]["val/fid"] += 1  # as of a run that was gone on with
    (run / "metrics.json").write_text(json.dumps(metrics))
    judging.judge_run(judge, run)
    assert len(calls) == 1
    monkeypatch.setattr(judge.scorer, "seed", 1)
    judging.judge_run(judge, run)
    assert len(calls) == 2


def test_a_run_on_other_photos_is_not_judged(judge: Judge, run: Path) -> None:
    (run / "provenance.json").write_text(json.dumps({"data_digest": "00"}))
    with pytest.raises(MetricError, match="trained on other photos"):
        judging.judge_run(judge, run)
    assert not (run / FILE).exists()


@pytest.mark.security
def test_a_run_with_a_link_out_of_it_is_not_written_to(judge: Judge, run: Path, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("mine")
    (run / FILE).symlink_to(tmp_path / "own.json")
    with pytest.raises(MetricError, match="link out of the run"):
        judging.judge_run(judge, run)
    assert (tmp_path / "own.json").read_text() == "mine"


class Search:
    """A study of four trials with run folders, the third with the best FID and the fourth with the best SSIM."""

    values = ((50.0, 0.2), (40.0, 0.1), (10.0, 0.3), (30.0, 0.5))

    def __init__(self, folder: Path, run: Path, database: Path) -> None:
        self.folder, self.run = folder / "outputs" / "cats", run
        shutil.copyfile(database, folder / "study.db")
        self.storage = f"sqlite:///{folder / 'study.db'}"
        self.study = self.of("cats")
        self.study.set_user_attr("objective", ["val/fid", "val/ssim"])
        for number, values in enumerate(self.values):
            self.add(self.study, str(number), values, params={"x": number / 10})

    def of(self, name: str) -> optuna.Study:
        return optuna.create_study(study_name=name, storage=self.storage, directions=["minimize", "maximize"])

    def add(self, study: optuna.Study, place: str, values: tuple[float, float], **more: Any) -> None:
        params = more.pop("params", {})
        distributions: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in params}
        study.add_trial(create_trial(values=list(values), params=params, distributions=distributions, **more))
        folder = Path(shutil.copytree(self.run, self.folder / place))
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["scores"] |= dict(zip(("val/fid", "val/ssim"), values, strict=True))
        (folder / "metrics.json").write_text(json.dumps(metrics))

    def confirm(self, *seeds: int) -> None:
        runs = self.of("cats.confirm")
        for number, seed in enumerate(seeds):
            noted = {meta.CONFIRMS: 2, meta.SEED: seed, meta.FOLDER: f"confirm/{number}"}
            self.add(runs, f"confirm/{number}", (11.0 + number, 0.3), user_attrs=noted)

    def judged(self) -> list[str]:
        return sorted(file.parent.relative_to(self.folder).as_posix() for file in self.folder.rglob(FILE))


@pytest.fixture
def search(tmp_path: Path, run: Path, empty_database: Path) -> Iterator[Search]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield Search(tmp_path, run, empty_database)
    optuna.logging.set_verbosity(level)


def judge_study(search: Search, cfg: DictConfig) -> None:
    judging.judge_study(study=search.study, folder=search.folder, study_folder=search.folder, config=cfg)


def test_the_pareto_set_the_best_and_the_confirmed_are_judged(
    search: Search, composed: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    search.confirm(7, 8)
    judge_study(search, composed())
    assert search.judged() == ["1", "2", "3", "confirm/0", "confirm/1"]  # trial 0 is worse in everything
    said = capsys.readouterr().out
    assert "Judging 5 runs by tiny, 24 images of each" in said
    assert "trial 2: judge/fid" in said
    assert "trial 2 under seed 7: judge/fid" in said


def test_a_sweep_that_goes_on_judges_what_is_new(
    search: Search, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    load = load_run
    monkeypatch.setattr(judging, "load_run", lambda run, *more: (seen.append(run), load(run, *more))[1])
    judge_study(search, composed())
    assert len(seen) == 3
    search.add(search.study, "4", (5.0, 0.4), params={"x": 0.9})
    judge_study(search, composed())
    assert seen[3:] == [search.folder / "4"]


def test_one_that_cannot_be_judged_costs_only_itself(
    search: Search, composed: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    (search.folder / "2/checkpoints/best.ckpt").write_bytes(b"torn")
    judge_study(search, composed())
    assert search.judged() == ["1", "3"]
    assert "trial 2 is not judged: The checkpoint" in caplog.text


def test_order_is_compared_where_there_are_enough(
    search: Search, composed: Compose, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Judge.judge

    def ordered(self: Judge, model: Any, recorded: Any) -> Any:
        judged = look(self, model, recorded)
        judged.scores["judge/fid"] = 2 * recorded["val/fid"]  # type: ignore[index]
        return judged

    monkeypatch.setattr(Judge, "judge", ordered)
    judge_study(search, composed())
    assert "Over 3 judged runs, judge/fid and val/fid order them alike to Kendall's tau 1.00" in capsys.readouterr().out


def test_a_study_without_a_finished_trial_has_nothing_to_judge(
    search: Search, composed: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    judging.judge_study(search.of("empty"), search.folder, search.folder, composed())
    assert capsys.readouterr().out == ""
    assert search.judged() == []
