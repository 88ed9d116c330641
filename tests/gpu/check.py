"""Tries catsweep on a GPU in at most eight minutes, and prints a table: `make gpu-check`, or

    python tests/gpu/check.py [--minutes 4] [--within 8] [--only speeds run] [--profile] [--folder FOLDER]

Each check is a process of its own with a bound on its time; one that fails does not stop the others. The checks before
the run of some minutes are ended where they would take its time; those after it go on beside it. `--device cpu`
rehearses all of it, tiny, without a GPU; `--profile` also writes where the time of a training step goes. The exit code
is 1 if anything failed. What was written, logs and all, is in the folder.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import catsweep.commands  # noqa: F401  # isort: skip  # before torch: how threads wait, as for train.py
from tests.gpu import table
from tests.gpu.checks import CHECKS, ROOT, Check, Options, last_line
from tests.gpu.table import Row

LONG = "run"  # the check that takes the minutes, beside which those after it go on
NEEDS = "gpu-check needs an NVIDIA GPU that torch can use: torch.cuda.is_available() is false here."


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training of the long run")
    parser.add_argument("--within", type=float, default=8.0, help="minutes for all checks together")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: a rehearsal without a GPU")
    parser.add_argument("--only", nargs="+", choices=tuple(CHECKS), default=list(CHECKS), help="some of the checks")
    parser.add_argument("--profile", action="store_true", help="of the steps; takes some minutes")
    parser.add_argument("--folder", type=Path, help="a new one; without it outputs/gpu-check/DATE_TIME")
    parser.add_argument("--one", choices=tuple(CHECKS), help=argparse.SUPPRESS)  # a check, in its own process
    return parser.parse_args(words)


def gpu_is_there() -> bool:
    """Whether torch can use a GPU; asked in a process of its own, so that this one touches none."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def supervise(name: str, command: Sequence[str], folder: Path, seconds: float) -> list[Row]:
    """Run a check in a process of its own: its rows, or one that says why there are none."""
    log = folder / f"{name}.check.log"
    began = time.monotonic()
    with log.open("ab") as out:
        # A group of its own, so that what it has started ends with it.
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(seconds)
            failure = f"ended with {process.returncode}: {last_line(log)}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"not finished after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    rows = table.read(folder / f"{name}.json")
    if failure:
        rows.append(Row(name, f"finished within {seconds:.0f} s", f"{failure} ({log})", False))
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def everything(
    options: argparse.Namespace,
    folder: Path,
    command: Callable[[str, float], Sequence[str]],
    checks: dict[str, Check],
    clock: Callable[[], float] = time.monotonic,
) -> list[Row]:
    """All checks, one after the other, and those after the long run beside it.

    Args:
        options: from the command line.
        folder: for all that is written.
        command: how a check is started, from its name and the minutes of the long run.
        checks: by name, in their order.
        clock: seconds that only go forward.
    """
    end = clock() + 60 * options.within
    reserved = 60 * options.minutes + checks[LONG].seconds if LONG in options.only else 0.0
    results: dict[str, Future[list[Row]]] = {}
    with ThreadPoolExecutor() as beside:
        for name in options.only:
            reserved = 0.0 if name == LONG else reserved
            left = end - clock() - reserved
            minutes = min(options.minutes, (left - checks[name].seconds) / 60) if name == LONG else 0.0
            if left < 1 or minutes < 0 or (name == LONG and minutes <= 0):
                late = Row(name, f"within {options.within:g} minutes", "no time was left", False)
                results[name] = beside.submit(lambda row: [row], late)
                continue
            seconds = min(left, checks[name].seconds + 60 * minutes)
            results[name] = beside.submit(supervise, name, command(name, minutes), folder, seconds)
            if name != LONG:
                results[name].result()
            rows = [row for result in results.values() if result.done() for row in result.result()]
            (folder / "table.md").write_text(table.markdown(rows) + "\n", encoding="utf-8")
    rows = [row for result in results.values() for row in result.result()]
    (folder / "table.md").write_text(table.markdown(rows) + "\n", encoding="utf-8")
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Try, print, and give the exit code."""
    options = arguments(words)
    folder = (options.folder or ROOT / "outputs" / "gpu-check" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}").resolve()
    if options.one:
        rows = CHECKS[options.one].run(Options(options.device, folder, options.minutes, options.profile))
        table.write(folder / f"{options.one}.json", rows)
        return 0
    if options.device == "gpu" and not gpu_is_there():
        print(NEEDS, file=sys.stderr)
        return 2
    folder.mkdir(parents=True)

    def command(name: str, minutes: float) -> list[str]:
        common = ["--one", name, "--device", options.device, "--folder", str(folder), "--minutes", str(minutes)]
        profile = ["--profile"] if options.profile else []
        return [sys.executable, str(Path(__file__).resolve()), *common, *profile]

    rows = everything(options, folder, command, CHECKS)
    print(f"\n{table.markdown(rows)}\n\nLogs, pictures and this table: {os.path.relpath(folder)}")
    return table.exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
