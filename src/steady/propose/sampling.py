"""Samplers of trials, and the proposer of the next configuration.

A fresh sampler for each trial, seeded by (seed, number): so two controllers never draw the same numbers, and a sweep
that was resumed draws what an undisturbed one would have drawn. `steady.run.ledger` asks for a proposal whenever a slot
is free, under a lock, and commits it; what was tried before is drawn again.
"""

import copy
import functools
import hashlib
import inspect
import logging
import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import optuna
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from steady import grammar
from steady.exceptions import ConfigError, SteadyError
from steady.options import TPE, Promotion
from steady.propose.checks import Enqueued
from steady.propose.promotion import RungView
from steady.propose.snapshot_storage import SnapshotStorage
from steady.propose.space import Space, described
from steady.propose.tried import Tried
from steady.propose.trusted import did_you_mean, instantiate_allowed
from steady.study import budget
from steady.study.trial_store import TrialCursor
from steady.study.untrusted import restrict_unpickling

log = logging.getLogger(__name__)

TRUSTED = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
NAMES = [f"optuna.samplers.{name}" for name in optuna.samplers.__all__ if re.fullmatch("(?!Base).*Sampler", name)]
REMEDY = "To try configurations of your own choice, give them as hydra.sweeper.enqueue."
GRID, QMC = "optuna.samplers.GridSampler", "optuna.samplers.QMCSampler"
BLIND = (GRID, QMC, "optuna.samplers.RandomSampler", "optuna.samplers.BruteForceSampler")
ATTEMPTS = 20  # draws of one trial before untried configurations are looked up
FEW = 10_000  # configurations that can be listed for that


class Samplers:
    """Makes the sampler of each trial, of `_target_` and arguments as `hydra/sweeper/sampler=tpe` has them."""

    def __init__(self, node: Mapping[str, Any], seed: int, space: Space) -> None:
        restrict_unpickling()
        self.target = str(node["_target_"])
        self.seed, self.space = seed, space  # a grid needs the values of the space, TPE has to know of conditions
        self.arguments = {key: value for key, value in node.items() if key != "seed"}
        if space.conditions and self.target == TPE:
            self.arguments |= {"multivariate": True, "group": True}

    @property
    def walks_grid(self) -> bool:
        """Whether the sampler itself sees to it that nothing is drawn twice."""
        return self.target == GRID

    @property
    def learns(self) -> bool:
        """Whether what the sampler draws depends on the scores of other trials."""
        return self.target not in BLIND

    def __call__(self, number: int, attempt: int = 0) -> BaseSampler:
        """Make the sampler of a trial, or of another attempt to draw it; one that cannot be made is a ConfigError."""
        added: dict[str, Any] = {}
        if self.walks_grid:
            added["search_space"] = self.space.grid()
        if self.target == QMC and self.arguments.get("independent_sampler") is None:
            # What is not in the sequence (a first trial, conditions) would else be the same in every trial.
            added["independent_sampler"] = self.random(number, attempt)
        try:
            make = instantiate_allowed({**self.arguments, "_partial_": True}, TRUSTED, REMEDY)
            if _takes_seed(make):  # that of a grid or a sequence holds for all trials
                one_order = self.target in (GRID, QMC)
                added["seed"] = self.seed % 2**32 if one_order else _derive_seed(self.seed, number, attempt)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler = make(**added)
        except ImportError as error:
            raise self.lacking(error) from error
        except (ConfigError, InstantiationException, TypeError, ValueError) as error:
            told = " ".join(str(error).split())
            if "Error locating target" in told:
                told = f"it is not there.{did_you_mean(self.target, NAMES)} Optuna has {', '.join(NAMES)}."
            raise ConfigError(f"The sampler {self.target} cannot be made: {told}") from error
        assert isinstance(sampler, BaseSampler)
        return sampler

    def random(self, number: int, attempt: int = 0) -> BaseSampler:
        """Make a random sampler, for what the configured one cannot draw."""
        return RandomSampler(seed=_derive_seed(self.seed, number, attempt))

    def lacking(self, error: ImportError) -> ConfigError:
        """Make the error for a sampler that, made or drawing, imports what is not installed."""
        remedy = f" pip install {error.name}, or choose another sampler." if error.name else ""
        return ConfigError(f"The sampler {self.target} needs a package that is not installed: {error}.{remedy}")


def _takes_seed(make: Callable[..., Any]) -> bool:
    function = make.func if isinstance(make, functools.partial) else make  # wrong arguments are told when it is called
    parameters = inspect.signature(function).parameters
    return "seed" in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _derive_seed(seed: int, number: int, attempt: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {attempt}".encode()).digest()[:4], "big")


class SpaceExhausted(SteadyError):
    """Every configuration of a finite space was tried."""


class UnfitTrial(SteadyError):
    """A trial that another tool enqueued, with a configuration that is not in the space."""


@dataclass
class Proposer:
    """Proposes trials of a study; `config` of the multirun is for an extender.

    A configuration that was tried before is drawn anew (`resample`), told with the finished trial whose values can be
    reused (`reuse`), or proposed again (`allow`).

    Example:
        >>> study, space = optuna.create_study(), Space.parse({"x": "choice(1)"}, [])
        >>> proposer = Proposer(study, space, Samplers({"_target_": TPE}, 0, space))
        >>> proposer.propose().commit().params
        {'x': 1}
    """

    study: optuna.Study
    space: Space
    samplers: Samplers
    duplicates: Literal["resample", "reuse", "allow"] = "resample"
    config: DictConfig | None = None
    prior: Sequence[FrozenTrial] = ()  # of other studies, see `steady.propose.warm_start`
    promotion: Promotion | None = None
    objective: Sequence[str] = ()  # names of the objectives, if they have any

    def __post_init__(self) -> None:
        self.hidden = budget.uncounted(self.study)  # set before a sweep asks for its first trial
        # A grid's sampler offers another point only when this one was tried.
        self.rule = "grid" if self.samplers.walks_grid else self.duplicates
        # An extender draws nothing on a grid: GridSampler refuses what it does not know.
        self.finite = replace(self.space, extender=None) if self.samplers.walks_grid else self.space
        self.tried = Tried(self.space, self.finite, self.hidden)
        self._cursor = TrialCursor()
        directions = self.study.directions
        self._rungs = None if self.promotion is None else RungView(self.promotion, self.objective, directions)
        self._refitted: dict[int, FrozenTrial | None] = {}  # ended, and not as the space is now, by number

    def propose(self, trials: Sequence[FrozenTrial] | None = None) -> SnapshotStorage:
        """Propose the next trial after all `trials`, by number; raises SpaceExhausted when all were tried."""
        return self._propose(self.study.get_trials(deepcopy=False) if trials is None else trials, {})

    def preview(self, n: int) -> list[dict[str, Any]]:
        """Draw the first `n` proposals, were their trials to start together. Writes nothing."""
        trials = list(self.study.get_trials())
        noted: dict[str, Any] = {}
        shown: list[dict[str, Any]] = []
        proposer = replace(self)  # these trials are not there
        with suppress(SpaceExhausted):
            while len(shown) < n:
                proposal = proposer._propose(trials, noted)
                shown.append(proposal.params)
                trials.append(proposal.new)
                noted = proposal.changed
        return shown

    def complete(self, trial: FrozenTrial) -> None:
        """Draw the parameters that a trial lacks; raises UnfitTrial when it was enqueued with what it cannot have."""
        if why := self.space.misfit(trial.params):
            raise UnfitTrial(why)
        begun = {name: value for name, value in trial.params.items() if grammar.bare(name) not in self.space.fixed}
        if begun and self.space.whole(begun) == begun:
            return  # it only goes on; to ask a sampler again would move on its sequence or generation
        given = trial.system_attrs.get("fixed_params")
        if given:
            self._check_enqueued(trial, given)
        trials = self.study.get_trials(deepcopy=False)
        # GridSampler completes nothing, and others cannot read trials of before the space was changed.
        is_random = self.samplers.walks_grid or self._refit(trials)[0] is not trials
        sampler = (self.samplers.random if is_random else self.samplers)(trial.number)
        study = optuna.load_study(study_name=self.study.study_name, storage=self.study._storage, sampler=sampler)
        try:
            self._draw(Trial(study, trial._trial_id))
        except ValueError as error:
            if given and self.space.extender:
                raise UnfitTrial(str(error)) from error
            raise
        if given and self.space.extender:  # what only the extender knows shows when it is drawn
            self._check_drawn(self.study._storage.get_trial(trial._trial_id), given)

    def _check_enqueued(self, trial: FrozenTrial, given: Any) -> None:
        """Check that a trial is enqueued with what it can have, and under the names that its space has."""
        if isinstance(given, Mapping):  # what was drawn, before its controller died, stays as it is
            given = {name: value for name, value in given.items() if name not in trial.params}
        read = Enqueued.read(given, self.space, self.config)
        if read.problems:
            raise UnfitTrial("; ".join(read.problems))
        if read.params != given:
            self.study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", read.params)

    def _check_drawn(self, trial: FrozenTrial, given: Mapping[str, Any]) -> None:
        """Check that a trial has what it was enqueued with, and could have it."""
        for name, value in given.items():
            distribution = trial.distributions.get(name)
            if distribution and not distribution._contains(distribution.to_internal_repr(trial.params[name])):
                raise UnfitTrial(f"{name} must be {described(distribution)}; got {value}")
        drawn = {grammar.bare(name) for name in trial.params} | self.space.fixed.keys()
        if lost := [name for name in given if grammar.bare(name) not in drawn]:
            log.warning("Trial %s was enqueued with %s, which it does not have", trial.number, ", ".join(lost))

    def _propose(self, known: Sequence[FrozenTrial], noted: Mapping[str, Any]) -> SnapshotStorage:
        self.tried.update(known)
        if self.rule in ("grid", "resample"):
            self._check_exhausted()
        for attempt in range(1 if self.rule == "grid" else ATTEMPTS):
            proposal = self._draw_new(known, noted, attempt)
            noted = proposal.changed  # so that a sequence goes on
            twin = self.tried.get(proposal.params)
            if twin is None or self.rule == "allow":
                return proposal
            proposal.duplicate_of = twin.number if twin.state == TrialState.COMPLETE else None
            if self.rule == "reuse" and proposal.duplicate_of is not None:
                return proposal
        self._check_exhausted()
        return self._untried(known) or proposal

    def is_exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Tell whether no further trial would be proposed after all `trials`, by number: each configuration is tried.

        >>> study, space = optuna.create_study(), Space.parse({"x": "choice(1)"}, [])
        >>> Proposer(study, space, Samplers({"_target_": TPE}, 0, space)).is_exhausted(study.trials)
        False
        """
        if self.rule not in ("grid", "resample") or self.finite.size() is None:
            return False
        self.tried.update(trials)
        return self._size_tried() is not None

    def _check_exhausted(self) -> None:
        if (size := self._size_tried()) is not None:
            raise SpaceExhausted(f"All {size} configurations of the space were tried.")

    def _size_tried(self) -> int | None:
        """Get the number of configurations if all were tried; None if some were not, or there is no end of them."""
        size = self.finite.size()
        if size is None or len(self.tried) < size:
            return None
        # A space that was changed holds only some of what was tried.
        keys = {self.space.key(whole) for one in self.tried if (whole := self.tried.configuration(one)) is not None}
        return size if len(keys) >= size else None

    def _draw_new(
        self, trials: Sequence[FrozenTrial], noted: Mapping[str, Any], attempt: int, fixed: dict[str, Any] | None = None
    ) -> SnapshotStorage:
        kept, unfit = self._refit(trials)
        prior = self.prior if self.samplers.learns else ()
        hidden = self.hidden | unfit
        shown = [one for one in (self._rungs.update(kept) if self._rungs else []) if one.number not in hidden]
        hidden |= {one.number for one in shown}
        snapshot = SnapshotStorage(self.study, kept, noted, hidden, [*prior, *shown])
        if fixed is not None:
            snapshot.set_trial_system_attr(snapshot.id, "fixed_params", fixed)  # as `enqueue_trial` does
        snapshot.params = self._draw(snapshot.trial(self.samplers(snapshot.number, attempt)))
        return snapshot

    def _refit(self, trials: Sequence[FrozenTrial]) -> tuple[Sequence[FrozenTrial], set[int]]:
        """Convert trials of before the space was changed to trials of the space; and get the numbers of the unfit."""
        ended, unfinished = self._cursor.advance(trials)
        self._refitted |= {one.number: now for one in ended if (now := self._converted(one)) is not one}
        changed = self._refitted | {one.number: now for one in unfinished if (now := self._converted(one)) is not one}
        if not changed:
            return trials, set()
        return [changed.get(one.number) or one for one in trials], {n for n, now in changed.items() if now is None}

    def _converted(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Convert a trial to one of the space as it is now; None if it does not fit in it."""
        if self.space.misfit(trial.params):
            return None
        own = {name: old for name, old in trial.distributions.items() if name in self.space.parameters}
        changed = [name for name, old in own.items() if old != self.space.parameters[name]]
        if not changed:
            return trial
        now = copy.copy(trial)
        now.distributions = {**trial.distributions, **{name: self.space.parameters[name] for name in changed}}
        return now

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

    def _untried(self, trials: Sequence[FrozenTrial]) -> SnapshotStorage | None:
        """Propose any configuration that was not tried, when the sampler finds none; None if too many to list."""
        everything = self.finite.configurations((self.finite.size() or 0) if self.samplers.walks_grid else FEW)
        if everything is None:
            return None
        left = [params for params in everything if self.tried.get(params) is None]
        chosen = random.Random(f"{self.samplers.seed} {len(trials)}").choice(left)
        return self._draw_new(trials, {}, 0, chosen)
