"""The command lines as a person meets them: a real process from the project's root, and what it has imported."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

COMMANDS = sorted(path.stem for path in (Path(__file__).parents[1] / "src").glob("*.py"))
HEAVY = {"torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "kornia", "wandb", "optuna", "onnxruntime"}
QUESTIONS = [["--help"], ["--cfg", "job"], ["--info", "defaults"], ["--cfg", "hydra"]]
# The last two Hydra answers alike for every command, and each is a process.
ASKED = [(command, one) for command in COMMANDS for one in QUESTIONS[: 4 if command in ("prepare", "train") else 2]]


@cache
def typed(root: Path, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's root; standard error lists every import (`-X importtime`)."""
    line = [sys.executable, "-X", "importtime", f"src/{command}.py", *words]
    # Without the measurement of coverage, whose frames Hydra takes for a reason to show a traceback.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.run(
        line, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, env=plain
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Names of the top-level packages that a process has imported."""
    lines = re.findall(r"^import time:.*\|\s+([\w.]+)$", done.stderr, re.MULTILINE)
    return {line.partition(".")[0] for line in lines}


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Standard error without the list of imports."""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))


@pytest.mark.parametrize(("command", "question"), ASKED)
def test_questions_are_answered_without_importing_anything_heavy(root: Path, command: str, question: list[str]) -> None:
    done = typed(root, command, *question)
    assert done.returncode == 0, said(done)
    assert done.stdout.strip()
    assert {"hydra", "catsweep"} <= imported(done)  # or the list of imports was not understood
    assert imported(done) & HEAVY == set()


def test_so_is_the_configuration_of_a_sweep(root: Path) -> None:
    done = typed(root, "train", "hparams_search=vae_optuna", "--cfg", "job")
    assert done.returncode == 0, said(done)
    assert "objective:\n- val/fid\n- val/ssim\n" in done.stdout
    assert imported(done) & HEAVY == set()


def test_the_controller_of_a_sweep_needs_no_torch(root: Path) -> None:
    done = typed(root, "train", "-m", "hparams_search=vae_optuna", "hydra.sweeper.dry_run=true")
    assert done.returncode == 0, said(done)
    assert imported(done) & HEAVY == {"optuna"}


def test_help_names_every_group_with_its_options(root: Path) -> None:
    answer = typed(root, "train", "--help").stdout
    for group in (folder for folder in (root / "conf").iterdir() if folder.is_dir() and folder.name != "hydra"):
        names = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        assert f"{group.name}: {names}\n" in answer
    assert "resume=true" in answer


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_how_the_command_is_typed(root: Path, command: str) -> None:
    assert f"python src/{command}.py" in typed(root, command, "--help").stdout


def test_cfg_job_shows_every_group_as_it_was_chosen(root: Path) -> None:
    answer = typed(root, "train", "--cfg", "job", "model=dcgan", "depth=deep", "optimizer.lr=0.125").stdout
    assert "_target_: catsweep.models.dcgan.DCGAN" in answer
    assert "halvings: 5" in answer
    assert "lr: 0.125" in answer


@pytest.mark.parametrize("group", ["depth", "loss", "optimizer", "data", "hparams_search"])
def test_an_unknown_option_is_refused_with_the_choices(root: Path, group: str) -> None:
    done = typed(root, "train", f"{group}=nonsense")
    assert done.returncode != 0
    assert f"{group}/nonsense" in said(done)
    assert all(path.stem in said(done) for path in (root / "conf" / group).glob("*.yaml"))
    assert "Traceback" not in said(done)
    assert imported(done) & HEAVY == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_key_is_refused_by_name(root: Path, command: str) -> None:
    done = typed(root, command, "nonsense=1")
    assert done.returncode != 0
    assert "nonsense" in said(done)
    assert "Traceback" not in said(done)
