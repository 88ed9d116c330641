"""What failed before a command was mended uses up no budget; a study of failures is not called finished."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from tests.steady.left import load, states
from tests.steady.scripted import GOOD, Script, scheduler

from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.ledger import Limits
from steady.study import budget, meta
from steady.study.failures import Kind, Outcome

pytestmark = pytest.mark.security
Sweep = Callable[..., "subprocess.CompletedProcess[str]"]
BROKEN = ("hydra.sweeper.n_trials=4", "hydra.sweeper.max_failure_rate=1", "fault=raise", "faulty=[0,1,2,3,4,5,6,7]")


def test_a_sweep_that_failed_and_was_mended_gets_its_budget_back(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep(*BROKEN).returncode == 1
    again = sweep(*BROKEN)
    assert again.returncode == 1
    assert "4 x failed: RuntimeError: a fault of the task" in again.stderr
    assert "finished:" not in again.stdout
    assert states(tmp_path) == ["FAIL"] * 4
    mended = sweep("hydra.sweeper.n_trials=4", "fault=none")
    assert mended.returncode == 0, mended.stderr
    assert states(tmp_path) == ["FAIL"] * 4 + ["COMPLETE"] * 4
    finished = sweep("hydra.sweeper.n_trials=4", "fault=none")
    assert finished.returncode == 0
    assert "It has all of its 4 trials" in finished.stdout
    refused = sweep(*BROKEN)  # now there is something that new trials must be comparable with
    assert "fault: none → raise" in refused.stderr
    assert states(tmp_path) == ["FAIL"] * 4 + ["COMPLETE"] * 4


def test_a_mend_that_is_not_in_the_command_is_accepted_by_name(sweep: Sweep, tmp_path: Path) -> None:
    broken = (*BROKEN[:2], "hydra.sweeper.baseline=true", "fault=raise", "faulty=[0,1,2,3]")
    assert sweep(*broken).returncode == 1
    done = sweep(*broken, "hydra.sweeper.allow_change=[failures]")
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == ["FAIL"] * 4 + ["COMPLETE"] * 4
    trials = load(tmp_path).trials
    assert trials[4].params == trials[0].params == {"x": 0.0, "y": "a"}  # first again is the one that stands


def failure(kind: Kind = Kind.FAILED, state: TrialState = TrialState.FAIL, **more: Any) -> optuna.trial.FrozenTrial:
    return create_trial(state=state, user_attrs={meta.OUTCOME: kind.value, meta.ATTEMPT: 0}, **more)


@pytest.mark.parametrize(
    ("trials", "fruitless"),
    [
        ([], False),
        ([failure()], True),
        ([failure(Kind.LOST), failure(Kind.TIMED_OUT)], True),
        ([failure(Kind.OUT_OF_MEMORY, TrialState.PRUNED), failure(Kind.DIVERGED, TrialState.PRUNED)], True),
        ([failure(), failure(Kind.PRUNED, TrialState.PRUNED)], False),  # it ran, and was given up
        ([failure(), create_trial(state=TrialState.PRUNED)], False),  # of another tool
        ([failure(), create_trial(value=1.0)], False),
        ([create_trial(state=TrialState.WAITING)], False),
        ([failure(), failure(Kind.INTERRUPTED, TrialState.WAITING)], True),
    ],
)
def test_fruitless_is_what_failed_and_has_no_result(trials: list[optuna.trial.FrozenTrial], fruitless: bool) -> None:
    assert budget.all_failed(trials) is fruitless


def test_what_was_begun_is_given_up_when_what_it_runs_has_changed() -> None:
    study = optuna.create_study()
    study.add_trials([failure(), failure(Kind.INTERRUPTED, TrialState.WAITING)])
    study.enqueue_trial({"x": 0.5})
    assert budget.uncount_failures(study, unfinished=False) == 1
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING", "WAITING"]
    assert budget.uncount_failures(study, unfinished=True) == 2
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "WAITING"]
    assert budget.uncount_failures(study, unfinished=True) == 2  # a start that was killed is made up for
    assert budget.total(study, 5) == 7


@pytest.mark.parametrize("sampler", ["RandomSampler", "TPESampler", "GridSampler", "BruteForceSampler"])
def test_a_finite_space_is_tried_again_from_its_first(sampler: str) -> None:
    study = optuna.create_study()
    space = Space.parse({"y": "choice(a, b, c)"}, [])
    node = {"_target_": f"optuna.samplers.{sampler}", "seed": 0}
    bad = Outcome(Kind.FAILED, message="why")

    def run(*ends: Outcome) -> None:
        loop = scheduler(Script(1, *ends), Limits(budget.total(study, 3), max_same_failures=None), study)
        loop.ledger.proposals = Proposer(study, space, Samplers(node, 0, space))
        loop.run()

    run(bad, bad, bad)
    budget.uncount_failures(study, unfinished=True)
    run(GOOD, GOOD, GOOD)
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 3 + ["COMPLETE"] * 3
    assert {trial.params["y"] for trial in study.trials[3:]} == {"a", "b", "c"}


def test_a_full_disk_costs_no_trial_and_ends_the_sweep() -> None:
    study = optuna.create_study()
    full = Outcome(Kind.DISK_FULL, message="OSError: [Errno 28] No space left on device")
    with pytest.raises(Exception, match="Make room and give the same command again"):
        scheduler(Script(1, GOOD, full), Limits(3), study).run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "WAITING"]
    scheduler(Script(1), Limits(3), study, "again").run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3


def test_only_to_accept_changes_is_no_mend() -> None:
    keys: dict[str, Any] = {"allow_change": ["steps"], "n_trials": 3}
    before = budget.digest(["-m", "x=1"], {"allow_change": [], "n_trials": 3})
    assert budget.digest(["-m", "x=1", "hydra.sweeper.allow_change=[steps]"], keys) == before
    assert budget.digest(["-m", "x=1", "++hydra.sweeper.allow_change=[steps]"], keys) == before
    assert budget.digest(["-m", "x=2"], keys) != before
