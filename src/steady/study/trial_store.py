"""Access to the trials of a study that `optuna.Study` has no call for."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.artifacts import ArtifactMeta
from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class TrialStore:
    """Access to the trials of one study through Optuna's storage.

    `Study` has no call to set a running trial back, or to note something on a trial that another process drives.
    """

    study: optuna.Study

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        """Get the trials in one of these states, or all; not to be changed."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def read(self, number: int) -> FrozenTrial:
        """Get the trial of a number."""
        storage = self.study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def note(self, trial: FrozenTrial, key: str, value: Any) -> None:
        """Set a user attribute of a trial that has not ended."""
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)

    def constrain(self, trial: FrozenTrial, constraint: str, excess: float) -> None:
        """Note by how much a constraint is violated; at most 0 if it is not. `Trial.set_constraint` draws samples."""
        self.study._storage.set_trial_system_attr(trial._trial_id, f"constraints:{constraint}", excess)

    def attach(self, trial: FrozenTrial, artifact: ArtifactMeta) -> None:
        """Name an artifact of our id on a trial that has not ended; `optuna.artifacts.upload_artifact` draws the id."""
        key = f"artifacts:{artifact.artifact_id}"
        self.study._storage.set_trial_system_attr(trial._trial_id, key, json.dumps(asdict(artifact)))

    def start(self, trial: FrozenTrial) -> bool:
        """Set a waiting trial to RUNNING; False if another process did."""
        return self.study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def fail(self, trial: FrozenTrial) -> None:
        """End a trial, also a waiting one, which `Study.tell` does not."""
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def requeue(self, trial: FrozenTrial) -> None:
        """Set a trial to WAITING, to go on later."""
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
