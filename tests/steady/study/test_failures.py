"""How a trial ended is classified, also when a library has wrapped the failure."""

import math
from typing import Any

import pytest

from catsweep.errors import MetricError
from steady.exceptions import DivergedError, InterruptedTrial
from steady.jobs import worker
from steady.study.failures import (
    KEPT,
    LINE,
    LINES,
    Kind,
    Outcome,
    classify,
    is_out_of_memory,
    shortened,
    signature,
    values_of,
)


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


class SIGTERMException(SystemExit):
    """As Lightning names its own."""


class TrialPruned(Exception):
    """As Optuna names its own."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TrialPruned(), Kind.PRUNED),
        (KeyboardInterrupt(), Kind.INTERRUPTED),
        (InterruptedTrial("asked"), Kind.INTERRUPTED),
        (SIGTERMException(), Kind.INTERRUPTED),
        (DivergedError("nan"), Kind.DIVERGED),
        (MemoryError(), Kind.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA"), Kind.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Kind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), Kind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Kind.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Kind.OUT_OF_MEMORY),
        (RuntimeError("std::bad_alloc"), Kind.OUT_OF_MEMORY),
        (OSError(12, "kein Speicher"), Kind.OUT_OF_MEMORY),
        (OSError(28, "No space left on device"), Kind.DISK_FULL),
        (OSError(122, "Disk quota exceeded"), Kind.DISK_FULL),
        (OSError(13, "Permission denied", "x"), Kind.FAILED),
        (ValueError("we ran out of memory of that"), Kind.FAILED),
        (MetricError("no reference"), Kind.FAILED),
        (SystemExit(3), Kind.FAILED),
    ],
)
def test_an_exception_is_sorted_by_what_it_is(error: BaseException, kind: Kind) -> None:
    assert classify(error).kind == kind
    assert is_out_of_memory(error) == (kind == Kind.OUT_OF_MEMORY)


def test_what_caused_an_exception_counts() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError as cause:
            raise ValueError("wrapped") from cause
    except ValueError as error:
        outcome = classify(error)
    assert outcome.kind == Kind.OUT_OF_MEMORY
    assert "wrapped" in outcome.message
    assert "MemoryError" in outcome.traceback


def test_what_is_out_of_memory_is_so_when_the_clean_up_fails_too() -> None:
    def fail() -> None:
        try:
            raise OutOfMemoryError("CUDA")
        finally:
            raise KeyError("in the clean-up")

    with pytest.raises(KeyError) as raised:
        fail()
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(KeyError("memory"))


def test_a_ring_of_causes_ends() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert classify(one).kind == Kind.FAILED


def test_a_suppressed_context_does_not() -> None:
    def fail() -> None:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("unrelated") from None

    with pytest.raises(ValueError, match="unrelated") as raised:
        fail()
    assert classify(raised.value).kind == Kind.FAILED


def test_the_message_of_sys_exit_says_what_was_expected() -> None:
    assert "sys.exit(3)" in classify(SystemExit(3)).message


@pytest.mark.parametrize(("returned", "n", "values"), [(1, 1, [1.0]), ("2.5", 1, [2.5]), ((1, 2.0), 2, [1.0, 2.0])])
def test_values_are_numbers(returned: object, n: int, values: list[float]) -> None:
    assert values_of(returned, n) == values


@pytest.mark.parametrize(
    ("returned", "n", "words"),
    [
        (None, 1, "float-castable"),
        ("a", 1, "float-castable"),
        ([1, None], 2, "list or tuple"),
        ([1], 2, "Expect 2, but actually 1"),
        (float("nan"), 1, "NaN"),
    ],
)
def test_other_values_are_refused(returned: object, n: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values_of(returned, n)


@pytest.mark.parametrize(
    ("returned", "n"), [(math.inf, 1), ("-inf", 1), ((1.0, -math.inf), 2), ([math.inf, 0.0], 2), (10**400, 1)]
)
def test_infinite_values_are_told_apart(returned: object, n: int) -> None:
    with pytest.raises(OverflowError, match=r"finite|too large"):
        values_of(returned, n)


def test_the_same_failure_has_the_same_fingerprint() -> None:
    def fail(number: int) -> Outcome:
        try:
            raise RuntimeError(f"trial {number} at {number:#x}")
        except RuntimeError as error:
            return classify(error)

    def otherwise() -> Outcome:
        try:
            raise RuntimeError("trial 1 at 0x1")
        except RuntimeError as error:
            return classify(error)

    assert signature(fail(1)) == signature(fail(2))
    assert signature(fail(1)) != signature(otherwise())
    assert signature(fail(1)) == signature(fail(1000))


def test_what_an_exception_says_on_further_lines_does_not_tell_failures_apart() -> None:
    def fail(detail: str) -> Outcome:
        try:
            raise RuntimeError(f"no such file:\n{detail}")
        except RuntimeError as error:
            return classify(error)

    assert signature(fail("photos/a.png")) == signature(fail("photos/b.png"))


def test_another_exception_from_the_same_line_is_another_failure() -> None:
    def fail(kind: type[Exception]) -> Outcome:
        try:
            raise kind("here")
        except Exception as error:
            return classify(error)

    assert signature(fail(KeyError)) != signature(fail(ValueError))


def test_without_a_traceback_the_message_tells_failures_apart() -> None:
    lost = [Outcome(Kind.LOST, message=f"exit code {code}") for code in (1, 1)]
    assert signature(lost[0]) == signature(lost[1]) != signature(Outcome(Kind.LOST, message="SIGSEGV"))


@pytest.mark.security
def test_a_message_of_any_size_is_kept_with_its_frames_and_shown_in_a_few_lines() -> None:
    try:
        raise RuntimeError("y" * 3_000_000 + "\nz" * 100_000)
    except RuntimeError as error:
        outcome = classify(error)
    assert len(outcome.traceback) <= KEPT
    assert "in test_a_message_of_any_size" in outcome.traceback
    shown = shortened(outcome.traceback).splitlines()
    assert len(shown) <= LINES + 1
    assert max(map(len, shown)) <= LINE + 1
    assert shortened("a\nb") == "a\nb"


def test_a_traceback_begins_with_the_task_s_first_frame() -> None:
    """What runs every task, here the worker, tells nothing of one."""

    def task() -> None:
        raise ValueError("no")

    scope: dict[str, Any] = {}
    exec(compile("def run(task): task()", worker.__file__, "exec"), scope)
    with pytest.raises(ValueError, match="no") as raised:
        scope["run"](task)
    trace = raised.value.__traceback__
    assert trace is not None
    traceback = classify(raised.value.with_traceback(trace.tb_next)).traceback  # without this test's own frame
    assert "in task" in traceback
    assert worker.__file__ not in traceback


def test_jobs_that_end_in_one_place_have_one_signature_whatever_their_ids() -> None:
    trace = 'File "/site/allocation.py", line 5, in main'
    ended = [Outcome(Kind.LOST, message=f"Job {id} of SLURM ended as FAILED.", traceback=trace) for id in (7, 8)]
    assert signature(ended[0]) == signature(ended[1])
