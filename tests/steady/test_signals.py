"""Ctrl-C, SIGTERM and SIGHUP at any moment of a command, from its first import on: one line, 128 + signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from catsweep.commands import guard
from steady import signals
from steady.exceptions import ConfigError
from steady.signals import COMMAND, Command, Interruption

pytestmark = pytest.mark.security
COMMANDS = sorted(path.stem for path in (Path(__file__).parents[2] / "src").glob("*.py"))
# Sends the process a signal at the moment that Python's audit tells of: the import of a module.
PROGRAM = """
import os, runpy, signal, sys
number, moment, script = int(sys.argv[1]), sys.argv[2], sys.argv[3]
signal.signal(signal.SIGINT, signal.default_int_handler)  # which those who start the tests may have set to be ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
def hook(event, args):
    if event == "import" and args[0] == moment:
        os.kill(os.getpid(), number)
sys.addaudithook(hook)
sys.argv, sys.path[0] = sys.argv[3:], os.path.dirname(script)
runpy.run_path(script, run_name="__main__")
"""


def interrupted(root: Path, folder: Path, number: int, moment: str, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-c", PROGRAM, str(int(number)), moment, str(root / "src" / words[0]), *words[1:]]
    plain = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "HYDRA_FULL_ERROR")}
    return subprocess.run(line, cwd=folder, env=plain, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_hydra_is_imported_is_one_line(root: Path, tmp_path: Path, command: str) -> None:
    done = interrupted(root, tmp_path, signal.SIGINT, "hydra", f"{command}.py")
    assert (done.returncode, done.stderr, done.stdout) == (130, "Interrupted.\n", "")


@pytest.mark.parametrize(
    ("moment", "number"),
    [("omegaconf", 15), ("hydra._internal.hydra", 1), ("hydra.core.plugins", 2), ("torch", 2), ("numpy", 15)],
)
def test_each_signal_at_each_step_of_a_start_is_one_line(root: Path, tmp_path: Path, moment: str, number: int) -> None:
    done = interrupted(root, tmp_path, number, moment, "train.py", "logger=none")
    assert (done.returncode, done.stderr, done.stdout) == (128 + number, "Interrupted.\n", "")


def test_in_the_dashboard_too(root: Path, tmp_path: Path) -> None:
    program = PROGRAM.replace("runpy.run_path(script,", "runpy.run_module('steady.watch.dashboard',")
    program = program.replace('run_name="__main__"', 'run_name="__main__", alter_sys=True')
    line = [sys.executable, "-c", program, str(int(signal.SIGINT)), "optuna", str(root / "src" / "train.py")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_a_process_that_is_no_command_of_ours_is_left_as_it_is() -> None:
    assert all(signal.getsignal(number) is not COMMAND for number in signals.NUMBERS)
    assert sys.excepthook != COMMAND.uncaught


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """That of this process, as long as the test."""
    one = Command()
    one.at_work = True
    monkeypatch.setattr("catsweep.commands.COMMAND", one)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return one


@pytest.mark.parametrize("becomes", [KeyboardInterrupt, SystemExit(1), ImportError("numpy"), ConfigError("torn")])
def test_what_a_library_makes_of_it_is_one_line(
    command: Command, becomes: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    @guard
    def task(cfg: object) -> None:
        try:
            command(signal.SIGTERM, sys._getframe())
        except KeyboardInterrupt:
            raise becomes from None

    with pytest.raises(SystemExit) as raised:
        task(OmegaConf.create({}))
    assert raised.value.code == 143
    assert capsys.readouterr().err == "Interrupted.\n"


def test_one_that_is_sent_twice_at_once_is_one_and_later_is_the_end(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(Interruption, "leave", lambda self: left.append(self.code))
    with pytest.raises(KeyboardInterrupt):
        command(signal.SIGINT, None)
    command(signal.SIGINT, None)  # as `timeout` does, to a process and to its group
    assert left == []
    command._since -= 2 * signals.TOGETHER
    command(signal.SIGINT, None)
    assert left == [130]


def test_one_that_is_raised_where_none_may_be_is_not_forgotten(root: Path) -> None:
    program = (
        "import os, signal, sys, weakref; sys.modules['__main__'].__file__ = 'src/train.py'\n"
        "import steady.signals as s\n"
        "s.COMMAND.at_work = True\n"
        "class A: pass\n"
        "a = A(); r = weakref.ref(a, lambda _: s.COMMAND(signal.SIGINT, None)); del a\n"
        "print('went on')"
    )
    environment = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("way", ["LOCAL_RANK", "fork"])
def test_only_the_first_process_says_it(command: Command, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    if way == "fork":
        command._process = -1
    else:
        monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as raised:
        command(signal.SIGINT, None)
    assert raised.value.code == 130


def test_a_closed_terminal_takes_what_is_still_said(root: Path) -> None:
    """What is written to a terminal that has gone would be an error."""
    program = (
        "import os, pty, sys\n"
        "from steady.signals import Interruption\n"
        "ours, theirs = pty.openpty(); os.dup2(theirs, 1); os.dup2(theirs, 2); os.close(theirs)\n"
        "one = Interruption(); os.close(ours)\n"
        "try: one(1, None)\n"
        "except KeyboardInterrupt: print('said', flush=True); print('said', file=sys.stderr, flush=True)\n"
        "raise SystemExit(5)"
    )
    environment = {**os.environ, "PYTHONPATH": "src"}
    assert subprocess.run([sys.executable, "-c", program], cwd=root, env=environment).returncode == 5


def test_the_scripts_do_nothing_before() -> None:
    """A line above the import would be a moment in which Ctrl-C is a traceback."""
    for command in COMMANDS:
        source = (Path(__file__).parents[2] / "src" / f"{command}.py").read_text()
        assert source.split('"""')[2].lstrip().startswith("from catsweep.commands import guard"), command
