import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.fake_sweeps import judged_as

from catsweep.errors import ConfigError, ExportError, TakenError
from catsweep.export import choice
from catsweep.runs import RunDir

UNKNOWN = "No trial was trained again under other seeds, so how much it varies is not known."
UNKNOWN_LINE = "the line that started the sweep, with 'hydra.sweeper.confirm={top: 3, seeds: 3}'"
FRONT = [(50.0, 0.9), (40.0, 0.2), (42.0, 0.8), (60.0, 0.7)]  # trial 3 is dominated


@pytest.fixture
def cfg(sweep):
    return OmegaConf.create(
        {
            "study": None,
            "select": "fid",
            "sweeps": str(sweep.sweeps),
            "outputs": str(sweep.outputs),
            "out": str(sweep.outputs / "best_model"),
        }
    )


@pytest.mark.parametrize(("select", "trial"), [("fid", 1), ("ssim", 0), ("knee", 2), (3, 3)])
def test_chosen_trial_is_copied_whole(sweep, cfg, select, trial) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = select
    folder = choice.run(cfg)
    assert folder == sweep.outputs / "best_model"
    for name in ("checkpoints/best.ckpt", "config.yaml", "metrics.json", "provenance.json"):
        assert (folder / name).read_bytes() == (sweep.outputs / "s" / str(trial) / name).read_bytes()
    assert json.loads((folder / "choice.json").read_text())["trial"] == trial


def test_a_rule_that_there_is_not_is_told_with_those_that_there_are(sweep, cfg) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = "Judge"
    with pytest.raises(ConfigError, match=r"Choose an objective \(val/fid, val/ssim\), 'knee', 'judge', or the number"):
        choice.run(cfg)


def test_what_the_judge_said_goes_with_the_model(sweep, cfg) -> None:
    sweep.with_runs("s", FRONT)
    judged_as(sweep.outputs / "s" / "1", 95.0)
    said = (sweep.outputs / "s" / "1" / "judge.json").read_bytes()
    assert (choice.run(cfg) / "judge.json").read_bytes() == said


def test_the_judge_may_choose_among_what_it_has_judged(sweep, cfg, capsys) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = "judge"
    with pytest.raises(ExportError, match=r"no finished trial of s was judged. `make judge` fetches"):
        choice.run(cfg)
    judged_as(sweep.outputs / "s" / "1", 95.0)
    judged_as(sweep.outputs / "s" / "3", 90.0)
    judged_as(sweep.outputs / "s" / "0", 10.0, recorded={"val/fid": 1.0})  # of other scores, so of another model
    found = json.loads((choice.run(cfg) / "choice.json").read_text())
    left = " (left out is what it says of trial 0: damaged, or of other scores)"
    best = "the one that the judge likes best"
    assert (found["trial"], found["selected_by"]) == (3, f"{best} of the 2 that were judged{left}")
    (sweep.outputs / "s" / "3" / "judge.json").unlink()
    found = json.loads((choice.run(cfg) / "choice.json").read_text())
    assert (found["trial"], found["selected_by"]) == (1, f"{best}, the only one that was judged{left}")


def test_what_was_said_of_other_scores_stays_behind_and_that_is_told(sweep, cfg, capsys) -> None:
    sweep.with_runs("s", FRONT)
    judged_as(sweep.outputs / "s" / "1", 95.0, recorded={"val/fid": 1.0})
    assert not (choice.run(cfg) / "judge.json").exists()
    assert "What the judge said of it is left out" in " ".join(capsys.readouterr().out.split())


def test_samples_are_those_of_the_scored_checkpoint(sweep, cfg) -> None:
    sweep.with_runs("s", [(1.0, 1.0)])
    assert (choice.run(cfg) / "samples.png").read_text() == "drawn at 10"  # training went on to 15


def test_run_too_short_for_samples_is_still_a_model(sweep, cfg) -> None:
    sweep.with_runs("s", [(1.0, 1.0)])
    shutil.rmtree(sweep.outputs / "s" / "0" / "samples")
    assert not (choice.run(cfg) / "samples.png").exists()


def test_checkpoint_is_the_one_that_was_scored(sweep, cfg) -> None:
    sweep.with_runs("s", [(1.0, 1.0)])
    run = sweep.outputs / "s" / "0"
    shutil.copyfile(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    metrics = json.loads((run / "metrics.json").read_text()) | {"checkpoint": "last"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    folder = choice.run(cfg)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert RunDir(folder).scored_checkpoint() == "last"


def test_choice_is_explained(sweep, cfg, capsys) -> None:
    sweep.with_runs("s", FRONT)
    folder = choice.run(cfg)
    assert json.loads((folder / "choice.json").read_text()) == {
        "study": "s",
        "trial": 1,
        "selected_by": "the lowest val/fid",
        "run": (sweep.outputs / "s" / "1").as_posix(),
        "objectives": [
            {"name": "val/fid", "direction": "minimize"},
            {"name": "val/ssim", "direction": "maximize"},
        ],
        "values": {"val/fid": 40.0, "val/ssim": 0.2},
        "params": {"optimizer.lr": 0.25},
        "runners_up": [
            {
                "trial": number,
                "run": (sweep.outputs / "s" / str(number)).as_posix(),
                "values": {"val/fid": fid, "val/ssim": ssim},
            }
            for number, fid, ssim in [(2, 42.0, 0.8), (0, 50.0, 0.9), (3, 60.0, 0.7)]
        ],
        "pareto_set": [
            {"trial": 1, "values": {"val/fid": 40.0, "val/ssim": 0.2}, "params": {"optimizer.lr": 0.25}},
            {"trial": 2, "values": {"val/fid": 42.0, "val/ssim": 0.8}, "params": {"optimizer.lr": 0.2}},
            {"trial": 0, "values": {"val/fid": 50.0, "val/ssim": 0.9}, "params": {"optimizer.lr": 1 / 3}},
        ],
        "finished_trials": 4,
        "seeds": {"known": False, "confirm_with": UNKNOWN_LINE, "sentence": f"{UNKNOWN} To find out: {UNKNOWN_LINE}"},
    }
    page = (folder / "choice.md").read_text()
    assert "| trial | val/fid ↓ | val/ssim ↑ |\n| --- | ---: | ---: |\n| **1** | 40 | 0.2 |\n| 2 | 42 | 0.8 |" in page
    assert "- `optimizer.lr=0.25`" in page
    printed = capsys.readouterr().out
    assert "1 ◀" in printed
    assert f"Trial 1 of study s: the lowest val/fid. Of 4 finished trials, 3 are Pareto-optimal.\n{UNKNOWN}" in printed
    assert UNKNOWN in page


def test_runners_up_are_other_configurations_whose_runs_are_there(sweep, cfg) -> None:
    sweep.with_runs("s", FRONT)
    shutil.rmtree(sweep.outputs / "s" / "2")
    found = json.loads((choice.run(cfg) / "choice.json").read_text())
    assert [one["trial"] for one in found["runners_up"]] == [0, 3]


def test_dominated_trial_asked_for_is_shown_beside_the_pareto_set(sweep, cfg, capsys) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = 3
    folder = choice.run(cfg)
    assert "| **3** | 60 | 0.7 |" in (folder / "choice.md").read_text()
    assert "3 ◀" in capsys.readouterr().out
    assert [point["trial"] for point in json.loads((folder / "choice.json").read_text())["pareto_set"]] == [1, 2, 0]


def test_second_choice_replaces_the_first_without_a_trace(sweep, cfg) -> None:
    sweep.with_runs("s", FRONT)
    (choice.run(cfg) / "generated_0.png").write_text("of the first choice")
    cfg.select = "ssim"
    folder = choice.run(cfg)
    assert json.loads((folder / "choice.json").read_text())["trial"] == 0
    assert not (folder / "generated_0.png").exists()


def test_failure_midway_leaves_the_earlier_best_model(sweep, cfg, monkeypatch) -> None:
    sweep.with_runs("s", FRONT)
    folder = choice.run(cfg)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    real = shutil.copy2
    copied: list[str] = []

    def full_disk(source, target):
        if len(copied) == 2:
            raise OSError("No space left on device")
        copied.append(source)
        return real(source, target)

    monkeypatch.setattr(shutil, "copy2", full_disk)
    cfg.select = "ssim"
    with pytest.raises(OSError, match="No space"):
        choice.run(cfg)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in sweep.outputs.iterdir()) == ["best_model", "s"]


@pytest.mark.parametrize("lost", ["checkpoints/best.ckpt", "provenance.json"])
def test_lost_part_is_named_and_the_earlier_best_model_stays(sweep, cfg, lost) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = "ssim"
    choice.run(cfg)
    (sweep.outputs / "s" / "1" / lost).unlink()
    cfg.select = "fid"
    with pytest.raises(ExportError, match=f"lacks {lost}"):
        choice.run(cfg)
    assert json.loads((sweep.outputs / "best_model" / "choice.json").read_text())["trial"] == 0


@pytest.mark.security
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("checkpoints/best.ckpt", b"", r"best\.ckpt is torn, or none of catsweep's \(0 bytes"),
        ("checkpoints/best.ckpt", b"PK\x03\x04" + bytes(900), r"best\.ckpt is torn"),
        ("metrics.json", b"{", r"select=NUMBER|No run folder in"),
    ],
)
def test_torn_part_is_named_and_the_earlier_best_model_stays(sweep, cfg, file, content, said) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = "ssim"
    choice.run(cfg)
    (sweep.outputs / "s" / "1" / file).write_bytes(content)
    cfg.select = "fid"
    with pytest.raises(ExportError, match=rf"{said}[\s\S]*(select=NUMBER|No run folder)"):
        choice.run(cfg)
    assert json.loads((sweep.outputs / "best_model" / "choice.json").read_text())["trial"] == 0


def test_study_may_be_called_by_a_number(sweep, cfg) -> None:
    sweep.with_runs("2026", FRONT)
    sweep.with_runs("2027", FRONT)
    cfg.study = 2026
    assert json.loads((choice.run(cfg) / "choice.json").read_text())["study"] == "2026"


def test_word_that_is_no_rule_touches_nothing(sweep, cfg) -> None:
    sweep.with_runs("s", FRONT)
    cfg.select = "prettiest"
    with pytest.raises(ConfigError, match="select=prettiest"):
        choice.run(cfg)
    assert not (sweep.outputs / "best_model").exists()


@pytest.mark.parametrize("metrics", ["", "{}", "[1]"])
def test_scored_checkpoint_of_an_unfinished_run(tmp_path, metrics) -> None:
    (tmp_path / "metrics.json").write_text(metrics)
    with pytest.raises(ExportError, match="not the record of a finished run"):
        RunDir(tmp_path).scored_checkpoint()


def test_command_line_on_an_empty_project(root, tmp_path) -> None:
    command = [sys.executable, str(root / "src" / "best_model.py"), "select=knee"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("StudyError: No study in sweeps/")
    assert "Run a sweep first" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.security
@pytest.mark.parametrize("name", ["../../../victim", "/etc/passwd", "", ".", None, 3, "Best"])
def test_a_checkpoint_is_one_of_two_names(sweep, cfg, name) -> None:
    """It is part of a path that is copied from, and to."""
    sweep.with_runs("s", FRONT)
    for run in (sweep.outputs / "s").iterdir():
        metrics = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps({**metrics, "checkpoint": name}))
    with pytest.raises(ExportError, match="must name the checkpoint that was scored, best or last; got"):
        choice.run(cfg)


@pytest.mark.security
@pytest.mark.parametrize("part", ["provenance.json", "checkpoints/best.ckpt", "samples/epoch_0010.png"])
def test_parts_that_are_links_out_of_the_run_are_not_copied(sweep, cfg, tmp_path, part) -> None:
    sweep.with_runs("s", FRONT)
    (secret := tmp_path / "secret").write_text("{}")
    for run in (sweep.outputs / "s").iterdir():
        (run / part).unlink()
        (run / part).symlink_to(secret)
    with pytest.raises(ExportError, match=f"{part} is a link to a file outside"):
        choice.run(cfg)
    assert not Path(cfg.out).exists()


@pytest.mark.security
def test_a_folder_of_the_user_is_not_replaced(sweep, cfg, tmp_path) -> None:
    sweep.with_runs("s", FRONT)
    (thesis := tmp_path / "thesis" / "chapter.tex").parent.mkdir()
    thesis.write_text("years of work")
    cfg.out = str(thesis.parent)
    with pytest.raises(TakenError, match=r"catsweep did not make chapter\.tex in it.*choose another place: out=DIR"):
        choice.run(cfg)
    assert [path.read_text() for path in thesis.parent.iterdir()] == ["years of work"]
