"""Restore `__main__`, the script that was started, in the processes of its trials.

multiprocessing would run the script again in each of them, and one that ends in a bare `main()` would so start a sweep
in every trial. So processes start without it, and its functions and classes travel by value, with the task, so that
`_target_: __main__.Net` names the very class that the task knows. A script whose call is guarded
(`if __name__ == "__main__":`) is run again all the same, up to that guard and in silence: what it sets in other
modules, as by `torch.set_default_dtype`, is then set for its trials as well.
"""

import ast
import functools
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import spawn
from pathlib import Path
from types import FrameType
from typing import Any

DEFINED = (type, types.FunctionType, functools.partial)


@dataclass(frozen=True)
class Script:
    """How to restore `__main__` in another process."""

    again: dict[str, Any] = field(default_factory=dict)  # what multiprocessing needs to run it again, if it may
    bare: str | None = None  # its path, if it may not because nothing guards its call

    @classmethod
    def started(cls) -> "Script":
        """Find the script of this process, which has called, some frames up, what runs now."""
        again = {key: value for key, value in spawn.get_preparation_data("").items() if key.startswith("init_main")}
        if not again or (frame := _frame_of_main()) is None:
            return cls()
        return cls(again) if _is_guarded(frame) else cls(bare=frame.f_code.co_filename)

    def restore(self) -> None:
        """Make `__main__` of this process the script's; what travelled by value is then put into it."""
        if self.again:
            spawn.prepare(self.again)
        if "__mp_main__" not in sys.modules:
            sys.modules["__main__"] = sys.modules["__mp_main__"] = types.ModuleType("__main__")


def definitions() -> dict[str, Any]:
    """Collect the functions and classes of `__main__` by name.

    Example:
        >>> all(map(callable, definitions().values()))
        True
    """
    return {name: value for name, value in vars(sys.modules["__main__"]).items() if isinstance(value, DEFINED)}


@contextmanager
def hidden() -> Iterator[None]:
    """Hide `__main__` from multiprocessing, which then starts processes that do not run it.

    Example:
        >>> with hidden():
        ...     hasattr(sys.modules["__main__"], "__file__")
        False
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _frame_of_main() -> FrameType | None:
    """Find the frame of the script's top level."""
    frame: FrameType | None = sys._getframe()
    while frame and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(sys.modules["__main__"])):
        frame = frame.f_back
    return frame


def _is_guarded(frame: FrameType) -> bool:
    """Whether the statement that runs now is below an `if` that asks for `__name__`; False if that cannot be read."""
    try:
        tree = ast.parse(Path(frame.f_code.co_filename).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(
        isinstance(node, ast.If)
        and node.lineno <= frame.f_lineno <= (node.end_lineno or 0)
        and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
        for node in ast.walk(tree)
    )


@contextmanager
def silence() -> Iterator[None]:
    """Silence standard output and error: what modules print when imported was said where the sweep was started.

    Example:
        >>> with silence():
        ...     written = os.write(1, b"unheard")
    """
    streams = {1: sys.stdout, 2: sys.stderr}
    before = {number: os.dup(number) for number in streams}
    with open(os.devnull, "w") as nothing:
        for number, text in streams.items():
            text.flush()
            os.dup2(nothing.fileno(), number)
        try:
            yield
        finally:
            for number, text in streams.items():
                with suppress(ValueError, OSError):
                    text.flush()
                os.dup2(before[number], number)
                os.close(before[number])
