"""From the state of a sweep to what a person sees of it: fills the views of `catsweep.search.terminal`.

The scheduler calls `event` at each start and end of a trial and `refresh` about once a second; both cost milliseconds.
"""

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from catsweep.search import attributes, budget, results
from catsweep.search.executor import Executor
from catsweep.search.settings import Settings
from catsweep.search.terminal import SlotView, SweepState, display_for, read_progress


class Watch:
    """What a sweep shows of itself while it runs.

    Args:
        study: whose trials are counted.
        settings: of the sweep.
        executor: asked what runs in which slot.
        sweep_dir: holds the trials' folders.
        started: when the sweep began, by the clock `time.monotonic`; None: now.
    """

    def __init__(
        self, study: optuna.Study, settings: Settings, executor: Executor, sweep_dir: Path, started: float | None = None
    ) -> None:
        self.study, self.settings, self.executor = study, settings, executor
        self.total = budget.total(study, settings["n_trials"])
        self.names = list(settings.objective or [])
        self.started = time.monotonic() if started is None else started
        self.begun: dict[tuple[str, int], float] = {}
        self.display = display_for()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.display.close()

    def confirming(self, runs: optuna.Study, plan: list[dict[str, Any]]) -> None:
        """From now on, show the confirmation runs."""
        self.study, self.total = runs, len(plan)
        numbers = sorted({one[attributes.CONFIRMS] for one in plan})
        seeds = len({one[attributes.SEED] for one in plan})
        self.event(f"confirming trials {', '.join(map(str, numbers))} under {seeds} other seeds each")

    def event(self, line: str) -> None:
        """Show one line."""
        self.display.event(line)

    def refresh(self) -> None:
        """Show the state."""
        trials = self.study.get_trials(deepcopy=False)
        self.display.show(
            SweepState(
                study=self.study.study_name,
                n_trials=self.total,
                counts=dict(Counter(_state(trial) for trial in trials)),
                slots=self._slots(),
                best=results.best_words(self.study, self.names),
                finished_seconds=[s for t in trials if _ran(t) and (s := results.seconds(t))],
                started=self.started,
                timeout=self.settings["timeout"],
                now=time.monotonic(),
            )
        )

    def _slots(self) -> list[SlotView | None]:
        running = self.executor.running()
        return [self._view(slot, running[slot]) if slot in running else None for slot in range(self.executor.slots)]

    def _view(self, slot: int, job: Any) -> SlotView:
        began = self.begun.setdefault((self.study.study_name, job.number), time.monotonic())
        told = read_progress(job.folder)
        return SlotView(
            slot=slot,
            trial=job.number,
            epoch=told.get("epoch"),
            epochs=told.get("epochs"),
            metric=told.get("metric"),
            score=told.get("score"),
            seconds_left=told.get("seconds_left"),
            started=began,
        )


def _ran(trial: FrozenTrial) -> bool:
    """Whether a trial ended, and tells how long one takes; one that reused values does not."""
    return trial.state.is_finished() and attributes.DUPLICATE_OF not in trial.user_attrs


def _state(trial: FrozenTrial) -> str:
    names = {TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}
    if trial.state in names:
        return names[trial.state]
    bad = trial.state == TrialState.FAIL or any(value > 0 for value in trial.constraints.values())
    return "failed" if bad else "pruned"
