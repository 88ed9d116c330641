"""Signals to the controller."""

import os
import signal
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from steady.run.interruption import SAID, Stop, ending, interruptible
from steady.signals import NUMBERS


@pytest.fixture(autouse=True)
def standing() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])  # who runs the tests may ignore SIGHUP
def test_once_to_stop_at_a_checkpoint_twice_to_stop_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    executor, stop = Mock(), Stop()
    with interruptible(executor, stop):
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop == Stop(requested=True, signal=number)
        executor.stop.assert_called_once_with()
        executor.kill.assert_not_called()
        assert capfd.readouterr() == ("", "")  # a word would fall into the live table
        os.kill(os.getpid(), number)
        executor.kill.assert_called_once_with()
        executor.stop.assert_called_once_with()


def test_signals_are_as_before_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), interruptible(Mock(), Stop()):
        raise ZeroDivisionError  # `standing` looks


@pytest.fixture
def heard() -> Iterator[None]:
    """SIGHUP is not ignored, as it is under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.security
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("becomes", [KeyboardInterrupt(), ImportError("by numpy's start"), ValueError("by a library")])
@pytest.mark.parametrize("number", NUMBERS)
def test_without_trials_a_signal_ends_the_sweep_in_one_line(
    number: signal.Signals, becomes: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    stop, done = Stop(), []

    def prepare() -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise becomes from None
        finally:
            done.append("put away")

    with pytest.raises(SystemExit) as raised, ending(stop):
        prepare()
    assert raised.value.code == 128 + number
    assert stop == Stop(requested=True, signal=number)
    assert done == ["put away"]
    assert capfd.readouterr() == ("", f"{SAID}\n")


@pytest.mark.security
@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(1)])
def test_other_ends_are_what_they_are_though_a_stop_was_asked_for(error: BaseException) -> None:
    stop = Stop()

    def search() -> None:
        with interruptible(Mock(), stop):
            os.kill(os.getpid(), signal.SIGTERM)
        raise error

    with pytest.raises(type(error)) as raised, ending(stop):
        search()
    assert raised.value is error


@pytest.mark.security
@pytest.mark.usefixtures("heard")
def test_under_nohup_a_closed_terminal_is_no_end() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    with ending(stop), interruptible(Mock(), stop):
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop == Stop()
