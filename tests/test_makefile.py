"""What the Makefile itself decides."""

import subprocess
from pathlib import Path


def test_without_a_recorded_run_leet_says_what_to_do(root: Path, tmp_path: Path) -> None:
    line = ["make", "--no-print-directory", "--file", str(root / "Makefile"), "--old-file", "setup", "leet"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("Nothing is recorded in outputs/wandb yet: make sweep\n")
