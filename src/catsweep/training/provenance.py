"""Collect where a run came from: code, data, seed, versions and machine, written beside its results.

`config.yaml` and `provenance.json` are written as soon as the run folder exists, so that a run that crashes can still
be distinguished from its neighbours. Nothing here can fail a run: what cannot be found out is None, with the reason.
"""

import hashlib
import importlib.metadata
import logging
import os
import platform
import re
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from catsweep.errors import DataError
from catsweep.records import read_json
from catsweep.runs import CONFIG, PROVENANCE
from steady import resources
from steady.atomic import write_json, write_text

log = logging.getLogger(__name__)

PACKAGES = (
    "catsweep", "torch", "pytorch-lightning", "torchmetrics", "kornia", "numpy", "opencv-python-headless", "pillow",
    "onnxruntime", "pytorch-optimizer", "hydra-core", "hydra-optuna-sweeper", "optuna", "wandb", "safetensors",
)  # fmt: skip
LISTED = 20  # changed files named one by one; the digest of the diff covers them all
LONGEST_DIFF = 200_000  # characters; a longer one is told by its digest alone
SECRET = re.compile(r"key|token|secret|passw", re.IGNORECASE)


def collect(seed: int | None, root: Path, data_digest: str | None = None) -> dict[str, Any]:
    """Collect, as plain values, everything that a result depends on and its configuration does not say.

    Paths are given relative to `root`, the project's folder; `data_digest` is the ready set's. `record` tells the run
    from another that had its folder before: Weights & Biases keeps the records of both.
    """
    return {
        "record": secrets.token_hex(4),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [_redacted(_shortened(word, root)) for word in sys.argv],
        "seed": seed,
        "data_digest": data_digest,
        "git": git_state(root),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {
            "platform": platform.platform(),
            "cpu": resources.processor(),
            "cores": resources.cores(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def git_state(root: Path) -> dict[str, Any]:
    """Describe the checkout that `root` is in.

    Returns:
        `commit`; `dirty` (tracked files differ, or new ones are not ignored); `changed`, the first of those files;
        `diff`, the difference in tracked files for `git apply`, unless there is none or it is very long;
        `diff_sha256`, its digest; and `reason`, why all of these are None (no git, no checkout, no commit), or None.
    """
    try:
        commit = _git(root, "rev-parse", "--verify", "HEAD").strip()
        changed = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
        diff = _git(root, "diff", "--binary", "HEAD")
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = _shortened(said[0], root) if said else type(error).__name__
        return dict.fromkeys(("commit", "dirty", "changed", "diff_sha256", "diff")) | {"reason": reason}
    return {
        "commit": commit,
        "dirty": bool(changed),
        "changed": changed[:LISTED],
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "diff": diff if 0 < len(diff) <= LONGEST_DIFF else None,
        "reason": None,
    }


@rank_zero_only
def write(run_dir: Path, cfg: DictConfig, facts: dict[str, Any], root: Path) -> None:
    """Write `config.yaml` (every value resolved and plain) and `provenance.json` into a run folder, on rank 0.

    Paths under `root` become relative to it. When a run is resumed, the facts of its earlier sessions move to
    `earlier`, oldest first: they may have run other code on another machine. Its `record` stays that of the first.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    plain = _relative(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), root)
    write_text(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain)))
    path = run_dir / PROVENANCE
    if path.exists():
        try:
            previous = read_json(path)
            earlier = previous.pop("earlier", [])
            facts = facts | {"earlier": [*(earlier if isinstance(earlier, list) else []), previous]}
            facts["record"] = previous.get("record")  # None of a version that noted none
        except DataError as error:
            log.warning("%s So nothing is known of earlier sessions of this run.", error)
    write_json(path, facts, ascii_only=False)


def _git(root: Path, *arguments: str) -> str:
    # Without GIT_*: inside a git hook they name the repository the hook belongs to, not the one `root` is in.
    # Without optional locks: `status` would refresh the index, and trials run side by side.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", "-C", str(root), *arguments],
        env=env | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        encoding="utf-8",
        errors="replace",
        timeout=30,
    ).stdout


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _shortened(text: str, root: Path) -> str:
    """Remove this machine's folders from a text: the project's root goes, the home folder becomes `~`."""
    text = text.replace(f"{root.resolve()}{os.sep}", "").replace(str(root.resolve()), ".")
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _redacted(word: str) -> str:
    """Hide the value of an override whose name sounds like a secret, and the user:password part of any URL."""
    name, equals, _ = word.partition("=")
    return f"{name}=***" if equals and SECRET.search(name) else re.sub(r"://[^/@\s]+@", "://***@", word)


def _relative(value: Any, root: Path) -> Any:
    """Rewrite paths under the project's root relative to it, in every string of a nested value."""
    if isinstance(value, dict):
        return {key: _relative(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, root) for item in value]
    return value.removeprefix(f"{root.resolve()}{os.sep}") if isinstance(value, str) else value
