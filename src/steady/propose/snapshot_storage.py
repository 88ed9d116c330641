"""A storage in memory that draws a trial from a snapshot of a study, to be written to the study in one write.

`study.ask()` creates a trial first and fills it parameter by parameter. A kill in between leaves half a trial, and a
configuration that turns out to be known already has used up a number; and each parameter costs a write.
"""

import copy
from collections.abc import Collection, Container, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from steady.exceptions import StudyError


class SnapshotStorage(BaseStorage):
    """A snapshot of a study's trials, in the order of their numbers, and one new trial, as a storage of Optuna's.

    `noted` are system attributes of the study that samplers of earlier snapshots have set, as a place in a sequence;
    `hidden` are numbers of trials that samplers are not to learn from, `prior` other studies' trials that they are to.

    Example:
        >>> import optuna
        >>> study = optuna.create_study()
        >>> snapshot = SnapshotStorage(study, study.trials)
        >>> drawn = snapshot.trial(optuna.samplers.RandomSampler(seed=0)).suggest_int("x", 1, 9)
        >>> len(study.trials), snapshot.commit().params == {"x": drawn}, len(study.trials)
        (0, True, 1)
    """

    duplicate_of: int | None = None  # a finished trial with the same parameters, whose values can be reused

    def __init__(
        self, study: Study, trials: Sequence[FrozenTrial], noted: Mapping[str, Any] | None = None,
        hidden: Collection[int] = (), prior: Sequence[FrozenTrial] = (),
    ) -> None:  # fmt: skip
        self.study, self.trials, self.hidden, self.prior = study, trials, hidden, prior
        self.params: dict[str, Any] = {}  # what was drawn, as the space gives it
        self.changed = dict(noted or {})
        self.system_attrs = {**study._storage.get_study_system_attrs(study._study_id), **self.changed}
        self.changed_user: dict[str, Any] = {}
        self.number = len(self.trials)  # later ones, of a list that has grown since, are not of this snapshot
        self.id = -1 - self.number  # never that of a real trial
        self.new = FrozenTrial(
            number=self.number, trial_id=self.id, state=TrialState.RUNNING, value=None,
            datetime_start=datetime.now(), datetime_complete=None, params={}, distributions={}, user_attrs={},
            system_attrs={}, intermediate_values={},
        )  # fmt: skip

    def trial(self, sampler: BaseSampler) -> Trial:
        """Get the new trial, to draw parameters for."""
        return Trial(Study(self.study.study_name, self, sampler=sampler, pruner=self.study.pruner), self.id)

    def commit(self, **noted: Any) -> FrozenTrial:
        """Write the trial to the real study, RUNNING, with these user attributes.

        Raises:
            StudyError: another program added a trial meanwhile.
        """
        real, study_id = self.study._storage, self.study._study_id
        for key, value in self.changed_user.items():
            real.set_study_user_attr(study_id, key, value)
        for key, value in self.changed.items():
            real.set_study_system_attr(study_id, key, value)
        self.new.user_attrs = {**self.new.user_attrs, **noted}
        id = real.create_new_trial(study_id, self.new)
        if real.get_trial_id_from_study_id_trial_number(study_id, self.number) != id:  # ours are made under a lock
            raise StudyError(
                f"Another program added a trial to {self.study.study_name} just when trial {self.number} was made, "
                f"which became trial {real.get_trial(id).number}. Give the same command again; nothing is lost. To try "
                "a configuration of your own use hydra.sweeper.enqueue, or add it while no sweep runs."
            )
        trial = copy.copy(self.new)
        trial._trial_id = id
        return trial

    # --- what samplers read

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: D102
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:  # noqa: D102
        return self.study.study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: D102
        return list(self.study.directions)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: D102
        return {**self.study.user_attrs, **self.changed_user}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: D102
        return copy.deepcopy(self.system_attrs)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:  # noqa: D102
        if not 0 <= trial_number <= self.number:
            raise KeyError(f"There is no trial {trial_number}.")
        return self.id if trial_number == self.number else self.trials[trial_number]._trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:  # noqa: D102
        if trial_id != self.id:
            return {trial._trial_id: trial for trial in self.trials}[trial_id]  # KeyError, as BaseStorage has it
        trial = copy.copy(self.new)  # `Trial` writes what it drew into the one it got, before a storage keeps it
        trial.params, trial.distributions = dict(trial.params), dict(trial.distributions)
        return trial

    def get_all_trials(  # noqa: D102
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        own = [trial for trial in (*self.trials[: self.number], self.new) if trial.number not in self.hidden]
        shown = [*self.prior, *own]
        chosen = [trial for trial in shown if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    # --- what samplers write

    def set_trial_param(  # noqa: D102
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        value = distribution.to_external_repr(param_value_internal)
        self._set(trial_id, params={param_name: value}, distributions={param_name: distribution})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: D102
        self._set(trial_id, system_attrs={key: value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: D102
        self._set(trial_id, user_attrs={key: value})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: D102
        self.system_attrs[key] = self.changed[key] = value

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: D102
        self.changed_user[key] = value

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:  # noqa: D102
        self._set(trial_id, intermediate_values={step: intermediate_value})

    def _set(self, trial_id: int, **added: dict[Any, Any]) -> None:
        if trial_id != self.id:
            self._refuse()
        for name, values in added.items():  # anew, as what was read before is not to change
            setattr(self.new, name, {**getattr(self.new, name), **values})

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("Only the trial that is drawn can be changed on paper.")

    create_new_study = delete_study = get_all_studies = create_new_trial = set_trial_state_values = _refuse
