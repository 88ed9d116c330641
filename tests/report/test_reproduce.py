import shlex

import pytest

from catsweep.report.record import Entry, Record
from catsweep.report.reproduce import reproduction
from catsweep.selection import Objective

FIXED = {"hparams_search": "vae_optuna", "study": "cats", "data.source": "'my photos/cats'", "~logger": "deleted"}
WINNER = Entry(3, "finished", "finished", (1.0,), {"optimizer.lr": 0.00068, "model.aggregate_prior": True}, (), None)


def record(**more: object) -> Record:
    return Record("cats", (Objective("val/fid", False),), (WINNER,), (3,), **more)  # type: ignore[arg-type]


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


def test_what_nobody_kept_is_empty() -> None:
    assert reproduction(record(), WINNER) == reproduction(record(), None)
    assert reproduction(record(), None).sweep == ""


@pytest.mark.security
def test_a_line_that_no_sweep_begins_with_is_not_shown() -> None:
    again = reproduction(record(command=("-c", "import os", "-m"), contract={"fixed": FIXED}), None)
    assert not again.exact
    assert shlex.split(again.sweep)[:2] == ["python", "src/train.py"]
