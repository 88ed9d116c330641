"""What error messages tell people to do, done literally: each target of make, extra and option must be there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hydra_plugins.steady_sweeper.config import PRUNERS

pytestmark = pytest.mark.security

ROOT = Path(__file__).parents[1]


def texts() -> Iterator[tuple[str, str]]:
    """Where a string is, and the string; what a formatted one fills in is …"""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(parts)


def found(pattern: str) -> list[tuple[str, Any]]:
    return [(place, word) for place, text in texts() for word in re.findall(pattern, text)]


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = found(r"`make ([a-z][\w -]*?)(?: [A-Z]+=.*?)?`")
    assert len(named) > 5
    wrong = [(place, words) for place, words in named if set(words.split()) - targets]
    assert not wrong, wrong


def test_extras_are_there() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = found(r"catsweep\[(\w+)\]")
    assert len(named) > 3
    assert not [(place, extra) for place, extra in named if extra not in project["optional-dependencies"]]


def test_options_of_groups_are_there() -> None:
    conf = ROOT / "conf"
    groups = {str(folder.relative_to(conf)) for folder in conf.rglob("*") if folder.is_dir()} - {"hydra/sweeper"}
    named = [
        (place, group, option)
        for place, (group, option) in found(r"(?<![\w./])([a-z_/]+)=([a-z]\w*)(?![\w./=])")
        if group in groups
    ]
    assert len(named) > 10
    plugins = {("hydra/sweeper/pruner", name) for name in ("none", *PRUNERS)}  # registered by the sweeper
    lacking = [words for words in named if not (conf / words[1] / f"{words[2]}.yaml").exists()]
    assert not [words for words in lacking if words[1:] not in plugins]
