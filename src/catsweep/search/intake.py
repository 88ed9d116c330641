"""Where a free slot gets its trial from: one that waits to go on, or a new one that is drawn.

`catsweep.search.scheduler` asks. Everything here happens under the lock of asking, one controller at a time, so that
totals are exact and no trial has two drivers. A trial that has to go on (its process was lost, it was interrupted, its
controller died) is set back to WAITING, where Optuna's own tools see it too, and starts again under its own number
before any new trial is drawn.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from catsweep.search import attributes
from catsweep.search.folders import Folders
from catsweep.search.leases import Leases
from catsweep.search.outcome import Kind
from catsweep.search.proposer import SpaceExhausted, UnfitTrial
from catsweep.search.trials import Trials


class Proposal(Protocol):
    """A trial on paper."""

    duplicate_of: int | None

    def commit(self, **noted: Any) -> FrozenTrial:
        """Write it to the study, RUNNING, with these user attributes."""


class Proposals(Protocol):
    """Where new trials come from."""

    def propose(self, trials: list[FrozenTrial]) -> Proposal:
        """The next trial, given all there are. Raises SpaceExhausted when there is none."""

    def complete(self, trial: FrozenTrial) -> None:
        """Give a trial that was enqueued, or whose controller died early, the parameters it lacks.

        Raises UnfitTrial when it was enqueued with what it cannot have.
        """


@dataclass
class Intake:
    """Takes trials of one study for this controller.

    Args:
        trials: of the study.
        proposals: where new ones come from.
        leases: registered; says which trials are ours.
        folders: where trials work.
        n_trials: of the study in all.
        event: told of what is no start and no end, one line each.

    Attributes:
        exhausted: whether there is no further configuration to try.
        ended: whether trials ended here, without having run, since this was last set to False.
    """

    trials: Trials
    proposals: Proposals
    leases: Leases
    folders: Folders
    n_trials: int
    event: Callable[[str], None]
    exhausted: bool = False
    ended: bool = False

    def next(self) -> FrozenTrial | None:
        """Take the next trial: a waiting one, or a new one; None when there is none to take now."""
        with self.leases.lock("ask"):
            trials = self.trials.all()
            for trial in trials:
                if trial.state == TrialState.WAITING and (taken := self._take(trial, trials)):
                    return taken
            while len(trials) < self.n_trials and not self.exhausted:
                try:
                    proposal = self.proposals.propose(trials)
                except SpaceExhausted as told:
                    self.exhausted = True
                    self.event(str(told))
                    break
                if proposal.duplicate_of is None:
                    trial = proposal.commit(**{attributes.ATTEMPT: 0})
                    self.leases.take(lease(trial.number))
                    return self._place(trial, trials)
                self._reuse(proposal.commit(), proposal.duplicate_of)
                trials = self.trials.all()
        return None

    def give_back(self, trial: FrozenTrial) -> None:
        """A trial that was taken and did not start: it goes on later, here or elsewhere."""
        if self.leases.holds(lease(trial.number)):  # else another controller has it already
            with suppress(UpdateFinishedTrialError):  # as in `reap`
                self.trials.requeue(trial)
            self.leases.release(lease(trial.number))

    def reap(self) -> None:
        """Set trials back to WAITING whose controller is gone.

        Under the lock of asking: between a trial's making and its claim no one may take it for abandoned.
        """
        with self.leases.lock("ask"):
            for trial in self.trials.all(TrialState.RUNNING):
                if self.leases.owned(lease(trial.number)):
                    continue
                # Its controller may have ended it and let it go since we read that it runs.
                with suppress(UpdateFinishedTrialError):
                    self.trials.requeue(trial)
                    self.event(f"trial {trial.number} was left by a controller that is gone; it will go on")

    @property
    def done(self) -> bool:
        """Whether every trial of the study has ended, and no other will come.

        Trials that run elsewhere may come back to us, should their controller die.
        """
        trials = self.trials.all()
        return all(trial.state.is_finished() for trial in trials) and (self.exhausted or len(trials) >= self.n_trials)

    def _take(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial | None:
        if not self.leases.claim(lease(trial.number)):
            return None
        # A controller that slept, and was taken for dead, may end it as late as now.
        with suppress(UpdateFinishedTrialError):
            if self.trials.start(trial):
                begun = trial.user_attrs.get(attributes.ATTEMPT)
                self.trials.note(trial, attributes.ATTEMPT, 0 if begun is None else begun + 1)
                try:
                    self.proposals.complete(self.trials.read(trial.number))
                except UnfitTrial as told:
                    self._fail(trial, str(told))
                else:
                    return self._place(self.trials.read(trial.number), trials)
        self.leases.release(lease(trial.number))
        return None

    def _place(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial:
        """Write on a trial where it works, if it is not there yet. The lock makes sure that no two choose the same."""
        if attributes.FOLDER in trial.user_attrs or (folder := self.folders.choose(trial, trials)) is None:
            return trial
        self.trials.note(trial, attributes.FOLDER, folder)
        return self.trials.read(trial.number)

    def _fail(self, trial: FrozenTrial, message: str) -> None:
        self.trials.note(trial, attributes.OUTCOME, Kind.FAILED.value)
        self.trials.note(trial, attributes.MESSAGE, message)
        self.trials.study.tell(trial.number, state=TrialState.FAIL)
        self.event(f"trial {trial.number} was enqueued with what it cannot have, and failed: {message}")
        self.ended = True

    def _reuse(self, trial: FrozenTrial, twin: int) -> None:
        self.trials.note(trial, attributes.DUPLICATE_OF, twin)
        self.trials.note(trial, attributes.OUTCOME, Kind.COMPLETE.value)
        self.trials.study.tell(trial.number, self.trials.read(twin).values)
        self.event(f"trial {trial.number} has the configuration of trial {twin}, and takes its values")
        self.ended = True


def lease(number: int) -> str:
    """The name under which a trial is claimed."""
    return f"trial/{number}"
