"""Restore `__main__`, the script that was started, in the processes of its trials.

multiprocessing would run the script again in each of them, before it could be told anything. A script that ends in a
bare `main()` would so start a sweep in every trial; so `steady.run.executor` starts processes without it, and
`steady.run.worker` restores the module itself. Functions and classes of it travel by value, with the task, so that
`_target_: __main__.Net` names the very class that the task knows. A script whose call is guarded
(`if __name__ == "__main__":`) is run again all the same, up to that guard and in silence: what it sets in other
modules, `torch.set_default_dtype` for one, is then set for its trials as well.
"""

import ast
import contextlib
import functools
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import spawn
from pathlib import Path
from types import FrameType
from typing import Any

DEFINED = (type, types.FunctionType, functools.partial)


@dataclass(frozen=True)
class Script:
    """How to restore `__main__` in another process.

    Attributes:
        again: what multiprocessing needs to run it again; empty if it must not, or cannot, be.
        bare: its path, if it must not because nothing guards its call.
    """

    again: dict[str, Any] = field(default_factory=dict)
    bare: str | None = None

    @classmethod
    def started(cls) -> "Script":
        """Find the script of this process, which has called, some frames up, what runs now."""
        again = {key: value for key, value in spawn.get_preparation_data("").items() if key.startswith("init_main")}
        if not again or (frame := _frame_of_main()) is None:
            return cls()
        return cls(again) if _guarded(frame) else cls(bare=frame.f_code.co_filename)

    def restore(self) -> None:
        """Make `__main__` of this process the script's; what travelled by value is then put into it."""
        if self.again:
            spawn.prepare(self.again)
        if "__mp_main__" not in sys.modules:
            sys.modules["__main__"] = sys.modules["__mp_main__"] = types.ModuleType("__main__")


def definitions() -> dict[str, Any]:
    """List the functions and classes of `__main__` by name."""
    return {name: value for name, value in vars(sys.modules["__main__"]).items() if isinstance(value, DEFINED)}


@contextmanager
def hidden() -> Iterator[None]:
    """Hide `__main__` from multiprocessing, which then starts processes that do not run it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _frame_of_main() -> FrameType | None:
    """Find the frame of the script's top level."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(sys.modules["__main__"]):
            return frame
        frame = frame.f_back
    return None


def _guarded(frame: FrameType) -> bool:
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
    """Silence standard output and error: what modules print when imported was said where the sweep was started."""
    streams = {1: sys.stdout, 2: sys.stderr}
    with open(os.devnull, "w") as nothing:
        kept = {}
        for number, text in streams.items():
            text.flush()
            kept[number] = os.dup(number)
            os.dup2(nothing.fileno(), number)
        try:
            yield
        finally:
            for number, text in streams.items():
                with contextlib.suppress(ValueError, OSError):
                    text.flush()
                os.dup2(kept[number], number)
                os.close(kept[number])
