"""What the fork server says when its controller is gone: nothing."""

import pickle
from contextlib import suppress

import pytest

from steady.jobs.detached import report_uncaught

WHOLE = pickle.dumps({"of": "a process" * 50})


@pytest.mark.security
@pytest.mark.parametrize("end", [0, 1, 8, 15, len(WHOLE) // 2, len(WHOLE) - 1])
def test_a_controller_that_was_killed_while_it_asked_for_a_process_is_no_news(
    end: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        pickle.loads(WHOLE[:end])
    except (EOFError, pickle.UnpicklingError) as error:
        report_uncaught(type(error), error, error.__traceback__)
    else:
        pytest.fail("It was read, though it is torn.")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("x"), pickle.UnpicklingError("invalid load key")])
def test_other_faults_are_told(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(Exception):
        report_uncaught(type(error), error, None)
    assert str(error) in capsys.readouterr().err
