"""Which copy of the best trials is exported, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_sweeps import judged_as

from catsweep.cats import finalists
from catsweep.cats.finalists import Finalist, best, verdict
from catsweep.errors import DataError

SCORES = st.one_of(st.none(), st.floats(1, 100))


def finalist(folder: Path, trial: int, before: float, after: float | None, judged: float | None = None,
             maximise: bool = False, **card: Any) -> Finalist:  # fmt: skip
    run = folder / str(trial)
    if after is not None:
        run.mkdir()
        (run / "metrics.json").write_text(json.dumps({"scores": {"val/fid": after}}))
        if judged is not None:
            judged_as(run, judged, recorded={"val/fid": after}, **card)
    return Finalist(trial, folder / "no", run, "val/fid", maximise, {"val/fid": before})


@given(st.lists(SCORES, min_size=1, max_size=4), st.booleans())
def test_none_that_is_exported_is_worse_than_another_or_than_the_winner_was(
    tmp_path_factory: pytest.TempPathFactory, after: list[float | None], maximise: bool
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    found = [finalist(folder, trial, 50.0, score, maximise=maximise) for trial, score in enumerate(after)]
    chosen, by = best(found)
    sign = -1 if maximise else 1
    losses = [sign * 50.0, *(sign * score for score in after if score is not None)]
    assert (sign * 50.0 if chosen is None else sign * (chosen.after or 0.0)) == min(losses)
    assert by == "val/fid"


def test_the_judge_chooses_only_if_it_has_seen_all_that_are_better(tmp_path: Path) -> None:
    seen = [
        finalist(tmp_path, 1, 50.0, 30.0, judged=270.0),
        finalist(tmp_path, 2, 51.0, 40.0, judged=120.0),
        finalist(tmp_path, 3, 52.0, 60.0, judged=10.0),  # no better than trial 1 was
    ]
    assert best(seen) == (seen[1], "judge/fid")
    assert verdict(seen, *best(seen), {}).startswith(
        "Trained on, trial 2 is the best by judge/fid, and no longer trial 1, the winner of the search. Trial 1: val"
    )
    unseen = [*seen, finalist(tmp_path, 4, 53.0, 45.0)]
    assert best(unseen) == (seen[0], "val/fid")
    assert verdict(unseen, *best(unseen), {}).startswith("Trained on, trial 1 is the best by val/fid. Trial 1")


def test_a_judge_that_has_not_seen_one_is_told_where_it_might_have_chosen(tmp_path: Path) -> None:
    two = [finalist(tmp_path, 1, 50.0, 30.0, judged=270.0), finalist(tmp_path, 2, 51.0, 40.0, judged=120.0)]
    worse = [*two, finalist(tmp_path, 3, 52.0, 60.0)]
    assert "has not seen" not in verdict(worse, *best(worse), {}, judged=True)  # it has chosen among those that count
    better = [*two, finalist(tmp_path, 4, 52.0, 45.0)]
    assert verdict(better, *best(better), {}, judged=True).endswith("The judge has not seen trial 4, so val/fid chose.")


def test_judgements_that_were_made_differently_are_not_compared(tmp_path: Path) -> None:
    found = [
        finalist(tmp_path, 1, 50.0, 30.0, judged=270.0),
        finalist(tmp_path, 2, 51.0, 40.0, judged=120.0, extractor="another"),
    ]
    assert best(found) == (found[0], "val/fid")


def test_what_training_on_has_made_worse_than_its_own_trial_is_not_taken(tmp_path: Path) -> None:
    # The second had lost the confirmation in spite of its score.
    found = [finalist(tmp_path, 1, 50.0, 55.0), finalist(tmp_path, 2, 45.0, 47.0)]
    assert best(found)[0] is None


def test_of_several_none_of_which_is_better_the_winner_is_told_to_be_taken_as_it_was(tmp_path: Path) -> None:
    found = [finalist(tmp_path, 1, 50.0, 55.0), finalist(tmp_path, 2, 51.0, None)]
    assert best(found)[0] is None
    assert verdict(found, *best(found), {2: "No."}) == (
        "Trained on, none got better and is better than trial 1 was, which is taken as it was. "
        "Trial 1: val/fid 50 → 55. Trial 2 could not be trained on: No."
    )


def test_a_copy_whose_best_checkpoint_is_the_trials_own_is_told_without_a_figure(tmp_path: Path) -> None:
    found = [finalist(tmp_path, 1, 50.0, 50.0)]
    assert best(found)[0] is None
    assert verdict(found, None, "", {}) == (
        "Trained on, it is no better, so it is taken as it was: val/fid 50 as before."
    )


def test_of_several_all_of_which_failed_the_reasons_are_told(tmp_path: Path) -> None:
    found = [finalist(tmp_path, trial, 50.0, None) for trial in (1, 2)]
    assert verdict(found, *best(found), {1: "No.", 2: "Neither."}) == (
        "Trained on, none got anywhere, and trial 1 is taken as it was. Trial 1 could not be trained on: No. "
        "Trial 2 could not be trained on: Neither."
    )


def test_a_choice_of_an_earlier_version_has_one_finalist(tmp_path: Path) -> None:
    choice = {"trial": 7, "run": "outputs/s/7", "values": {"val/fid": 3.0}}
    objectives = [{"name": "val/fid", "direction": "minimize"}]
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner/choice.json").write_text(json.dumps({**choice, "objectives": objectives}))
    [found] = finalists.read(tmp_path / "winner", 4)
    assert (found.trial, found.copy, found.before) == (7, tmp_path / "longer", 3.0)


@pytest.mark.security
@pytest.mark.parametrize(
    "damage",
    ["", "[]", "{}", '{"trial": 1, "run": "r", "values": {}, "objectives": []}',
     '{"trial": 1, "run": "r", "values": {"a": 1}, "objectives": [{"name": "a", "direction": "minimize"}], '
     '"runners_up": [3]}',
     '{"trial": 1e999, "run": "r", "values": {"a": 1}, "objectives": [{"name": "a", "direction": "minimize"}]}',
     '{"trial": "../..", "run": "r", "values": {"a": 1}, "objectives": [{"name": "a", "direction": "minimize"}]}'],
)  # fmt: skip
def test_a_damaged_choice_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner/choice.json").write_text(damage)
    with pytest.raises(DataError):
        finalists.read(tmp_path / "winner", 2)
