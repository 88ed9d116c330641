"""What the Makefile itself decides."""

import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser


def test_without_a_recorded_run_leet_says_what_to_do(root: Path, tmp_path: Path) -> None:
    line = ["make", "--no-print-directory", "--file", str(root / "Makefile"), "--old-file", "setup", "leet"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("Nothing is recorded in outputs/wandb yet: make sweep\n")


@pytest.mark.parametrize(("target", "key"), [("cats", "source"), ("data", "data.source")])
def test_a_folder_may_have_any_name(target: str, key: str, root: Path, tmp_path: Path) -> None:
    name = 'My cats (2), it\'s [one] of \\ "{a: b}" & c=d'
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\n')
    program.chmod(0o755)
    line = ["make", "--file", str(root / "Makefile"), "--old-file", "setup", f"RUN={program}", target, f"SOURCE={name}"]
    subprocess.run(line, cwd=tmp_path, check=True)
    [word] = [one for one in (tmp_path / "words").read_text().splitlines() if one.startswith(f"{key}=")]
    assert OverridesParser.create().parse_override(word).value() == name
