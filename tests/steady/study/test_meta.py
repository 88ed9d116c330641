"""Attributes of studies and trials, of this version and of those up to 0.1."""

import optuna
import pytest
from optuna.trial import create_trial

from steady.study import meta


@pytest.mark.parametrize("key", [meta.ATTEMPT, meta.OUTCOME, meta.FOLDER, meta.CONFIRMS, meta.SEED])
def test_attributes_of_trials_of_old_studies_are_read(key: str) -> None:
    old = key.replace("steady:", "catsweep:")
    assert meta.get(create_trial(value=1.0, user_attrs={old: 2}), key) == 2
    assert meta.get(create_trial(value=1.0, user_attrs={old: 2, key: 3}), key) == 3
    assert meta.has(create_trial(value=1.0, user_attrs={old: None}), key)
    assert not meta.has(create_trial(value=1.0), key)
    assert meta.get(create_trial(value=1.0), key, "none") == "none"


def test_attributes_of_studies_have_kept_their_names() -> None:
    study = optuna.create_study()
    assert meta.get(study, meta.SWEEP_DIR, "outputs") == "outputs"
    study.set_user_attr("sweep_dir", "sweeps/a")  # as versions up to 0.1 wrote it, too
    assert meta.get(study, meta.SWEEP_DIR) == "sweeps/a"
    assert not meta.has(study, meta.CONTRACT)
