"""The page and the data that explain a choice; `test_choice` and `test_selection_confirmed` read them after a run."""

import dataclasses
import io
from pathlib import Path

import pytest

from catsweep.export.choice import Explanation
from catsweep.metrics.judge import RunScores, StudyScores
from catsweep.selection import FinishedTrials, Seeds
from steady import printing
from steady.confirm import confirmation
from steady.confirm.confirmation import Confirmation
from steady.study.select import Objective, ScoredTrial, TrialChoice

BEST, OTHER, LAST = ScoredTrial(1, (40.0, 0.2)), ScoredTrial(0, (50.0, 0.9)), ScoredTrial(2, (60.0, 0.1))
TRIALS = FinishedTrials(
    study="cats",
    objectives=(Objective("val/fid", maximise=False), Objective("val/ssim", maximise=True)),
    finished=(OTHER, BEST, LAST),
    front=(BEST, OTHER),
    params={0: {"loss": "l1"}, 1: {"loss": "[mse]"}, 2: {"loss": "l1", "optimizer.lr": 0.00123456}},
    overrides={0: {"loss": "l1"}, 1: {"loss": "[mse]"}, 2: {"loss": "l1", "+optimizer.lr": "0.00123456"}},
    ranked=(1, 0, 2),
)
FOUND = Confirmation(
    objectives=("val/fid", "val/ssim"),
    directions=("minimize", "maximize"),
    candidates=(
        confirmation.ConfirmedTrial(0, OTHER.values, {1: (51.0, 0.8), 2: (53.0, 0.9)}),
        confirmation.ConfirmedTrial(1, BEST.values, {1: (54.0, 0.1), 2: (56.0, 0.3)}),
    ),
    tied=(1,),
    considered=(1, 0),
)


NONE = StudyScores({}, {})
RECALL = {1: RunScores({"val/fid": 40.0, "val/recall": 0.125}), 0: RunScores({"val/recall": 0.5})}
AGAIN = {0: {1: RunScores({"val/recall": 0.25}), 2: RunScores({"val/recall": 0.75})}}


def explained(
    chosen: ScoredTrial,
    found: Confirmation | None,
    followed: bool = False,
    remark: str = "",
    opinion: StudyScores = NONE,
) -> Explanation:
    seeds = Seeds(chosen.number, found, followed, "the line")
    return Explanation(TRIALS, TrialChoice(chosen, "the reason"), Path("outputs/cats/1"), seeds, opinion, remark)


def test_the_page_without_a_confirmation() -> None:
    assert explained(LAST, None, remark="It is old.").as_markdown() == (
        "# Why this model\n\n"
        "Trial 2 of study cats: the reason. Of 3 finished trials, 2 are Pareto-optimal. It is old.\n\n"
        "| trial | val/fid ↓ | val/ssim ↑ |\n| --- | ---: | ---: |\n"
        "| 1 | 40 | 0.2 |\n| 0 | 50 | 0.9 |\n| **2** | 60 | 0.1 |\n\n"
        "## Under other seeds\n\n"
        "No trial was trained again under other seeds, so how much it varies is not known. To find out: the line\n\n"
        "## A second opinion\n\n"
        "What an independent judge says of it is not known: `make judge`, and the line of the sweep again.\n\n"
        "## Its parameters\n\n- `loss=l1`\n- `+optimizer.lr=0.00123456`\n"
    )


def test_commands_can_be_copied_from_the_page() -> None:
    line = "python src/train.py -m study=a_b 'hydra.sweeper.confirm={top: 3, seeds: 3}'"
    told = explained(LAST, None, remark="Start it as the line of a_b says.")
    page = dataclasses.replace(told, seeds=Seeds(2, None, False, line)).as_markdown()
    assert f" is not known. To find out: `{line}`\n" in page
    assert "the line of a\\_b says" in page


def test_the_page_with_one() -> None:
    page = explained(BEST, FOUND).as_markdown()
    assert "## Under other seeds\n\nUnder 2 other seeds: val/fid 55 ± 1.41, val/ssim 0.2 ± 0.141; it " in page
    assert (
        "| trial | val/fid ↓ | in the search | val/ssim ↑ | in the search | seeds |  |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 0 | 52 ± 1.41 | 50 | 0.85 ± 0.0707 | 0.9 | 2 | winner |\n"
        "| **1** | 55 ± 1.41 | 40 | 0.2 ± 0.141 | 0.2 | 2 | not significantly different |\n"
    ) in page


def test_recall_stands_beside_the_objectives() -> None:
    told = explained(BEST, FOUND, opinion=StudyScores(RECALL, AGAIN))
    page = told.as_markdown()
    assert "| trial | val/fid ↓ | val/ssim ↑ | val/recall ↑ |" in page
    assert "| **1** | 40 | 0.2 | 0.125 |\n| 0 | 50 | 0.9 | 0.5 |" in page
    assert "| 0 | 52 ± 1.41 | 50 | 0.85 ± 0.0707 | 0.9 | 0.5 ± 0.354 | 2 | winner |" in page
    assert [one.get("beside") for one in told.as_dict()["pareto_set"]] == [{"val/recall": 0.125}, {"val/recall": 0.5}]
    console = printing.console(width=80, file=io.StringIO())
    told.print(console)
    lines = [line.replace("┃", "│").split("│")[1:-1] for line in console.file.getvalue().splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert ["1", "0.125"] in cells  # the objectives are in the table above
    assert ["0", "0.5 ± 0.354"] in cells


def test_the_data_hold_a_confirmation_only_if_the_choice_rests_on_it() -> None:
    followed, other = (explained(OTHER, FOUND, followed=one).as_dict() for one in (True, False))
    assert followed["confirmation"] == FOUND.to_dict()
    assert "confirmation" not in other
    assert other["seeds"]["spread"] == followed["seeds"]["spread"]


def test_the_terminal_shows_all_of_it() -> None:
    console = printing.console(width=200, file=io.StringIO())
    explained(BEST, FOUND).print(console)
    said = console.file.getvalue()
    assert "1 ◀" in said
    assert "loss=[mse]" in said  # not taken for markup
    assert "val/fid under other seeds" in said
    assert "Trial 1 of study cats: the reason." in said
    assert "Under 2 other seeds: val/fid 55 ± 1.41" in said


@pytest.mark.security
def test_names_are_no_markup() -> None:
    name = "[red]a[/x]:cat:"
    params = {number: {name: name} for number in range(3)}
    trials = dataclasses.replace(
        TRIALS, study=name, params=params, overrides=params,
        objectives=tuple(dataclasses.replace(one, name=f"{name}{i}") for i, one in enumerate(TRIALS.objectives)),
    )  # fmt: skip
    found = dataclasses.replace(FOUND, objectives=(f"{name}0", f"{name}1"))
    console = printing.console(width=300, file=io.StringIO())
    Explanation(trials, TrialChoice(BEST, name), Path(name), Seeds(1, found, False, name), NONE, name).print(console)
    said = console.file.getvalue()
    assert f"Pareto set of {name}" in said
    assert f"{name}0 under other seeds" in said
    assert f"│ {name}0 ↓ │" in said.replace("┃", "│")
    assert f"{name}={name}" in said
