"""Warm start: trials of other studies, from which the sampler of a study learns before it has trials of its own.

A new study chooses them (`hydra.sweeper.warm_start`) and notes which; one that goes on reads the same again. They are
shown to samplers (`steady.propose.snapshot_storage`) and are nowhere in the study. The other studies may be strangers':
a trial counts if this space has its configuration, and a study if its trials ran as this one's will.
"""

import hashlib
import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from steady import grammar
from steady.exceptions import ConfigError, StudyError
from steady.options import AUTO
from steady.printing import readable_name
from steady.propose.space import Space, word
from steady.storage import shown
from steady.storage.location import DATABASE, NOTE, open_study, storage_url, study_folder
from steady.study import budget, constraints, contract, meta, select
from steady.study.contract import Contract

log = logging.getLogger(__name__)

MOST = 500  # trials of one study, the last ones: each makes every draw slower
FIRST = 3  # of the best that are tried first
NUMBER = -1  # of each trial: samplers take them for older than the study's own, whose numbers begin at 0
TREES = ("space", "fixed", "config", "facts")  # what has to be known of a study
FREE = ("constraints", "space", "warm_start")  # sections that may differ: scores can be compared all the same
NAMED = 2  # differences that are named
REMEDY = "hydra.sweeper.warm_start=null with 'hydra.sweeper.allow_change=[warm_start]' goes on without."


@dataclass(frozen=True)
class PriorReader:
    """Reads trials of the studies in a folder, as trials of a space."""

    folder: Path  # of the studies' folders
    study: str  # name of the one that begins, or goes on
    storage: str  # URL of that
    space: Space
    now: Contract  # of that study; its facts may not be known yet
    bounds: tuple[constraints.Constraint, ...] = ()
    groups: Mapping[str, Any] = field(default_factory=dict)  # the option of each in that study's configuration

    def choose(
        self, asked: str | Sequence[str], facts: dict[str, Any], ignore: Collection[str], allowed: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Choose the trials that the new study learns from; returns what it notes of each other study.

        Args:
            asked: names of studies, or `auto` for all that fit; why another does not is logged.
            facts: of the preflight of the new study; compared if there are any.
            ignore: keys of the configuration that may differ.
            allowed: names of other differences that are accepted, see `Change.accepted`.

        Raises:
            StudyError: one that was named is not there, ran otherwise, or has no trial that this space has.
        """
        notes = []
        for name in self._beside() if asked == AUTO else asked:
            try:
                with _damage_told():
                    study, before = self._open(name)
                    told = _differences(before, replace(self.now, facts=facts), self.space, ignore, allowed)
                    since = int(meta.get(study, meta.CHANGED_AT, 0))
                    numbers = [old.number for old, _ in self._fitting(study, before) if old.number >= since][-MOST:]
                if told:
                    more = f" (and {len(told) - NAMED} more)" if len(told) > NAMED else ""
                    words = "; ".join(map(readable_name, told[:NAMED]))
                    raise StudyError(f"its trials ran otherwise (there → here): {words}{more}")
                if not numbers:
                    bounded = f" that noted {', '.join(one.name for one in self.bounds)}" if self.bounds else ""
                    changed = f" since its settings changed at trial {since}" if since else ""
                    raise StudyError(f"it has no finished trial with a configuration of this space{bounded}{changed}")
            except (ConfigError, StudyError) as error:
                if asked != AUTO:
                    raise StudyError(f"warm_start cannot take the study {name}: {error}") from error
                log.info("The study %s is no warm start: %s", name, error)
                continue
            digest = _digest(study, set(numbers))
            notes.append({"study": name, "trials": len(numbers), "numbers": _as_ranges(numbers), "digest": digest})
        return notes

    def read(self, notes: object) -> list[FrozenTrial]:
        """Read the trials that a study has noted, of which this space has the configuration.

        Raises:
            StudyError: one of the studies is not there, or has other trials under these numbers.
        """
        found = []
        for note in notes if isinstance(notes, list) else []:
            name = str(note.get("study")) if isinstance(note, Mapping) else "?"
            try:
                with _damage_told():
                    study, before = self._open(name)
                    wanted = _from_ranges(note["numbers"])
                    if _digest(study, wanted) != note["digest"]:
                        raise StudyError("it has other trials under these numbers now")
                    found += [trial for old, trial in self._fitting(study, before) if old.number in wanted]
            except (ConfigError, StudyError) as error:
                raise StudyError(
                    f"The study {self.study} learned from trials of {name} when it began, and cannot read them any "
                    f"more: {error}. Restore {name}; or {REMEDY}"
                ) from error
        return found

    def _beside(self) -> list[str]:
        """List the studies of the folder that are there or in our own storage: a note may lead to any server."""
        found = []
        for path in sorted({path.parent for file in (DATABASE, NOTE) for path in self.folder.glob(f"*/{file}")}):
            with suppress(ConfigError):
                here = f"sqlite:///{path / DATABASE}"
                if path.name != self.study and storage_url(path) in (here, shown(self.storage)):
                    found.append(path.name)
        return found

    def _open(self, name: str) -> tuple[optuna.Study, Contract]:
        study = open_study(study_folder(self.folder, name))
        kept = meta.get(study, meta.CONTRACT)
        if not isinstance(kept, Mapping) or not all(isinstance(kept.get(tree), Mapping) for tree in TREES):
            raise StudyError("what its trials have in common is not recorded, as by an earlier version or another tool")
        return study, Contract.from_dict(kept)

    def _fitting(self, study: optuna.Study, before: Contract) -> Iterator[tuple[FrozenTrial, FrozenTrial]]:
        """Iterate over the trials from which a sampler learns, each with what it is in this space."""
        hidden, own = budget.uncounted(study), {one.name for one in constraints.of(study)}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            finished = trial.state == TrialState.COMPLETE
            if trial.number in hidden or meta.has(trial, meta.DUPLICATE_OF):
                continue
            if finished and not all(map(math.isfinite, trial.values)):
                continue
            if (params := self._translated(trial, before)) is None:
                continue
            bounded = constraints.excesses(self.bounds, constraints.noted(trial), finished=False)
            if finished and len(bounded) < len(self.bounds):
                continue  # GP takes only finished trials that have all constraints
            excesses = {name: excess for name, excess in trial.constraints.items() if name not in own} | bounded
            untrained = (
                not finished
                and not trial.intermediate_values
                and any(trial.constraints.get(name, 0.0) > 0 for name in own)
            )
            if untrained and all(excess <= 0 for excess in excesses.values()):
                continue  # it was beyond a bound there, and nothing is known of it but that
            made = create_trial(
                state=trial.state,
                values=trial.values if finished else None,
                params=params,
                distributions={name: self.space.parameters[name] for name in params},
                user_attrs={meta.PRIOR_OF: f"{study.study_name}/{trial.number}"},
                intermediate_values={} if finished or len(study.directions) > 1 else trial.intermediate_values,
                constraints={name: float(excess) for name, excess in excesses.items()},
            )
            made.number = NUMBER
            yield trial, made

    def _translated(self, trial: FrozenTrial, before: Contract) -> dict[str, Any] | None:
        """Convert a configuration to one of this space; None if a value is not in it, or not known.

        What was not searched had the value that the study's contract has. What is not searched here is left out.
        """
        drawn = {grammar.bare(name): value for name, value in trial.params.items()}
        if self._stand_otherwise(drawn):
            return None
        found = {}
        for name in self.space.parameters:
            key = grammar.bare(name)
            with suppress(ValueError, KeyError):  # it is missed only if its condition holds
                found[name] = self.space.accepted(name, drawn[key] if key in drawn else _unsearched(before, key, {}))
        return self.space.whole(found)

    def _stand_otherwise(self, drawn: Mapping[str, Any]) -> bool:
        """Tell whether a key that is not searched here has another value than was drawn; not if it is not known."""
        for key in drawn.keys() - set(map(grammar.bare, self.space.parameters)):
            with suppress(ValueError, KeyError):
                stands = _unsearched(self.now, key, self.groups)
                hangs = isinstance(stands, str) and "${" in stands  # on what is searched
                if not hangs and word(grammar.decode(drawn[key])) != word(stands):
                    return True
        return False


def best(prior: Sequence[FrozenTrial], directions: Sequence[Any], most: int = FIRST) -> list[dict[str, Any]]:
    """Select the best configurations of prior trials, the best first.

    >>> trial = create_trial(value=1.0)
    >>> best([trial], ["minimize"])
    [{}]
    """
    study = optuna.create_study(directions=list(directions))
    study.add_trials(prior)
    return [prior[number].params for number in select.candidates(study, most)]


def _unsearched(frozen: Contract, key: str, groups: Mapping[str, Any]) -> Any:
    """Get the value of a key that a study does not search, or the option of a group; KeyError if it is not known."""
    fixed = {grammar.bare(one): text for one, text in frozen.fixed.items()}
    if key in fixed:
        return grammar.decode(grammar.encode(grammar.parsed(str(fixed[key]))))
    if key in groups:
        return groups[key]
    node: Any = frozen.config
    for part in key.split("."):
        if not isinstance(node, Mapping):
            raise KeyError(key)
        node = node[part]
    return node


def _differences(
    before: Contract, now: Contract, space: Space, ignore: Collection[str], allowed: Sequence[str]
) -> list[str]:
    """List what makes the scores of a study's trials no measure for ours: all but what either searches."""
    searched = [*map(contract.path_of, (*before.space, *space.parameters))]
    found = []
    for change in contract.compare(before, now):
        place = contract.path_of(change.key)
        # A group that is no key of the configuration shows there in what it sets.
        shows = change.section == "fixed" and "." not in place
        free = change.section in FREE or (change.section == "facts" and not now.facts)
        if change.section == "config":
            free = contract.is_within(place, [*searched, *ignore])
        elif change.section == "fixed":  # within a searched group, all its options were measured with it
            free = shows or place in searched or contract.is_within(place, list(ignore))
        if not free and (change.section in contract.WHOLE or not change.accepted(allowed)):
            found.append(str(change))
    return found


@contextmanager
def _damage_told() -> Iterator[None]:
    """Raise a StudyError for what a damaged study, or a stranger's, makes the block raise."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise StudyError(f"it is damaged: {error!r}") from error


def _digest(study: optuna.Study, numbers: Collection[int]) -> str:
    trials = study.get_trials(deepcopy=False)
    told = [(t.number, t.state.name, t.values, sorted(t.params.items())) for t in trials if t.number in numbers]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]


def _as_ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers in few letters: `0-3,7`."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _from_ranges(text: str) -> set[int]:
    ends = [part.partition("-") for part in text.split(",")]
    runs = [range(int(first), int(last or first) + 1) for first, _, last in ends]
    if sum(map(len, runs)) > MOST:
        raise ValueError(f"more than {MOST} numbers")
    return {number for run in runs for number in run}
