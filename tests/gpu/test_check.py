"""How `make gpu-check` runs its checks; that it works on a GPU is what it is for."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.gpu import check, table
from tests.gpu.checks import CHECKS, TRAINED, Check, last_line, states
from tests.gpu.table import Row

CHECK = Path(check.__file__)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def kept(folder: Path, name: str) -> str:
    """Code of a check that keeps a good row."""
    rows = f'[{{"what": "{name}", "wanted": "w", "got": "g", "ok": true}}]'
    return f"from pathlib import Path; Path({str(folder / name)!r} + '.json').write_text({rows!r})"


def test_what_fails_or_takes_too_long_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    codes = {
        "crashes": f"{kept(tmp_path, 'crashes')}; raise ValueError('too bad')",
        "hangs": "import threading; threading.Event().wait()",
        "works": kept(tmp_path, "works"),
    }
    seconds = {"crashes": 600.0, "hangs": 0.5, "works": 600.0}
    checks = {name: Check(lambda _: [], seconds[name]) for name in codes}
    options = check.arguments(["--within", "60"])
    options.only = list(codes)
    rows = check.everything(options, tmp_path, lambda name, _: python(codes[name]), checks)
    assert [(row.what, row.ok) for row in rows] == [
        ("crashes", True), ("crashes", False), ("hangs", False), ("works", True)
    ]  # fmt: skip
    assert "ValueError: too bad" in rows[1].got
    assert "not finished after" in rows[2].got
    assert (tmp_path / "table.md").read_text() == table.markdown(rows) + "\n"


@pytest.mark.parametrize(
    ("within", "minutes", "bound"),
    [(8.0, 4.0, 300.0), (3.0, 2.0, 180.0)],
)
def test_the_long_run_takes_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: float, minutes: float, bound: float
) -> None:
    asked: list[tuple[float, float]] = []

    def supervise(name: str, command: Sequence[str], folder: Path, seconds: float) -> list[Row]:
        asked.append((float(command[0]), seconds))
        return []

    monkeypatch.setattr(check, "supervise", supervise)
    options = check.arguments(["--within", str(within), "--only", "run"])
    checks = {"run": Check(lambda _: [], 60.0)}
    check.everything(options, tmp_path, lambda _, minutes: [str(minutes)], checks, clock=lambda: 0.0)
    assert asked == [(minutes, bound)]


def test_without_time_a_check_fails(tmp_path: Path) -> None:
    now = iter([0.0, 1000.0])
    options = check.arguments(["--within", "8", "--only", "slots"])
    rows = check.everything(options, tmp_path, lambda *_: [], CHECKS, clock=lambda: next(now))
    assert [row.ok for row in rows] == [False]


def test_without_a_gpu_one_line_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = [sys.executable, str(CHECK), "--folder", str(tmp_path / "new")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [check.NEEDS]
    assert not (tmp_path / "new").exists()


def test_every_configuration_is_trained_and_timed() -> None:
    from tests.gpu import speed

    assert set(TRAINED) == set(speed.CONFIGURATIONS)
    assert {f"train-{name}" for name in TRAINED} < set(CHECKS)


def test_trials_are_told_in_their_order() -> None:
    trials = [{"trial": "10", "state": "complete"}, {"trial": "2", "state": "out of memory"}]
    assert states(trials) == "2 out of memory, 10 complete"
    assert states([]) == "none"


def test_the_last_line_of_a_log_says_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\nlast\n\n")
    assert last_line(log) == "last"
    log.write_text("")
    assert last_line(log) == ""
