"""Which configurations were tried, added up as a study grows: `steady.propose.sampling` asks before each trial."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from steady import grammar
from steady.propose.space import Space
from steady.study.trial_store import TrialCursor


class Tried:
    """Trials by configuration; of several with one, a finished one, or else the first.

    `finite` is the space without what an extender draws; trials with the numbers in `hidden` do not count.

    >>> from optuna.trial import create_trial
    >>> tried = Tried(space := Space.parse({"x": "choice(1, 2)"}, []), space, ())
    >>> tried.update([create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"x": 1}})])
    >>> len(tried), tried.get({"x": 2})
    (1, None)
    """

    def __init__(self, space: Space, finite: Space, hidden: Collection[int]) -> None:
        self.space, self.finite, self.hidden = space, finite, hidden
        self._cursor = TrialCursor()
        self._ended: dict[str, FrozenTrial] = {}
        self._others: dict[str, FrozenTrial] = {}  # configurations that only unfinished trials have
        self._read: dict[int, tuple[FrozenTrial, str | None]] = {}  # unfinished, by number: as read, key

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Add what is new in the study's trials, by number."""
        ended, unfinished = self._cursor.advance(trials)
        for trial in ended:
            if (key := self._key(trial, trial.params)) is not None:
                self._ended[key] = min(trial, self._ended.get(key, trial), key=_order)
        before, self._read, self._others = self._read, {}, {}
        for trial in unfinished:
            known, key = before.get(trial.number, (None, None))
            if known is not trial:  # what was enqueued is known before it is drawn
                key = self._key(trial, self.configuration(trial) or trial.params)
            self._read[trial.number] = trial, key
            if key is not None and key not in self._ended:
                self._others.setdefault(key, trial)

    def get(self, params: dict[str, Any]) -> FrozenTrial | None:
        """Get the trial that has this configuration."""
        key = self.space.key(params)
        return self._ended.get(key) or self._others.get(key)

    def __len__(self) -> int:
        return len(self._ended) + len(self._others)

    def __iter__(self) -> Iterator[FrozenTrial]:
        yield from self._ended.values()
        yield from self._others.values()

    def configuration(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """Get all parameters of a trial, also of one that was only enqueued; None if the space has no such trial."""
        if self.space.misfit(trial.params):  # of before the space was changed
            return None
        return self.finite.whole({**trial.system_attrs.get("fixed_params", {}), **trial.params})

    def _key(self, trial: FrozenTrial, params: dict[str, Any]) -> str | None:
        if trial.number in self.hidden or not (params or self.finite.whole({}) is not None):
            return None
        if not self.space.misfit(params):  # what is fixed by now is in no configuration
            params = {name: value for name, value in params.items() if grammar.bare(name) not in self.space.fixed}
        return self.space.key(params)


def _order(trial: FrozenTrial) -> tuple[bool, int]:
    return trial.state != TrialState.COMPLETE, trial.number
