"""Serve one job in a trial's own process: wait for it, run it, send its outcome, and exit.

Started by `steady.jobs.executor` before there is a job, so that a free slot waits neither for a fork nor for an import.

The outcome is one message, which `Incoming` reads without blocking: whatever the trial has forked holds the pipe too,
and may outlive it, so that neither the end of the pipe nor the rest of a message may ever come. It is JSON, and
bounded: what a trial returns, or writes to the pipe by mistake, must neither end the controller nor fill its memory.
"""

import faulthandler
import functools
import gc
import io
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import cloudpickle
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from steady.composition import Composition
from steady.jobs import reaper
from steady.jobs.main_module import Script, silence
from steady.study.failures import Kind, Outcome, classify

OUTPUT = "output.log"
HEAD = struct.Struct("!Q")  # the size of what follows, in bytes
CHUNK = 1 << 16
LARGEST = 1 << 24  # bytes of a message: objective values, or what a preflight finds

T = TypeVar("T")
Run = Callable[[Callable[[], None]], JobReturn]  # of what takes the slot
Prepare = Callable[[int, list[str]], Run]


def serve(pipe: Connection, variables: dict[str, str], script: Script, static: bytes) -> None:
    """Wait for a job, run it, and send its outcome.

    The controller sends one `executor.Job` and, when there is a slot for it, the environment variables of that slot; it
    closes its end of the pipe when it wants this process no more. `variables` are the controller's own environment,
    `static` what all jobs share, see `executor.pickle_shared`.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the fork server ignores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the controller to decide on
    faulthandler.register(reaper.DUMP)
    reaper.fork(pipe)
    own = os.getpid()
    # As much as can be before there is a job, and before it has a slot. What goes wrong is told as the job's end.
    prepare = _defer(lambda: _load(variables, script, static))
    try:
        job = pipe.recv()
    except EOFError:
        return
    slot = Slot(pipe)
    try:
        outcome = Outcome(Kind.COMPLETE, value=_prepare_job(job, prepare)(slot.take).return_value)
    except BaseException as error:
        slot.take()
        outcome = classify(error)
    if os.getpid() == own:  # not a process that the task forked, and that came out of it too
        send(pipe, outcome)


class Slot:
    """The slot of a job, which its process waits for as soon as there is nothing left to do without it."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.taken = pipe, False

    def take(self) -> None:
        """Wait for the slot, and keep to its GPU and cores; ends the process if the job is not wanted any more."""
        if self.taken:
            return
        try:
            environment: dict[str, str] = self.pipe.recv()
        except EOFError:
            os._exit(0)
        self.taken = True
        # Nothing has touched a GPU before, so the variable is still in time.
        os.environ.update(environment)
        torch = sys.modules.get("torch")
        if torch is not None and "OMP_NUM_THREADS" in environment:
            torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))


def _defer(step: Callable[[], T]) -> Callable[[], T]:
    """Run a step now, and return a function that returns its result, or raises its error."""
    try:
        result = step()
    except BaseException as error:
        return functools.partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> NoReturn:
    raise error


def _prepare_job(job: Any, prepare: Callable[[], Prepare]) -> Run:
    _redirect_output(job.folder / OUTPUT)
    return prepare()(job.number, list(job.overrides))


def _load(variables: dict[str, str], script: Script, static: bytes) -> Prepare:
    """Load what all jobs share; returns a function that prepares the job of a number and overrides."""
    os.environ.clear()  # the warm parent has some of its own
    os.environ.update(variables)
    with silence():
        script.restore()
        hydra_context, task, config, state, parts, defined = cloudpickle.loads(static)
    vars(sys.modules["__main__"]).update(defined)  # what the task knows, not what running the script again has made
    setup_globals()
    state["instances"].setdefault(Plugins, Plugins.instance())  # else Hydra looks for plugins again
    Singleton.set_state(state)
    task = functools.partial(run_task, task)
    if parts is None:
        prepare = functools.partial(_launch, hydra_context, task, config)
    else:
        prepare = functools.partial(_compose, hydra_context, task, parts)
    # What was imported stays. To look through it for garbage takes a quarter of a second, and copies shared memory.
    gc.freeze()
    return prepare


def run_task(task: TaskFunction, config: DictConfig) -> Any:
    """Run a task, and write what it has reported while the storage's server was away; if it raises, within seconds.

    >>> run_task(lambda config: config.x, DictConfig({"x": 0.5}))
    0.5
    """
    try:
        value = task(config)
    except BaseException:
        if reporting := sys.modules.get("steady.reporting"):
            reporting.flush(interrupted=True)
        raise
    if reporting := sys.modules.get("steady.reporting"):
        reporting.flush()
    return value


def _compose(context: HydraContext, task: TaskFunction, parts: Composition, number: int, overrides: list[str]) -> Run:
    """Compose a job's configuration, to run it as Hydra's basic launcher does.

    It waits for its slot only when Hydra has made its folder, its logs and `.hydra/`; but before Hydra has begun if
    that sets variables of the environment, or tells callbacks that the job starts.
    """
    composed = parts.compose(overrides)
    with read_write(composed), open_dict(composed):
        composed.hydra.job.id = str(number)
        composed.hydra.job.num = number

    def run(take_slot: Callable[[], None]) -> JobReturn:
        def begin(task_config: DictConfig) -> Any:
            take_slot()
            return task(task_config)

        function: TaskFunction = begin
        if composed.hydra.job.env_set or composed.hydra.job.env_copy or context.callbacks.callbacks:
            take_slot()
            function = task
        with read_write(composed), open_dict(composed):
            for name in composed.hydra.job.env_copy:  # copied before the slot was known
                composed.hydra.job.env_set[name] = os.environ[name]
        return run_job(
            function,
            composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=context,
        )

    return run


def _launch(context: HydraContext, task: TaskFunction, config: DictConfig, number: int, overrides: list[str]) -> Run:
    """Make the launcher that the user chose, to send one job through it."""
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)

    def run(take_slot: Callable[[], None]) -> JobReturn:
        take_slot()
        logging = (config.hydra.hydra_logging, config.hydra.verbose)  # launchers say there where a job's own files are
        configure_log(*logging, execution_whitelist=context.execution_whitelist)
        [ended] = launcher.launch([overrides], initial_job_idx=number)
        return ended

    return run


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    for text in (sys.stdout, sys.stderr):  # what a crash leaves unwritten would be missed most
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(line_buffering=True, errors="replace")  # a locale may lack a letter
    faulthandler.enable()
    faulthandler.register(reaper.DUMP, file=target)  # wherever the task sends its standard error


def send(pipe: Connection, outcome: Outcome) -> None:
    """Send an outcome; a value that cannot be sent is told as a failure.

    Example:
        >>> from multiprocessing import Pipe
        >>> ours, theirs = Pipe()
        >>> send(theirs, Outcome(Kind.COMPLETE, value=0.5))
        >>> Incoming(ours).take().value
        0.5
    """
    try:
        body = serialize(outcome)
    except BaseException as error:  # of what the task returned, whose methods are called
        body = serialize(classify(error))
    left = memoryview(HEAD.pack(len(body)) + body)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def serialize(outcome: Outcome) -> bytes:
    """Write an outcome as JSON; a ValueError if it is too large.

    >>> deserialize(serialize(Outcome(Kind.COMPLETE, value=0.5))).value
    0.5
    """
    told = {**vars(outcome), "kind": outcome.kind.value}
    body = json.dumps(told, default=_plain).encode()
    if len(body) > LARGEST:
        raise ValueError(
            f"The task returned {len(body):,} bytes; expected its objective values, in at most {LARGEST:,} bytes."
        )
    return body


def _plain(value: Any) -> Any:
    """Convert to a float, a tensor for one, or else to its `repr`."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return repr(value)


class Incoming:
    """Reads an outcome from the controller's end of a pipe, without blocking; `over`: nothing more will come."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.over = False
        self._read = bytearray()

    def take(self) -> Outcome | None:
        """Read what has come so far; returns the outcome as soon as it is whole, or can be none."""
        while not self.over and self.pipe.poll():  # a read after that returns at once, if with less than it asks for
            try:
                chunk = os.read(self.pipe.fileno(), CHUNK)
            except OSError:  # it died before it had read its job
                chunk = b""
            self._read += chunk
            self.over = not chunk or self._is_whole()
        return deserialize(bytes(self._read[HEAD.size :])) if self._is_whole() else None

    def _is_whole(self) -> bool:
        if len(self._read) < HEAD.size:
            return False
        size: int = HEAD.unpack_from(self._read)[0]
        return size > LARGEST or len(self._read) - HEAD.size >= size


def deserialize(body: bytes) -> Outcome:
    """Read an outcome; of what is none, that the trial was lost."""
    try:
        told = json.loads(body)
        said = str(told["message"]), str(told["traceback"])
        return Outcome(Kind(told["kind"]), told["value"], *said, began=told.get("began") is not False)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Outcome(Kind.LOST, message="Something else than a result came from the process: the task wrote to it.")
