import dataclasses
import json
import shlex
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from tests.report.studies import Lab, add, params_of

from catsweep.errors import ConfigError, ExportError
from catsweep.report.report_data import pick_winner, reproduction
from catsweep.study_record import Entry, StudyRecord
from steady.confirm import confirmation
from steady.study.select import Objective

VALUES = [(200.0, 0.3), (150.0, 0.2), (180.0, 0.9), (300.0, 0.1)]


@pytest.fixture(scope="module")
def cats(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("cats"), empty_database)
    study = lab.study("cats")
    for number, values in enumerate(VALUES):
        add(study, values, params_of(number), "complete")
    return lab


@pytest.mark.parametrize(("select", "number"), [(None, 1), ("fid", 1), ("ssim", 2), ("knee", 1), (3, 3), ("0", 0)])
def test_the_rule_is_that_of_best_model(cats: Lab, select: str | int | None, number: int) -> None:
    winner = pick_winner(select, cats.sweeps / "cats", cats.outputs / "cats")
    assert winner.number == number
    assert winner.front == (1, 2)
    assert winner.confirmed is None
    assert winner.seeds is not None
    assert "trained again under other seeds" in winner.seeds.sentence()
    assert "hydra.sweeper.confirm" in winner.seeds.sentence()  # and how to find out


def test_a_confirmed_winner_is_taken_with_its_spread_and_its_equals(cats: Lab) -> None:
    study = optuna.load_study(study_name="cats", storage=f"sqlite:///{cats.sweeps / 'cats/study.db'}")
    again = [(1, 5, (190.0, 0.2)), (1, 6, (210.0, 0.2)), (2, 5, (185.0, 0.8)), (2, 6, (184.0, 0.8))]
    report = confirmation.compare(study, again, ("val/fid", "val/ssim"), ("minimize", "maximize"))
    report.write(cats.sweeps / "cats")
    winner = pick_winner(None, cats.sweeps / "cats", cats.outputs / "cats")
    by_ssim = pick_winner("ssim", cats.sweeps / "cats", cats.outputs / "cats")
    by_number = pick_winner(3, cats.sweeps / "cats", cats.outputs / "cats")
    (cats.sweeps / "cats" / confirmation.FILE).unlink()
    assert winner.number == 2
    assert winner.confirmed is not None
    assert winner.confirmed.tied == (1,)
    assert [winner.role(number) for number in (2, 1)] == ["winner", "not significantly different"]
    # The comparison is shown whatever the choice was made by.
    assert by_ssim.confirmed == by_number.confirmed == winner.confirmed
    assert by_number.role(1) == ""  # trial 3 is not in it
    assert winner.choice is not None
    assert "it is not significantly different from trial 1" in winner.choice.reason


def test_without_a_finished_trial_there_is_no_winner_but_a_reason(lab: Lab) -> None:
    add(lab.study("cats"), TrialState.FAIL, params_of(0), "failed")
    winner = pick_winner(None, lab.sweeps / "cats", lab.outputs / "cats")
    assert (winner.number, winner.front) == (None, ())
    assert "no finished trial" in winner.remark


def test_a_rule_that_means_nothing_is_refused(cats: Lab) -> None:
    with pytest.raises(ConfigError):
        pick_winner("beauty", cats.sweeps / "cats", cats.outputs / "cats")
    with pytest.raises(ExportError):
        pick_winner(17, cats.sweeps / "cats", cats.outputs / "cats")


FIXED = {"hparams_search": "vae_optuna", "study": "cats", "data.source": "'my photos/cats'", "~logger": "deleted"}
WINNER = Entry(3, "finished", "finished", (1.0,), {"optimizer.lr": 0.00068, "model.aggregate_prior": True}, (), None)


def record(**more: object) -> StudyRecord:
    return StudyRecord("cats", (Objective("val/fid", False),), (WINNER,), (3,), **more)  # type: ignore[arg-type]


def test_the_line_that_was_typed_comes_back_as_a_shell_takes_it() -> None:
    words = ("src/train.py", "-m", "hparams_search=vae_optuna", "hydra.sweeper.confirm={top: 2, seeds: 2}")
    again = reproduction(record(command=words, commit="c0ffee"), None)
    assert shlex.split(again.sweep) == ["python", *words]
    assert (again.exact, again.winner, again.commit) == (True, "", "c0ffee")


def test_without_it_the_study_gives_one_and_says_so() -> None:
    again = reproduction(record(contract={"fixed": FIXED}, total=30), None)
    assert shlex.split(again.sweep) == [
        "python", "src/train.py", "-m", "hparams_search=vae_optuna", "study=cats", "data.source='my photos/cats'",
        "trials=30", "~logger",
    ]  # fmt: skip
    assert not again.exact


def test_the_winner_alone_is_no_part_of_the_study() -> None:
    line = shlex.split(reproduction(record(contract={"fixed": FIXED}), WINNER).winner)
    assert "-m" not in line
    assert "study=cats" not in line
    assert line[-3:] == ["optimizer.lr=0.00068", "model.aggregate_prior=true", "~logger"]


def test_the_winners_keys_have_their_prefix_and_its_strings_their_quotes() -> None:
    winner = Entry(
        0, "finished", "finished", (1.0,), {"x": 0.5, "name": "null", "drop": None, "policy": "[a]"}, (), None
    )
    contract = {"fixed": {"+seed": "3"}, "space": {"++x": "float 0..1", "name": "choice('null')"}}
    line = shlex.split(reproduction(record(contract=contract, exact=True), winner).winner)
    assert line[2:] == ["+seed=3", "++x=0.5", "name='null'", "drop=null", "policy=[a]"]
    older = shlex.split(reproduction(record(contract=contract), winner).winner)
    assert older[4] == "name=null"  # so its job had it


def test_the_winner_alone_has_what_a_study_leaves_free_and_its_threads(tmp_path: Path) -> None:
    command = [
        "src/train.py", "-m", "hparams_search=vae_optuna", "study=cats", "trials=9", "rungs=[0.5]", "~logger",
        "hydra.sweeper.sampler.seed=2", "x=${y}", "optimizer.lr=choice(1,2)", "+seed=3", "trainer.threads=1",
    ]  # fmt: skip
    contract = {"fixed": FIXED | {"seed": "3"}, "space": {"optimizer.lr": "choice(1, 2)"}}
    winner = dataclasses.replace(WINNER, run=tmp_path)

    def line(**provenance: object) -> list[str]:
        (tmp_path / "provenance.json").write_text(json.dumps(provenance))
        return shlex.split(reproduction(record(contract=contract), winner).winner)[8:]

    machine = {"threads": 2}
    assert line(command=command, machine=machine) == ["rungs=[0.5]", "trainer.threads=1"]
    assert line(command=command[:-1], machine=machine) == ["rungs=[0.5]", "trainer.threads=2"]  # its slot's share
    assert line(command=["-c", "import os"], machine=machine) == ["trainer.threads=2"]
    assert line(command=[{}], machine=[]) == line(machine={"threads": "2; rm x"}) == line() == []


def test_what_nobody_kept_is_empty() -> None:
    assert reproduction(record(), WINNER) == reproduction(record(), None)
    assert reproduction(record(), None).sweep == ""


@pytest.mark.security
def test_a_line_that_no_sweep_begins_with_is_not_shown() -> None:
    again = reproduction(record(command=("-c", "import os", "-m"), contract={"fixed": FIXED}), None)
    assert not again.exact
    assert shlex.split(again.sweep)[:2] == ["python", "src/train.py"]
