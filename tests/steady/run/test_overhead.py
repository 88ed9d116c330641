"""The benchmark of what a trial costs the controller runs, in its short form."""

import re
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "overhead.py"


def test_the_overhead_of_a_trial_can_be_measured(tmp_path: Path) -> None:
    words = [sys.executable, str(BENCHMARK), "20", "--slots", "4", "--storages", "sqlite", "journal"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    header, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert header == ["storage", "slots", "trial", "ms", "CPU ms", "statements", "trials read", "MiB", "TPE, ms"]
    assert [row[:3] for row in rows] == [["sqlite", "4", "20"], ["journal", "4", "20"]]
    assert all(re.fullmatch(r"[\d.]+", cell) for row in rows for cell in row[3:])
    assert float(rows[0][5]) > 0 == float(rows[1][5])  # statements, of a database alone
