"""Tests of `steady.storage.trial_marks`: marks are of one study's trials, in a database and in a journal."""

from pathlib import Path

import optuna
import pytest

from steady.storage import open_storage
from steady.storage.storage_errors import MARKS


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_marks_are_of_the_trials_that_are_asked_for_and_of_newer_ones_of_the_study(kind: str, tmp_path: Path) -> None:
    storage = open_storage(f"{kind}:///{tmp_path}/study")
    cats, dogs = (optuna.create_study(study_name=name, storage=storage) for name in ("cats", "dogs"))
    ids = [study.ask()._trial_id for study in (cats, cats, dogs, cats)]
    storage.set_trial_user_attr(ids[0], "a", 1)
    cats.tell(1, 0.5)
    marks = getattr(storage, MARKS)
    begun = [trial.datetime_start for trial in cats.trials]
    assert marks(cats._study_id, [ids[0]], ids[1]) == {
        ids[0]: ("RUNNING", begun[0], 0, 1), ids[3]: ("RUNNING", begun[2], 0, 0)
    }  # fmt: skip
    assert marks(cats._study_id, [ids[1]], ids[3]) == {ids[1]: ("COMPLETE", begun[1], 0, 0)}
