"""What is taken for a sign of progress, and when there was none for too long."""

import os
from pathlib import Path

import pytest

from steady.jobs.executor import STALL, Watchdog
from steady.options import UNBOUNDED, TrialTimeout


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def after(watchdog: Watchdog, clock: Clock, seconds: float) -> str:
    """What it says when it has looked once a second for so long, or the first thing that it says."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now += 1.0
        if said := watchdog.check():
            return said
    return ""


@pytest.mark.parametrize("sign", ["output.log", "train.log", "progress.json"])
def test_a_line_in_a_log_or_a_word_to_the_reporter_is_a_sign(tmp_path: Path, clock: Clock, sign: str) -> None:
    watchdog = Watchdog(TrialTimeout(progress=60), tmp_path, clock=clock)
    for n in range(3):
        assert not after(watchdog, clock, 59)
        (tmp_path / sign).write_text(n * "epoch\n")
    assert not after(watchdog, clock, 59)
    assert "for 60 s (hydra.sweeper.trial_timeout.progress)" in after(watchdog, clock, 2)


def test_the_same_content_at_another_time_is_a_sign_too(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "progress.json").touch()
    watchdog = Watchdog(TrialTimeout(progress=60), tmp_path, clock=clock)
    assert not after(watchdog, clock, 59)
    os.utime(tmp_path / "progress.json", ns=(5, 5))
    assert not after(watchdog, clock, 59)


def test_what_libraries_write_beside_a_training_is_none(tmp_path: Path, clock: Clock) -> None:
    watchdog = Watchdog(TrialTimeout(progress=60), tmp_path, clock=clock)
    assert not after(watchdog, clock, 59)
    for name in ("wandb/run/run.wandb", "checkpoints/last.ckpt", "wandb/debug.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert after(watchdog, clock, 2)


def test_a_trial_may_not_go_on_for_ever_whatever_it_says(tmp_path: Path, clock: Clock) -> None:
    watchdog = Watchdog(TrialTimeout(progress=60, total=100), tmp_path, clock=clock)
    for n in range(2):
        assert not after(watchdog, clock, 49)
        (tmp_path / "output.log").write_text(n * "step\n")
    assert "after 100 s (hydra.sweeper.trial_timeout.total)" in after(watchdog, clock, 10)


def test_time_in_which_nobody_looked_is_not_counted(tmp_path: Path, clock: Clock) -> None:
    """The machine slept, or the sweep was stopped by Ctrl-Z: the trial had no more of that time than we."""
    watchdog = Watchdog(TrialTimeout(progress=60, total=60), tmp_path, clock=clock)
    clock.now += 1e6
    assert not watchdog.check()
    assert not after(watchdog, clock, 60 - STALL - 1)
    assert after(watchdog, clock, 2)


def test_a_job_of_a_launcher_is_timed_from_its_own_first_word(tmp_path: Path, clock: Clock) -> None:
    watchdog = Watchdog(TrialTimeout(progress=60), tmp_path, elsewhere=True, clock=clock)
    (tmp_path / "output.log").write_text("waiting in a queue")  # the launcher's
    assert not after(watchdog, clock, 1000)
    (tmp_path / "train.log").write_text("begun")
    assert not after(watchdog, clock, 60)
    assert after(watchdog, clock, 2)


def test_nothing_is_looked_for_without_a_bound() -> None:
    assert UNBOUNDED.every is None
    assert TrialTimeout(progress=1e3).every == 1.0
    assert TrialTimeout(progress=1e3, total=2.0).every == pytest.approx(0.1)


def test_what_is_prepared_for_all_trials_may_take_long_but_not_be_silent() -> None:
    assert TrialTimeout(60, 600).for_preparation() == TrialTimeout(progress=60)
    assert TrialTimeout(total=600).for_preparation() == TrialTimeout(progress=600)
    assert UNBOUNDED.for_preparation() == UNBOUNDED
