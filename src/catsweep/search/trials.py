"""The trials of a study as the loop handles them: its one way to Optuna's storage, around `Study`'s own checks.

`Study` has no call to set a running trial back, or to note something on one that another process drives.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.artifacts import ArtifactMeta
from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class Trials:
    """The trials of one study, by their numbers.

    Args:
        study: it.
    """

    study: optuna.Study

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in one of these states, or all; not to be changed."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def read(self, number: int) -> FrozenTrial:
        """One of them."""
        storage = self.study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def note(self, trial: FrozenTrial, key: str, value: Any) -> None:
        """Set a user attribute of a trial that has not ended."""
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)

    def violate(self, trial: FrozenTrial, constraint: str) -> None:
        """Note a violated constraint, as `Trial.set_constraint` does, which would draw samples first."""
        self.study._storage.set_trial_system_attr(trial._trial_id, f"constraints:{constraint}", 1.0)

    def attach(self, trial: FrozenTrial, artifact: ArtifactMeta) -> None:
        """Name an artifact on a trial that has not ended, as `optuna.artifacts.upload_artifact` does, but by its id."""
        key = f"artifacts:{artifact.artifact_id}"
        self.study._storage.set_trial_system_attr(trial._trial_id, key, json.dumps(asdict(artifact)))

    def start(self, trial: FrozenTrial) -> bool:
        """Set a waiting trial to RUNNING; False if somebody else did."""
        return self.study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def fail(self, trial: FrozenTrial) -> None:
        """End a trial, also one that waits, which `Study.tell` does not."""
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def requeue(self, trial: FrozenTrial) -> None:
        """Set a trial to WAITING: it has to go on."""
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
