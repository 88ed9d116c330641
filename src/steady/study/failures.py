"""Classification of how a trial ended.

Made in the trial's own process and sent to the controller as plain text. Exceptions are recognised by the names of
their classes, so that neither side has to import torch or Lightning.
"""

import errno
import math
import re
import traceback as tracebacks
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import hydra

from steady.exceptions import causes
from steady.places import is_full

OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can(?:'t|not) allocate memory|CU\w+_STATUS_ALLOC_FAILED|bad_alloc", re.I
)
# Folders of the code that runs every task.
MACHINERY = (f"{Path(hydra.__file__).parent}/", f"{Path(__file__).parents[1] / 'jobs'}/")
FRAME = re.compile(r'File "([^"]*)", line (\d+)')
EXITED = "The task called sys.exit"
KEPT = 20_000  # characters of a message or a traceback that are kept: databases bound the length of an attribute
LINES, LINE = 60, 300  # lines of a message that are shown, and characters of a line
SHOWN = 200  # characters of a wrong value in the message about it


class Kind(StrEnum):
    """Ways in which a trial can end."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    PAUSED = "paused"  # at a rung, until it is promoted
    INFEASIBLE = "infeasible"  # it violates a constraint of the study
    OUT_OF_MEMORY = "out of memory"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"
    DISK_FULL = "disk full"


@dataclass(frozen=True)
class Outcome:
    """The end of a trial."""

    kind: Kind
    value: Any = None  # what the task returned, if it did
    message: str = ""  # one line for people
    traceback: str = ""  # of the exception, if there was one
    began: bool = True  # False: it only waited in the queue of an engine


def classify(error: BaseException) -> Outcome:
    """Classify an exception that a task raised, or what caused it: libraries wrap what they cannot handle.

    One that raises when it is looked at, or is of any size, is classified all the same.

    >>> classify(MemoryError("5 GB")).kind, classify(ValueError("no")).message
    (<Kind.OUT_OF_MEMORY: 'out of memory'>, 'ValueError: no')
    """
    try:
        kind = next((kind for cause in causes(error) if (kind := _kind(cause))), None)
        if kind is None:
            kind = Kind.FAILED
            with suppress(BaseException):  # an exception that raises when it is looked at says nothing of disks
                kind = Kind.DISK_FULL if is_full(error) else Kind.FAILED
        text, name = _text(error), type(error).__name__
        if kind == Kind.PRUNED:
            return Outcome(kind, message=_kept(text))
        if kind == Kind.INTERRUPTED:
            text = name if isinstance(error, SystemExit) else text or name
        elif isinstance(error, SystemExit):
            text = f"{EXITED}({text}); expected it to return its objective values."
        else:
            text = f"{name}: {text}"
        lines = "".join(tracebacks.format_exception(type(error), error, _of_the_task(error.__traceback__)))
        if len(lines) > KEPT:  # the frames come first, and a message of any size behind them
            half = KEPT // 2 - 2
            lines = f"{lines[:half]}\n…\n{lines[-half:]}"
        return Outcome(kind, message=_kept(text), traceback=_kept(lines))
    except BaseException as failed:
        return Outcome(Kind.FAILED, message=f"{type(error).__name__}, of which {type(failed).__name__} says no more.")


def is_exit(outcome: Outcome) -> bool:
    """Tell whether a task failed as signals make it fail: by `sys.exit`, or by one more KeyboardInterrupt.

    The second may come while the first is being classified.

    >>> is_exit(classify(SystemExit(143))), is_exit(classify(ValueError("no")))
    (True, False)
    """
    return outcome.kind == Kind.FAILED and outcome.message.startswith((EXITED, KeyboardInterrupt.__name__))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception, or what caused it, says that the memory of the machine or of a GPU was used up.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory"))
    True
    """
    return any(_kind(cause) == Kind.OUT_OF_MEMORY for cause in causes(error))


def values_of(returned: Any, n: int) -> list[float]:
    """Convert what a task returned, a number or a sequence of them, to the values of `n` objectives.

    Raises:
        ValueError: not numbers, not as many, or not a number (NaN).
        OverflowError: infinite: Optuna would take it, and -inf for the best there can be.

    >>> values_of(1, n=1), values_of([1, 2.5], n=2)
    ([1.0], [1.0, 2.5])
    """
    several = returned if isinstance(returned, Sequence) and not isinstance(returned, str) else [returned]
    try:
        values = [float(value) for value in several]
    except (TypeError, ValueError):
        wanted = "float-castable" if n == 1 else "a list or tuple of float-castable values"
        raise ValueError(f"Return value must be {wanted}. Got '{_shown(returned)}'.") from None
    if len(values) != n:
        raise ValueError(
            "The number of the values and the number of the objectives are mismatched. "
            f"Expect {n}, but actually {len(values)}."
        )
    if any(math.isnan(value) for value in values):
        raise ValueError(f"Return value must not be NaN. Got '{_shown(returned)}'.")
    if any(math.isinf(value) for value in values):
        raise OverflowError(f"Return value must be finite. Got '{_shown(returned)}'.")
    return values


def signature(outcome: Outcome) -> str:
    """Compute a text that is equal for equal failures: kind and exception with its frames, or message without numbers.

    >>> signature(Outcome(Kind.LOST, message="process 12")) == signature(Outcome(Kind.LOST, message="process 7"))
    True
    """
    frames = FRAME.findall(outcome.traceback)
    said = outcome.message.partition(":")[0] if frames else outcome.message
    return f"{outcome.kind} {re.sub(r'0x[0-9a-f]+|[0-9]+', '#', said)} {frames}"


def shortened(text: str) -> str:
    """Shorten a message or a traceback to its first and last lines, and the beginning of each.

    >>> len(shortened("x" * 1000))
    301
    """
    lines = [f"{line[:LINE]}…" if len(line) > LINE else line for line in text.splitlines()]
    if len(lines) > LINES:
        half = LINES // 2
        lines[half : len(lines) - half] = [f"… ({len(lines) - 2 * half} more lines)"]
    return "\n".join(lines)


def headline(message: object) -> str:
    """Shorten a message to its first line.

    >>> headline("  no GPU"), headline("")
    ('no GPU', 'no message')
    """
    lines = str(message).strip().splitlines()
    return shortened(lines[0]) if lines else "no message"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _text(error: BaseException) -> str:
    """Get what an exception says of itself; that of `sys.exit` as it was called."""
    try:
        return repr(error.code) if isinstance(error, SystemExit) else str(error)
    except BaseException as failed:
        return f"(its text cannot be had: {type(failed).__name__})"


def _kept(text: str) -> str:
    """Truncate a text to what is kept, in letters that any file takes: half a surrogate pair is none."""
    return text[:KEPT].encode("utf-8", "backslashreplace").decode()


def _of_the_task(trace: TracebackType | None) -> TracebackType | None:
    """Cut a traceback to begin with the task's first frame; all of it, if it has none of the task's."""
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(MACHINERY):
        frame = frame.tb_next
    return frame or trace


def _kind(error: BaseException) -> Kind | None:
    names = {cls.__name__ for cls in type(error).__mro__}
    if "TrialPruned" in names:
        return Kind.PRUNED
    if names & {"KeyboardInterrupt", "InterruptedTrial", "SIGTERMException"}:  # the last is Lightning's
        return Kind.INTERRUPTED
    if "StorageError" in names:  # the trial is sound, and so is what it has; it lost its way to the study
        return Kind.DISK_FULL if getattr(error, "full", False) else Kind.LOST
    if "DivergedError" in names:
        return Kind.DIVERGED
    if names & {"MemoryError", "OutOfMemoryError"} or (
        names & {"RuntimeError", "OSError"}
        and (OUT_OF_MEMORY.search(_text(error)) or getattr(error, "errno", None) == errno.ENOMEM)
    ):
        return Kind.OUT_OF_MEMORY
    return None
