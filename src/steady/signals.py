"""Handling of Ctrl-C, SIGTERM and a closed terminal (SIGHUP): a command ends in one line, with exit code 128 + signal.

Every command imports this before anything else (`catsweep.commands` does), and a process whose script is one of ours
then handles them. Until the command is at work, and while it imports libraries, it ends on the spot: nothing could be
lost, and libraries would swallow or wrap an exception. Later a signal raises KeyboardInterrupt, which
`catsweep.commands.guard` reports; a second signal ends the command on the spot. Hardly any imports here.
"""

import os
import signal
import sys
import time
import traceback
from types import FrameType, TracebackType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER = 1.0  # seconds in which more are taken for the same: `timeout` sends one to a process and to its group
SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where the scripts are
PACKAGES = ("steady.", "catsweep.")  # whose modules are commands: python -m catsweep.tracking.sync
SAID = "Interrupted."
SWEEPER = "hydra_plugins.steady_sweeper.steady_sweeper"


class Interruption:
    """A handler of signals that raises KeyboardInterrupt once, and prints `said` when the process ends.

    >>> handler = Interruption()
    >>> handler.note(signal.SIGTERM)
    >>> handler.code
    143
    """

    def __init__(self, said: str = SAID) -> None:
        self.said = said
        self.number: int | None = None  # of the signal that came
        self._since = 0.0
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, for `signal.signal`."""
        if self.number is None:
            self.note(number)
            if _is_starting(frame):
                self.leave()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > TOGETHER:
            self.leave()

    def note(self, number: int) -> None:
        """Record a signal. After SIGHUP, output to the terminal, which has gone, is discarded."""
        self.number, self._since = number, time.monotonic()
        if number == signal.SIGHUP:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in self._terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)

    @property
    def code(self) -> int:
        """Exit code."""
        return 128 + (self.number or signal.SIGINT)

    def end(self) -> SystemExit:
        """Print the line, and get the exception to raise."""
        print(self.said, file=sys.stderr)
        return SystemExit(self.code)

    def leave(self) -> None:
        """Print the line, and end the process at once."""
        os.write(2, f"{self.said}\n".encode())
        os._exit(self.code)


class Command(Interruption):
    """The handler of a command of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work = False  # whether anything could be lost
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """See `Interruption`."""
        if os.getpid() != self._process or os.environ.get("LOCAL_RANK", "0") != "0":
            os._exit(128 + number)  # forked, or started for a further GPU: the first process prints the line
        if self.number is None and not self.at_work:
            self.note(number)
            self.leave()
        super().__call__(number, frame)

    def uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Handle an uncaught exception, for `sys.excepthook`."""
        if issubclass(kind, KeyboardInterrupt):
            raise self.end()
        from steady.printing import readable  # nothing more to import at each start

        print(readable("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)

    def unraisable(self, what: "sys.UnraisableHookArgs") -> None:
        """End the process on an interruption where none may be raised, for `sys.unraisablehook`."""
        if issubclass(what.exc_type, KeyboardInterrupt):
            self.leave()
        sys.__unraisablehook__(what)


def ignored(number: int) -> bool:
    """Tell whether a signal is ignored, as SIGHUP under `nohup`.

    >>> ignored(signal.SIGALRM)
    False
    """
    return signal.getsignal(number) == signal.SIG_IGN


def _is_ours() -> bool:
    """Tell whether this process was started as a command of ours, by its file or by `python -m`."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name).startswith(PACKAGES)
    file = getattr(main, "__file__", None)
    return file is not None and os.path.dirname(os.path.abspath(file)) == SOURCE


def _is_starting(frame: FrameType | None) -> bool:
    """Tell if the script itself, or our sweeper, waits for an import; a library's, later, is work."""
    names = []
    while frame is not None:
        names.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    imports = [k for k, name in enumerate(names) if name.startswith(("importlib._bootstrap", "_frozen_importlib"))]
    return bool(imports) and names[imports[-1] + 1 :][:1] in (["__main__"], [SWEEPER])


def _install() -> Command:
    command = Command()
    if _is_ours():
        for number in NUMBERS:
            if not ignored(number):
                signal.signal(number, command)
        sys.excepthook, sys.unraisablehook = command.uncaught, command.unraisable
    return command


COMMAND = _install()
