"""Access to the trials of a study that `optuna.Study` has no call for, and to many of them without reading all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.artifacts import ArtifactMeta
from optuna.trial import FrozenTrial, TrialState

from steady.storage.storage_errors import MARKS
from steady.storage.trial_marks import Mark, Marks, mark

# Trials up to which one is read after the other, or a share of all if that is more: six statements for each, and as
# many for all at once.
FEW, SHARE = 8, 0.02
MOST = 1000  # unfinished trials that are asked for in one statement


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

    def prune(self, trial: FrozenTrial) -> None:
        """End a trial as pruned, also a waiting one, with the value that `Study.tell` gives it."""
        last = trial.last_step
        values = None if last is None else [trial.intermediate_values[last]]
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, values)

    def requeue(self, trial: FrozenTrial) -> None:
        """Set a trial to WAITING, to go on later."""
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


class TrialView:
    """The trials of a study as they were when it was last refreshed, which reads only what has changed.

    The trials are not to be changed. Of one that runs, values of attributes may be older, and so may what it reports.

    >>> study = optuna.create_study()
    >>> view = TrialView(study)
    >>> _ = study.ask()
    >>> view.refresh()
    >>> len(view.trials), len(view.unfinished)
    (1, 1)
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.trials: list[FrozenTrial] = []  # by number
        self.unfinished: dict[int, FrozenTrial] = {}  # by number

    def refresh(self) -> None:
        """Read what is new, and what has changed of the trials that had not ended."""
        storage, study_id = self.study._storage, self.study._study_id
        marks: Marks | None = getattr(storage, MARKS, None)
        if marks is None or not self.trials:
            self._update(self.study.get_trials(deepcopy=False))
            return
        known = {trial._trial_id: mark(trial) for trial in self.unfinished.values()}
        now: dict[int, Mark] = {}
        for start in range(0, max(1, len(known)), MOST):
            now |= marks(study_id, list(known)[start : start + MOST], self.trials[-1]._trial_id)
        changed = sorted(id for id, one in now.items() if known.get(id) != one)
        if len(changed) > max(FEW, SHARE * len(self.trials)):
            self._update(self.study.get_trials(deepcopy=False))
        else:
            for id in changed:
                self.put(storage.get_trial(id))

    def put(self, trial: FrozenTrial) -> None:
        """Note a trial that was just read, or written: the next one, or one that had not ended."""
        if trial.number == len(self.trials):
            self.trials.append(trial)
        self.trials[trial.number] = trial
        if trial.state.is_finished():
            self.unfinished.pop(trial.number, None)
        else:
            self.unfinished[trial.number] = trial

    def _update(self, trials: list[FrozenTrial]) -> None:
        for number in (*self.unfinished, *range(len(self.trials), len(trials))):
            self.put(trials[number])


class TrialCursor:
    """Goes along the growing list of a study's trials, and hands out each that has ended once.

    So whoever adds something up need not begin anew.

    >>> cursor, ended = TrialCursor(), optuna.trial.create_trial(value=1.0)
    >>> [len(trials) for trials in cursor.advance([ended])], [len(trials) for trials in cursor.advance([ended])]
    ([1, 0], [0, 0])
    """

    def __init__(self) -> None:
        self.seen = 0
        self.left: list[int] = []  # places of those that had not ended

    def advance(self, trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Get the trials that have ended since the last call, and those that have not; `trials` are by number."""
        asked = [*self.left, *range(self.seen, len(trials))]
        self.seen, self.left = len(trials), [place for place in asked if not trials[place].state.is_finished()]
        return [trials[place] for place in asked if trials[place].state.is_finished()], [trials[i] for i in self.left]
