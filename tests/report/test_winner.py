from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from tests.report.studies import Lab, add, params_of

from catsweep.errors import ConfigError, ExportError
from catsweep.report.winner import pick
from steady.confirm import comparison

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
    winner = pick(select, cats.sweeps / "cats", cats.outputs / "cats")
    assert winner.number == number
    assert winner.front == (1, 2)
    assert winner.confirmed is None
    assert winner.seeds is not None
    assert "trained again under other seeds" in winner.seeds.sentence()
    assert "hydra.sweeper.confirm" in winner.seeds.sentence()  # and how to find out


def test_a_confirmed_winner_is_taken_with_its_spread_and_its_equals(cats: Lab) -> None:
    study = optuna.load_study(study_name="cats", storage=f"sqlite:///{cats.sweeps / 'cats/study.db'}")
    again = [(1, 5, (190.0, 0.2)), (1, 6, (210.0, 0.2)), (2, 5, (185.0, 0.8)), (2, 6, (184.0, 0.8))]
    report = comparison.report(study, again, ("val/fid", "val/ssim"), ("minimize", "maximize"))
    report.write(cats.sweeps / "cats")
    winner = pick(None, cats.sweeps / "cats", cats.outputs / "cats")
    by_ssim = pick("ssim", cats.sweeps / "cats", cats.outputs / "cats")
    by_number = pick(3, cats.sweeps / "cats", cats.outputs / "cats")
    (cats.sweeps / "cats" / comparison.FILE).unlink()
    assert winner.number == 2
    assert winner.confirmed is not None
    assert winner.confirmed.tied == (1,)
    assert [winner.role(number) for number in (2, 1)] == ["winner", "not told from it"]
    # The comparison is shown whatever the choice was made by.
    assert by_ssim.confirmed == by_number.confirmed == winner.confirmed
    assert by_number.role(1) == ""  # trial 3 is not in it
    assert winner.choice is not None
    assert "it cannot be told from trial 1" in winner.choice.reason


def test_without_a_finished_trial_there_is_no_winner_but_a_reason(lab: Lab) -> None:
    add(lab.study("cats"), TrialState.FAIL, params_of(0), "failed")
    winner = pick(None, lab.sweeps / "cats", lab.outputs / "cats")
    assert (winner.number, winner.front) == (None, ())
    assert "no finished trial" in winner.remark


def test_a_rule_that_means_nothing_is_refused(cats: Lab) -> None:
    with pytest.raises(ConfigError):
        pick("beauty", cats.sweeps / "cats", cats.outputs / "cats")
    with pytest.raises(ExportError):
        pick(17, cats.sweeps / "cats", cats.outputs / "cats")
