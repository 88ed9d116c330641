"""Signals to the controller."""

import os
import signal
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from catsweep.search.interruption import interruptible
from catsweep.search.limits import Stop


@pytest.fixture(autouse=True)
def standing() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
