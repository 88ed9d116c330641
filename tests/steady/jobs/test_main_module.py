"""What becomes of the script that was started: run again only where it says so, and known to trials all the same."""

import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tests.starting import Running, Warm

from steady.jobs import main_module
from steady.jobs.main_module import Script

BODY = """
import decimal, functools, threading
from collections import Counter
import hydra
from hydra.utils import instantiate

print("imported as", __name__)
open("imports.txt", "a").write("once\\n")
decimal.getcontext().prec = 7
LOCK = threading.Lock()
STATE = {"n": 0}

class Net:
    def __init__(self, k):
        super().__init__()
        self.k = k

def locked():
    with LOCK:
        return 1

def bump():
    STATE["n"] += 1
    return STATE["n"]

def times(k):
    def decorate(function):
        @functools.wraps(function)
        def wrapped(cfg):
            return k * function(cfg)
        return wrapped
    return decorate

@hydra.main(config_path=".", config_name="app", execution_whitelist=["__main__.*", "collections.Counter"])
@times(2)
def main(cfg):
    import pickle
    net = instantiate(cfg.net)
    assert isinstance(net, Net)
    assert type(pickle.loads(pickle.dumps(net))) is Net
    assert isinstance(instantiate(cfg.alias), Counter)
    assert bump() == STATE["n"] == 1
    return [1.0 * net.k, 1.0 * decimal.getcontext().prec][cfg.of]
"""
CONFIG = """
defaults: [{override hydra/sweeper: steady}]
x: 0
of: 0
net: {_target_: __main__.Net, k: 3}
alias: {_target_: __main__.Counter}
hydra:
  sweep: {dir: out, subdir: "${hydra.job.num}"}
  sweeper: {n_trials: 2, n_jobs: 2, sampler: {seed: 1}, params: {x: "choice(0, 1, 2)"}}
"""
BARE = "main()\nprint('after')\n"
GUARDED = "if __name__ == '__main__':\n    main()\n    print('after')\n"


@pytest.mark.parametrize(("end", "value", "imports"), [(BARE, 6.0, 1), (GUARDED, 14.0, None)])
def test_a_script_runs_as_it_would_with_the_stock_sweeper(
    warm: Warm, tmp_path: Path, end: str, value: float, imports: int | None
) -> None:
    """Guarded, what it sets in other modules is set in its trials, too; bare, no trial runs it again."""
    (tmp_path / "script.py").write_text(BODY + end)
    (tmp_path / "app.yaml").write_text(CONFIG)
    words = ["-m", *(["of=1"] if imports is None else [])]
    done = Running(warm, tmp_path / "script.py", tmp_path, words, tmp_path / "logs").done()
    assert done.returncode == 0, done.stderr
    assert OmegaConf.load(tmp_path / "out/optimization_results.yaml").best_value == value
    said = done.stdout + done.stderr
    assert (said.count("imported as"), said.count("after")) == (1, 1)
    assert ("is not guarded" in said) == (imports is not None)
    for number in (0, 1):
        assert "imported as" not in (tmp_path / f"out/{number}/output.log").read_text()
    if imports is not None:
        assert len((tmp_path / "imports.txt").read_text().splitlines()) == imports


STARTED = "from steady.jobs.main_module import Script; print(Script.started())"


def python(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("main()", False),
        ("import sys\nsys.exit(main())", False),
        ("try:\n    main()\nfinally:\n    pass", False),
        ("if True:\n    main()", False),
        ("if __name__ == '__main__':\n    main()", True),
        ("if '__main__' == __name__ and 1:\n    try:\n        x = (1,\n            main())\n    finally: pass", True),
        ("def entry():\n    main()\nif __name__ == '__main__':\n    pass\nentry()", False),
    ],
)  # fmt: skip
def test_it_is_run_again_only_below_a_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, again: bool
) -> None:
    file = tmp_path / "script.py"
    file.write_text(text + "\n")
    found: list[Script] = []
    module = types.ModuleType("__main__")
    vars(module).update(__file__=str(file), main=lambda: found.append(Script.started()))
    monkeypatch.setitem(sys.modules, "__main__", module)
    with suppress(SystemExit):
        exec(compile(file.read_text(), str(file), "exec"), vars(module))
    assert found == [Script({"init_main_from_path": str(file)}) if again else Script(bare=str(file))]


def test_modules_and_commands_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"if __name__ == '__main__':\n    {STARTED}\n")
    assert "{'init_main_from_name': 'app'}" in python(tmp_path, "-m", "app")
    assert python(tmp_path, "-c", STARTED).strip() == "Script(again={}, bare=None)"


def test_what_cannot_be_sent_is_left_out_and_the_task_goes_on(
    make_main: Callable[[dict[str, Any]], None],
) -> None:
    make_main({"f": lambda: 1, "K": type("K", (), {}), "number": 3, "other": OmegaConf})
    assert sorted(main_module.definitions()) == ["K", "f", "other"]


@pytest.fixture
def make_main(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    def made(content: dict[str, Any]) -> None:
        module = types.ModuleType("__main__")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, "__main__", module)

    return made


def test_while_a_process_starts_it_is_hidden_and_then_there_again() -> None:
    before = sys.modules["__main__"]
    with main_module.hidden():
        assert Script.started() == Script()
    assert sys.modules["__main__"] is before
