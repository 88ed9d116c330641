"""Which configuration comes next: drawn on paper, and drawn again when it was tried before.

`catsweep.search.scheduler` asks for one whenever a slot is free, under the lock of asking, and commits it.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import optuna
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, Trial, TrialState

from catsweep.errors import CatsweepError
from catsweep.search import budget, grammar
from catsweep.search.distributions import words
from catsweep.search.draft import Draft
from catsweep.search.enqueued import Enqueued
from catsweep.search.sampling import Samplers
from catsweep.search.space import Space

log = logging.getLogger(__name__)

ATTEMPTS = 20  # draws of one trial before untried configurations are looked up
FEW = 10_000  # configurations that can be listed for that


class SpaceExhausted(CatsweepError):
    """Every configuration of a finite space was tried."""


class UnfitTrial(CatsweepError):
    """A trial that another tool put into the study, with a configuration that is none of the space."""


@dataclass
class Proposal:
    """A trial on paper.

    Attributes:
        draft: where it is.
        params: what was drawn.
        duplicate_of: number of a finished trial with the same parameters, whose values can be had for nothing.
    """

    draft: Draft
    params: dict[str, Any]
    duplicate_of: int | None = None

    def commit(self, **noted: Any) -> FrozenTrial:
        """Write it to the study, RUNNING, with these user attributes."""
        return self.draft.commit(**noted)


class Proposer:
    """Proposes trials of a study.

    Args:
        study: it.
        space: what is searched.
        samplers: by trial number.
        duplicates: what becomes of a configuration that was tried before: `resample` draws another, `reuse` takes
            the values of the finished trial, `allow` trains it again.
        config: of the multirun, for the space's extender.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        samplers: Samplers,
        duplicates: Literal["resample", "reuse", "allow"] = "resample",
        config: DictConfig | None = None,
    ) -> None:
        self.study, self.space, self.samplers, self.config = study, space, samplers, config
        self.duplicates = duplicates
        self.hidden = budget.uncounted(study)  # set before a sweep asks for its first trial
        # An extender draws nothing on a grid: GridSampler refuses what it does not know.
        self.finite = replace(space, extender=None) if samplers.walks_grid else space

    def propose(self, trials: Sequence[FrozenTrial] | None = None) -> Proposal:
        """The next trial.

        Args:
            trials: all there are, in the order of their numbers.

        Raises:
            SpaceExhausted: there is no configuration that was not tried.
            ConfigError: the sampler cannot be had.
        """
        return self._propose(self.study.get_trials(deepcopy=False) if trials is None else trials, {})

    def complete(self, trial: FrozenTrial) -> None:
        """Give a trial the parameters it lacks: one that was enqueued with some, or whose controller died early.

        Raises:
            UnfitTrial: it was enqueued with what it cannot have.
            ConfigError: the sampler cannot be had.
        """
        if trial.params and self.space.whole(trial.params) == trial.params:
            return  # it only goes on; to ask a sampler again would move on its sequence or generation
        given = trial.system_attrs.get("fixed_params")
        if given:
            self._check(trial, given)
        # GridSampler completes nothing.
        sampler = (self.samplers.random if self.samplers.walks_grid else self.samplers)(trial.number)
        study = optuna.load_study(study_name=self.study.study_name, storage=self.study._storage, sampler=sampler)
        if not (given and self.space.extender):
            self._draw(Trial(study, trial._trial_id))
            return
        try:  # what only the extender knows shows when it is drawn
            self._draw(Trial(study, trial._trial_id))
        except ValueError as error:
            raise UnfitTrial(str(error)) from error
        self._check_drawn(self.study._storage.get_trial(trial._trial_id), given)

    def _check_drawn(self, trial: FrozenTrial, given: Mapping[str, Any]) -> None:
        """See that what a trial was enqueued with, it has, and could have."""
        for name, value in given.items():
            distribution = trial.distributions.get(name)
            if distribution and not distribution._contains(distribution.to_internal_repr(trial.params[name])):
                raise UnfitTrial(f"{name} must be {words(distribution)}; got {value}")
        drawn = {grammar.bare(name) for name in trial.params} | self.space.fixed.keys()
        if lost := [name for name in given if grammar.bare(name) not in drawn]:
            log.warning("Trial %s was enqueued with %s, which it does not have", trial.number, ", ".join(lost))

    def _check(self, trial: FrozenTrial, given: Any) -> None:
        """See that a trial is enqueued with what it can have, and under the names that its space has."""
        if isinstance(given, Mapping):  # what was drawn, before its controller died, stays as it is
            given = {name: value for name, value in given.items() if name not in trial.params}
        read = Enqueued.read(given, self.space, self.config)
        if read.problems:
            raise UnfitTrial("; ".join(read.problems))
        if read.params != given:
            self.study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", read.params)

    def preview(self, n: int) -> list[dict[str, Any]]:
        """The first proposals, were their trials to start together. Writes nothing."""
        trials = list(self.study.get_trials())
        noted: dict[str, Any] = {}
        shown = []
        for _ in range(n):
            try:
                proposal = self._propose(trials, noted)
            except SpaceExhausted:
                break
            shown.append(proposal.params)
            trials.append(proposal.draft.new)
            noted = proposal.draft.changed
        return shown

    def _propose(self, known: Sequence[FrozenTrial], noted: Mapping[str, Any]) -> Proposal:
        tried = self._tried(known)
        # A grid's sampler offers another point only when this one was tried; to draw again is of no use.
        attempts = 1 if self.samplers.walks_grid else ATTEMPTS
        if self.samplers.walks_grid or self.duplicates == "resample":
            self._check_exhausted(tried)
        for attempt in range(attempts):
            proposal = self._draft(known, noted, attempt)
            noted = proposal.draft.changed  # so that a sequence goes on
            twin = tried.get(self.space.key(proposal.params))
            if twin is None or (self.duplicates == "allow" and not self.samplers.walks_grid):
                return proposal
            proposal.duplicate_of = twin.number if twin.state == TrialState.COMPLETE else None
            if self.duplicates == "reuse" and proposal.duplicate_of is not None and not self.samplers.walks_grid:
                return proposal
        self._check_exhausted(tried)
        return self._untried(known, tried) or proposal

    def _tried(self, trials: Sequence[FrozenTrial]) -> dict[str, FrozenTrial]:
        """The trials by configuration; of several the finished one, then the first."""
        tried: dict[str, FrozenTrial] = {}
        counted = [trial for trial in trials if trial.number not in self.hidden]
        for trial in sorted(counted, key=lambda trial: (trial.state != TrialState.COMPLETE, trial.number)):
            params: dict[str, Any] | None = trial.params
            if not trial.state.is_finished():  # what was enqueued is known before it is drawn
                params = self.finite.whole({**trial.system_attrs.get("fixed_params", {}), **trial.params}) or params
            if params or self.finite.whole({}) is not None:
                tried.setdefault(self.space.key(params or {}), trial)
        return tried

    def _check_exhausted(self, tried: Mapping[str, FrozenTrial]) -> None:
        size = self.finite.size()
        if size is None or len(tried) < size:
            return
        # A space that was changed holds only some of what was tried.
        keys = {self.space.key(whole) for t in tried.values() if (whole := self._configuration(t)) is not None}
        if len(keys) >= size:
            raise SpaceExhausted(f"All {size} configurations of the space were tried.")

    def _configuration(self, trial: FrozenTrial) -> dict[str, Any] | None:
        return self.finite.whole({**trial.system_attrs.get("fixed_params", {}), **trial.params})

    def _draft(
        self, trials: Sequence[FrozenTrial], noted: Mapping[str, Any], attempt: int, fixed: dict[str, Any] | None = None
    ) -> Proposal:
        draft = Draft(self.study, trials, noted, self.hidden)
        if fixed is not None:
            draft.set_trial_system_attr(draft.id, "fixed_params", fixed)  # as `enqueue_trial` does
        return Proposal(draft, self._draw(draft.trial(self.samplers(draft.number, attempt))))

    def _draw(self, trial: Trial) -> dict[str, Any]:
        # Upstream keeps what is fixed with each trial, as user attributes, and an extender may read them.
        noted = trial.user_attrs
        for name, value in self.space.fixed.items():
            if noted.get(name) != value:
                trial.set_user_attr(name, value)
        try:
            return self.space.suggest(trial, self.config)
        except ImportError as error:  # some of Optuna's samplers import what they need when they draw
            raise self.samplers.lacking(error) from error

    def _untried(self, trials: Sequence[FrozenTrial], tried: Mapping[str, FrozenTrial]) -> Proposal | None:
        """Any configuration that was not tried, when the sampler finds none; None if there are too many to list."""
        size = self.finite.size() or 0
        everything = self.finite.configurations(size if self.samplers.walks_grid else FEW)
        if everything is None:
            return None
        left = [params for params in everything if self.space.key(params) not in tried]
        chosen = random.Random(f"{self.samplers.seed} {len(trials)}").choice(left)
        return self._draft(trials, {}, 0, chosen)
