"""What is said of the chosen trial under other seeds, and the line that is to be typed where nothing is known."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from catsweep.selection import Seeds, confirming_line
from steady.confirm.confirmation import Confirmation, ConfirmedTrial

NAMES, DIRECTIONS = ("val/fid", "val/ssim"), ("minimize", "maximize")
FIRST = ConfirmedTrial(2, (42.0, 0.8), {1: (44.0, 0.8), 2: (46.0, 0.81), 3: (45.0, 0.79)})
SECOND = ConfirmedTrial(0, (50.0, 0.9), {1: (47.0, 0.9), 2: (45.0, 0.91), 3: (46.0, 0.89)})
THIRD = ConfirmedTrial(1, (40.0, 0.2), {1: (70.0, 0.8), 2: (72.0, 0.8), 3: (71.0, 0.8)})
FOUND = Confirmation(NAMES, DIRECTIONS, (FIRST, SECOND, THIRD), (0,), (1, 2, 0))


def test_spread_and_what_it_does_not_differ_from_in_each_objective() -> None:
    seeds = Seeds(2, FOUND, followed=False, line="")
    assert seeds.sentence() == (
        "Under 3 other seeds: val/fid 45 ± 1, val/ssim 0.8 ± 0.01; it is not significantly different from trial 0 in "
        "val/fid, is not significantly different from trial 1 in val/ssim."
    )
    assert seeds.to_dict() == {
        "known": True,
        "seeds": [1, 2, 3],
        "mean": {"val/fid": 45.0, "val/ssim": pytest.approx(0.8)},
        "spread": {"val/fid": 1.0, "val/ssim": pytest.approx(0.01)},
        "not_told_from": {"val/fid": [0], "val/ssim": [1]},
        "winner": 2,
        "sentence": seeds.sentence(),
    }


def test_of_objectives_alike_it_is_said_once() -> None:
    last = Seeds(1, replace(FOUND, candidates=(SECOND, THIRD)), followed=False, line="")
    assert last.sentence().endswith("; it is significantly different from every other in val/fid and val/ssim.")


def test_a_choice_that_follows_it_has_told_of_the_first_objective() -> None:
    assert Seeds(2, FOUND, followed=True, line="").sentence() == (
        "Under the same seeds: val/ssim 0.8 ± 0.01; it is not significantly different from trial 1 in val/ssim."
    )
    alone = Confirmation(
        NAMES[:1], DIRECTIONS[:1], (ConfirmedTrial(2, (42.0,), {1: (44.0,), 2: (46.0,)}),), tied=(), considered=(2,)
    )
    assert Seeds(2, alone, followed=True, line="").sentence() == ""
    assert "there was no other to compare it with" in Seeds(2, alone, followed=False, line="").sentence()


def test_a_trial_that_was_not_trained_again_is_not_known() -> None:
    seeds = Seeds(7, FOUND, followed=False, line="make it so")
    assert seeds.sentence() == (
        "It is none of those that were trained again under other seeds (trials 2, 0 and 1), so how much it varies is "
        "not known. To find out: make it so"
    )
    assert seeds.to_dict() == {"known": False, "confirm_with": "make it so", "sentence": seeds.sentence()}


def test_nothing_is_to_be_typed_for_what_is_no_candidate() -> None:
    seeds = Seeds(7, None, followed=False, line=confirming_line(Path("nowhere"), 7, [1, 2]))
    assert seeds.to_dict() == {"known": False, "sentence": seeds.sentence()}
    assert seeds.sentence().endswith("is not known.")


@pytest.mark.parametrize(("ranked", "top"), [([5, 1], 3), ([1, 2, 3, 4, 5], 5)])
def test_the_line_is_the_one_that_was_typed_and_reaches_the_trial(tmp_path: Path, ranked: list[int], top: int) -> None:
    typed = [
        "src/train.py",
        "-m",
        "hparams_search=vae_optuna",
        "study=my cats",
        "hydra.sweeper.confirm={top: 1, seeds: 1}",
    ]
    (tmp_path / "provenance.json").write_text(json.dumps({"command": typed}))
    line = confirming_line(tmp_path, 5, ranked)
    assert shlex.split(line) == ["python", *typed[:-1], f"hydra.sweeper.confirm={{top: {top}, seeds: 3}}"]


@pytest.mark.parametrize("record", ["", "{}", '{"command": null}', '{"command": ["src/train.py"]}', "[]"])
def test_a_line_that_is_not_known_is_described(tmp_path: Path, record: str) -> None:
    (tmp_path / "provenance.json").write_text(record)
    assert confirming_line(tmp_path, 5, [5]) == (
        "the line that started the sweep, with 'hydra.sweeper.confirm={top: 3, seeds: 3}'"
    )


@pytest.mark.security
@pytest.mark.parametrize("typed", [["-c", "import os", "-m"], ["src/train.py", "-m", "trust=[os.*]"], "-m", [["-m"]]])
def test_a_line_that_no_sweep_begins_with_is_not_advised(tmp_path: Path, typed: object) -> None:
    (tmp_path / "provenance.json").write_text(json.dumps({"command": typed}))
    assert confirming_line(tmp_path, 5, [5]).startswith("the line that started the sweep")
