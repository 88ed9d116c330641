"""The suite is the same wherever it runs. What commands make of such a machine: `tests/test_train_command.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import hostile

TOLD = """
import json, locale, os
import tests.environment
print(json.dumps([dict(os.environ), locale.getencoding().lower(), os.umask(0)]))
"""


def test_nothing_of_the_machine_reaches_a_test(root: Path, tmp_path: Path) -> None:
    given = hostile.machine(tmp_path / "bin")
    kept = {"PATH": given["PATH"], "ATEN_CPU_CAPABILITY": "avx2", "CI": "1"}
    given |= kept | {"WANDB_API_KEY": "a", "KAGGLE_KEY": "a", "HYDRA_FULL_ERROR": "1", "PYTHONWARNINGS": "error"}
    given |= {"COLUMNS": "7", "OMP_NUM_THREADS": "64", "CUDA_VISIBLE_DEVICES": "3"}
    done = subprocess.run(
        [sys.executable, "-c", TOLD], cwd=root, env=given, umask=hostile.UMASK, check=True, capture_output=True
    )
    variables, encoding, umask = json.loads(done.stdout)
    assert (encoding, umask) == ("utf-8", 0o022)
    home = Path(variables.pop("HOME"))
    assert not home.exists(), "the process has ended, and its home with it"
    assert not variables.keys() & (given.keys() - kept.keys() - os.environ.keys())  # the suite's own are settled
    settled = {"USER": "tester", "LC_ALL": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    assert variables.items() >= (kept | settled).items()
    assert "COLUMNS" not in variables
