"""Trials that are paused at rungs: which goes on when, what the study knows of them, and how they end."""

import math
import random
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.steady.scripted import GOOD, Script, scheduler, states

from steady.exceptions import StudyError
from steady.jobs.executor import Job
from steady.options import Promotion
from steady.reporting import TrialReporter
from steady.run.ledger import Limits
from steady.run.scheduler import Scheduler
from steady.study import budget, meta
from steady.study.failures import Kind, Outcome
from steady.study.results import state, summary

PROMOTION = Promotion(3, [1, 3, 9], ["loss"], ["minimize"])
PRUNED, LOST = Outcome(Kind.PRUNED), Outcome(Kind.LOST, message="SIGKILL")


def sweep(study: optuna.Study, n: int, slots: int = 1, name: str = "here", retries: int = 1) -> Scheduler:
    study.set_user_attr(meta.PROMOTION, vars(PROMOTION))
    more = {"promotion": PROMOTION, "must_report": ["loss"]}
    return scheduler(Script(slots), Limits(n, retries=retries), study, name, **more)


def train(study: optuna.Study, trial: FrozenTrial, losses: dict[int, float]) -> Outcome:
    """Report at the rungs that follow, as an app does that goes on from its checkpoint and reports there once more."""
    reporter = TrialReporter(study, trial.number, meta.get(trial, meta.ATTEMPT))
    reporter.begin()
    done = [int(step) for step in meta.get(study.trials[trial.number], meta.RUNGS, {})]
    for step in (step for step in PROMOTION.pausing if step >= max(done, default=0)):
        if reporter.report(step, {"loss": losses[step]}):
            return PRUNED
    return Outcome(Kind.COMPLETE, value=losses[9])


def acquire(loop: Scheduler) -> FrozenTrial:
    trial = loop.ledger.acquire()
    assert trial is not None
    return trial


def end(loop: Scheduler, trial: FrozenTrial, outcome: Outcome) -> None:
    loop.ledger.finish(Job(trial.number, (), Path(str(trial.number))), outcome, 0, 0.0)


def flat(loss: float) -> dict[int, float]:
    return {1: loss, 3: loss, 9: loss}


def begin(study: optuna.Study, loop: Scheduler, *losses: float) -> None:
    for loss in losses:
        trial = acquire(loop)
        end(loop, trial, train(study, trial, flat(loss)))


def test_the_first_are_paused_and_the_best_of_three_goes_straight_on() -> None:
    study = optuna.create_study()
    loop = sweep(study, 9)
    begin(study, loop, 0.5, 0.4, 0.3)
    assert [state(trial) for trial in study.trials] == ["paused"] * 3
    assert [meta.paused_at(trial) for trial in study.trials] == [1, 1, 3]  # the third was among the best at once
    assert summary(study, []) == "3 trials: 3 paused"
    assert not budget.all_failed(study.trials)


def test_a_paused_trial_is_promoted_under_its_own_number_before_a_new_one_begins() -> None:
    study = optuna.create_study()
    loop = sweep(study, 9, retries=0)
    begin(study, loop, 0.1, 0.4, 0.5)
    assert [meta.paused_at(trial) for trial in study.trials] == [1, 1, 1]
    promoted = acquire(loop)
    assert promoted.number == 0
    assert meta.get(promoted, meta.ATTEMPT) == 1
    assert meta.get(promoted, meta.LOST_COUNT) is None  # a promotion is no retry
    end(loop, promoted, train(study, promoted, flat(0.1)))
    assert meta.paused_at(study.trials[0]) == 3
    assert acquire(loop).number == 3


def test_the_highest_rung_comes_first_and_a_lost_one_before_any() -> None:
    study = optuna.create_study()
    loop = sweep(study, 20)
    begin(study, loop, *(0.9 - 0.1 * n for n in range(3)))  # the third is at rung 3
    waiting = [acquire(loop) for _ in range(2)]
    for number in (0, 1):  # two more came to rung 3 before, so one of three may go on
        store = study._storage
        store.set_trial_user_attr(
            study.trials[number]._trial_id, meta.RUNGS, {"1": {"loss": 0.95}, "3": {"loss": 0.95}}
        )
        store.set_trial_user_attr(study.trials[number]._trial_id, f"{meta.REACHED}3", True)
    end(loop, waiting[0], LOST)
    assert acquire(loop).number == waiting[0].number
    assert acquire(loop).number == 2


@pytest.mark.parametrize(
    "outcome", [LOST, Outcome(Kind.INTERRUPTED), Outcome(Kind.TIMED_OUT)], ids=["lost", "interrupted", "hung"]
)
def test_one_that_is_killed_between_its_mark_and_its_end_is_paused_all_the_same(outcome: Outcome) -> None:
    study = optuna.create_study()
    loop = sweep(study, 9, retries=0)
    trial = acquire(loop)
    assert train(study, trial, flat(0.5)) == PRUNED
    end(loop, trial, outcome)
    assert state(study.trials[0]) == "paused"
    other = acquire(loop)
    assert train(study, other, flat(0.4)) == PRUNED
    loop.ledger.leases.close()  # and so does the controller
    again = sweep(study, 9, name="again")
    again.ledger.requeue_abandoned()
    assert [state(trial) for trial in study.trials] == ["paused"] * 2


def test_a_value_of_a_trial_that_had_to_end_at_a_rung_is_no_result() -> None:
    study = optuna.create_study()
    loop = sweep(study, 3)
    trial = acquire(loop)
    assert train(study, trial, flat(0.5)) == PRUNED
    end(loop, trial, Outcome(Kind.COMPLETE, value=0.1))
    assert study.trials[0].state == TrialState.FAIL
    assert "raise optuna.TrialPruned; it returned [0.1]" in study.trials[0].user_attrs[meta.MESSAGE]


def test_what_is_lost_after_its_promotion_goes_on_without_another() -> None:
    study = optuna.create_study()
    loop = sweep(study, 9)
    begin(study, loop, 0.1, 0.4, 0.5)
    end(loop, acquire(loop), LOST)
    assert state(study.trials[0]) == "lost"
    again = acquire(loop)
    assert (again.number, meta.get(again, meta.ATTEMPT)) == (0, 2)
    assert train(study, again, flat(0.1)) == PRUNED  # it passed rung 1 without deciding anew
    assert study.trials[0].user_attrs[meta.PAUSED] == {"rung": 3, "attempt": 2}


def test_a_trial_that_its_task_or_a_constraint_gives_up_stays_pruned() -> None:
    study = optuna.create_study()
    loop = sweep(study, 9)
    end(loop, acquire(loop), PRUNED)
    assert states(study) == ["PRUNED"]
    begin(study, loop, 0.1, 0.4, 0.5)
    promoted = acquire(loop)
    end(loop, promoted, PRUNED)  # by its own rule, in an attempt that has not come to a rung
    assert study.trials[promoted.number].state == TrialState.PRUNED


def test_at_the_end_one_of_all_is_finished_and_the_others_have_ended_at_their_rungs() -> None:
    study = optuna.create_study()
    loop = sweep(study, 2)
    begin(study, loop, 0.5, 0.4)
    while (trial := loop.ledger.acquire()) is not None:
        end(loop, trial, train(study, trial, flat(0.4)))
    assert states(study) == ["PRUNED", "COMPLETE"]
    assert loop.ledger.done
    assert study.trials[0].user_attrs[meta.MESSAGE] == "Not promoted from rung 1"
    assert study.trials[0].value == 0.5  # Optuna's, of a pruned trial: the last that it reported


class Timed(Script):
    """Jobs that train from the rung they come from to the one where they are paused, a second a step, by a clock."""

    def __init__(self, slots: int, study: optuna.Study) -> None:
        super().__init__(slots)
        self.study, self.now = study, 0.0
        self.begun: dict[int, tuple[int, float]] = {}  # by trial: the rung it comes from, and when it began
        self.log: list[tuple[int, int, float]] = []  # trial, rung it came from, second

    def submit(self, job: Job) -> int:
        came = meta.get(self.study.trials[job.number], meta.PROMOTED) or 0
        self.begun[job.number] = came, self.now
        self.log.append((job.number, came, self.now))
        return super().submit(job)

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        ends = {}
        for slot, job in self.busy.items():
            came, began = self.begun[job.number]
            ends[slot] = began + (min(step for step in PROMOTION.rungs if step > came) - came)
        if not ends or min(ends.values()) > self.now + timeout:
            self.now += timeout
            return []
        slot = min(ends, key=ends.__getitem__)
        self.now, job = max(self.now, ends[slot]), self.busy.pop(slot)
        trial = self.study.trials[job.number]
        came, step = self.begun[job.number][0], round(ends[slot] - self.begun[job.number][1])
        if came + step == PROMOTION.rungs[-1]:
            return [(job, Outcome(Kind.COMPLETE, value=flat(job.number / 10)[9]))]
        reporter = TrialReporter(self.study, trial.number, meta.get(trial, meta.ATTEMPT))
        reporter.begin()
        if reporter.report(came + step, {"loss": 10 - job.number / 10}):
            return [(job, PRUNED)]
        self.begun[job.number] = came + step, self.now  # it goes straight on
        self.busy[slot] = job
        return []


def bounded(study: optuna.Study, slots: int, timeout: float, draw_ahead: bool = False) -> tuple[Scheduler, Timed]:
    """A sweep whose trials take 9 s, and what comes after them 18."""
    loop, executor = sweep(study, 99, slots), Timed(slots, study)
    limits = Limits(99, timeout=timeout, reserved=lambda share: 9 * share + 18)
    loop.executor, loop.limits, loop.draw_ahead = executor, limits, draw_ahead
    loop.clock, loop.started = (lambda: executor.now), 0.0
    return loop, executor


@pytest.mark.parametrize("draw_ahead", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("timeout", [47, 52, 60])
def test_when_no_whole_trial_fits_into_the_time_the_best_that_are_paused_go_on(
    slots: int, timeout: int, draw_ahead: bool
) -> None:
    study = optuna.create_study()
    loop, executor = bounded(study, slots, timeout, draw_ahead)
    loop.run()
    last = timeout - 27
    assert all(at < last for _, came, at in executor.log if came == 0)
    late = [(came, at) for _, came, at in executor.log if at >= last]
    assert all(came and at + 9 - came < timeout - 18 for came, at in late)
    begun = [trial for trial in study.trials if meta.RUNGS in trial.user_attrs]
    paused = [meta.paused_at(trial) for trial in begun if trial.state == TrialState.WAITING]
    finished = sum(trial.state == TrialState.COMPLETE for trial in begun)
    assert finished >= slots  # each slot had time for one
    assert finished + len(paused) == len(begun)
    assert len(study.trials) - len(begun) <= draw_ahead  # drawn, and too late to begin
    assert sum(meta.get(trial, meta.ATTEMPT) + 1 for trial in study.trials) <= len(executor.log) + draw_ahead
    assert all(rung and executor.now + 9 - rung >= timeout - 18 for rung in paused)
    assert loop.is_out_of_time()


def test_with_little_time_an_interrupted_trial_goes_on_before_those_that_are_paused() -> None:
    study = optuna.create_study()
    begin(study, loop := sweep(study, 9), 0.5, 0.4, 0.3)  # the third is at rung 3
    assert acquire(loop).number == 3
    loop.ledger.leases.close()
    study._storage.set_trial_user_attr(study.trials[3]._trial_id, meta.RUNGS, {"1": {"loss": 0.1}})
    later, executor = bounded(study, 1, 26.5)  # 8 s for what is left
    later.ledger.leases.register()
    later.run()
    assert [number for number, *_ in executor.log] == [3]
    assert study.trials[3].state == TrialState.COMPLETE  # it passed rung 3 without a pause
    assert [meta.paused_at(trial) for trial in study.trials[:3]] == [1, 1, 3]


def test_paused_trials_that_are_not_compared_keep_nobody_waiting() -> None:
    study = optuna.create_study()
    begin(study, sweep(study, 9), 0.5)
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.RUNGS, {"1": {"other": 0.5}})
    loop, executor = bounded(study, 1, 26.5)
    loop.run()
    assert (executor.log, executor.now) == ([], 0.0)


def test_a_promoted_trial_that_does_not_start_stays_paused() -> None:
    study = optuna.create_study()
    loop = sweep(study, 9)
    begin(study, loop, 0.1, 0.4, 0.5)
    promoted = acquire(loop)
    loop.ledger.requeue(promoted)
    assert [meta.paused_at(trial) for trial in study.trials] == [1, 1, 1]
    assert acquire(loop).number == promoted.number  # and is promoted again


def test_while_others_run_nothing_ends() -> None:
    study = optuna.create_study()
    one, other = sweep(study, 3), sweep(study, 3, name="other")
    begin(study, one, 0.1, 0.2)
    running = acquire(other)
    promoted = acquire(one)
    assert promoted.number == 0  # in a slot that would stay idle: nothing new can begin
    assert one.ledger.acquire() is None
    assert state(study.trials[1]) == "paused"
    end(one, promoted, train(study, promoted, flat(0.1)))
    end(other, running, GOOD)
    assert not one.ledger.done


def test_rungs_at_which_nobody_reports_end_the_sweep() -> None:
    study = optuna.create_study()
    loop = sweep(study, 3)
    trial = acquire(loop)
    TrialReporter(study, 0, 0).report(5, {"loss": 0.5})
    end(loop, trial, GOOD)
    assert isinstance(loop.ledger.abort, StudyError)
    assert "rungs at the steps 1, 3, but trial 0 reported at the steps 5 only" in str(loop.ledger.abort)


def test_a_trial_that_has_passed_the_rungs_of_an_earlier_start_ends_no_sweep() -> None:
    study = optuna.create_study()
    loop = sweep(study, 3)
    trial = acquire(loop)
    TrialReporter(study, 0, 0).report(5, {"loss": 0.5})  # a rung of then
    end(loop, trial, Outcome(Kind.INTERRUPTED))
    end(loop, acquire(loop), GOOD)
    assert states(study) == ["COMPLETE"]
    assert loop.ledger.abort is None


def test_without_promotion_what_was_paused_goes_on() -> None:
    study = optuna.create_study()
    begin(study, sweep(study, 2), 0.5)
    assert acquire(scheduler(Script(1), Limits(2), study, "later")).number == 0


@pytest.mark.parametrize("seed", range(4))
def test_two_controllers_with_faults_at_random_end_with_the_exact_total_and_obey_the_rule(seed: int) -> None:
    """Trials end, are lost, and controllers die at any moment; what has begun is begun once at a time."""
    dice, study, n = random.Random(seed), optuna.create_study(), 24
    loops = [sweep(study, n, name=name, retries=99) for name in ("one", "two")]
    curves = [dice.random() for _ in range(n)]
    running: dict[int, tuple[Scheduler, FrozenTrial]] = {}
    reached: dict[int, int] = dict.fromkeys(PROMOTION.pausing, 0)
    for turn in range(5000):
        place = turn % 2
        loop = loops[place]
        if dice.random() < 0.02:  # it dies; its jobs with it
            loop.ledger.leases.close()
            running = {number: own for number, own in running.items() if own[0] is not loop}
            loops[place] = loop = sweep(study, n, name=f"{place} {turn}", retries=99)
            loop.ledger.requeue_abandoned()
        mine = [trial for own, trial in running.values() if own is loop]
        if len(mine) < 3 and (trial := loop.ledger.acquire()) is not None:
            assert trial.number not in running
            running[trial.number] = loop, trial
        elif mine:
            trial = running.pop(dice.choice(mine).number)[1]
            outcome = train(study, trial, flat(curves[trial.number]))
            end(loop, trial, LOST if dice.random() < 0.2 else outcome)
        if loop.ledger.done:
            break
    assert loop.ledger.done
    assert [trial.number for trial in study.trials] == list(range(n))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in study.trials)
    for step in reached:
        reached[step] = sum(str(step) in meta.get(trial, meta.RUNGS, {}) for trial in study.trials)
    finished = [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert reached[1] == n
    assert min(range(n), key=curves.__getitem__) in finished
    # Whoever was among the best when it came goes on, also if better ones come later: never fewer than the share.
    assert reached[3] >= math.floor(reached[1] / 3)
    assert len(finished) >= max(1, math.floor(reached[3] / 3))
    best = sorted(range(n), key=curves.__getitem__)[: n // 3]
    assert all("3" in meta.get(study.trials[number], meta.RUNGS) for number in best)
