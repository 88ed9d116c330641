"""The reference is made of the files it describes (docs/hooks): all of them, all keys, each with its explanation."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.docs.pages import ROOT

from hydra_plugins.steady_sweeper.config import SteadySweeperConf

CONF = ROOT / "conf"
GROUPS = sorted({file.parent for file in CONF.rglob("*.yaml") if "hydra" not in file.parts} - {CONF})
FILES = sorted(file for file in CONF.rglob("*.yaml") if "hydra" not in file.relative_to(CONF).parts)


@pytest.fixture(scope="module")
def hooks() -> Iterator[dict[str, ModuleType]]:
    """The modules of docs/hooks, as MkDocs imports them."""
    sys.path.insert(0, str(ROOT / "docs" / "hooks"))
    names = ("settings", "docstrings", "reference", "pages", "examples")
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(ROOT / "docs" / "hooks"))
    for name in names:
        del sys.modules[name]


def test_the_readme_names_every_option_of_the_groups_in_its_table() -> None:
    rows = re.findall(
        r"^\| `([a-z_/]+)` \| ((?:`[a-z0-9_]+` ?)+) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    told = {group: set(re.findall(r"`(.+?)`", options)) for group, options in rows}
    nested = {"background/remover", "data/augment", "model/architecture"}  # of other commands, or inside an option
    assert told == {
        name: {file.stem for file in group.glob("*.yaml")}
        for group in GROUPS
        if (name := group.relative_to(CONF).as_posix()) not in nested
    }


def test_what_a_file_says_of_itself_is_read(tmp_path: Path, hooks: dict[str, ModuleType]) -> None:
    file = tmp_path / "option.yaml"
    file.write_text(
        "# @package _global_\n# What it is,\n# in two lines.\ndefaults:\n  - override /loss: bce\n  - _self_\n\n"
        "plain: 1  # beside\n"
        "quoted: 'a # b'  # not the first sign\n"
        "long: null  # begins here,\n"
        "            # ends here\n"
        "# above\n"
        "listed:\n  - a\n  - ${b}\n"
        "none: [1, 2]\n"
        "node:  # of its own\n  _target_: torch.nn.ELU\n  alpha: 0.5\n"
        "hydra:\n  run: {dir: .}\n"
    )
    read = hooks["settings"].read(file)
    assert read.heading == "What it is, in two lines."
    assert read.package == "_global_"
    assert read.chooses == {"loss": "bce"}
    assert {key.path: (key.value, key.remark) for key in read.keys} == {
        "plain": ("1", "beside"),
        "quoted": ("'a # b'", "not the first sign"),
        "long": ("null", "begins here, ends here"),
        "listed": ("[a, ${b}]", "above"),
        "none": ("[1, 2]", ""),
        "node": ("", "of its own"),
        "node.alpha": ("0.5", ""),
    }
    assert {key.path: key.target for key in read.keys if key.target} == {
        "node": "torch.nn.ELU",
        "node.alpha": "torch.nn.ELU",
    }


def test_an_argument_is_explained_by_its_docstring(hooks: dict[str, ModuleType]) -> None:
    arguments = hooks["docstrings"].arguments
    assert arguments("catsweep.data.datamodule.CatDataModule")["val_fraction"] == "share of held-out photos."
    assert arguments("torch.nn.ELU") == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONF).as_posix())
def test_every_file_has_a_heading_and_every_key_an_explanation(hooks: dict[str, ModuleType], file: Path) -> None:
    found = hooks["settings"].read(file)
    assert found.heading
    assert [key.path for key in found.keys if key.value and not hooks["reference"].explanation(key)] == []


@pytest.mark.parametrize("group", GROUPS, ids=lambda folder: folder.relative_to(CONF).as_posix())
def test_every_option_and_key_of_a_group_is_on_its_page(hooks: dict[str, ModuleType], group: Path) -> None:
    name = group.relative_to(CONF).as_posix()
    page = hooks["reference"].group_page(CONF, name, [])
    options = [file.stem for file in sorted(group.glob("*.yaml"))]
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == options
    assert f"pages/{name}.md" not in page
    for file in group.glob("*.yaml"):
        found = hooks["settings"].read(file, without=())
        typed = "" if found.package == "_global_" else (found.package or name.replace("/", ".")) + "."
        assert {f"`{typed}{key.path}`" for key in found.keys} <= set(re.findall(r"`[^`\n]+`", page))


def test_keys_are_typed_where_their_package_puts_them(hooks: dict[str, ModuleType]) -> None:
    page = hooks["reference"].group_page(CONF, "metrics/judge", [])
    assert "`judge.samples`" in page
    assert "`metrics.judge.samples`" not in page
    assert "`auto` (default)" in page


def test_a_default_is_marked_as_such(hooks: dict[str, ModuleType]) -> None:
    assert "`mse` (default)" in hooks["reference"].group_page(CONF, "loss", [])
    assert "`grabcut` (default)" in hooks["reference"].group_page(CONF, "background/remover", [])


def test_every_command_has_its_keys_and_how_it_is_typed(hooks: dict[str, ModuleType]) -> None:
    page = hooks["reference"].commands_page(CONF, [])
    commands = {file.stem for file in CONF.glob("*.yaml")}
    assert set(re.findall(r"^## (.*)$", page, re.MULTILINE)) == commands
    assert {f"python src/{name}.py" for name in commands} <= set(re.findall(r"^python src/\w+\.py", page, re.MULTILINE))
    assert "| `truncation` | `1.0` | above 0, at most 1; below 1: likelier cats, less diversity |" in page


def test_every_key_of_the_sweeper_is_explained(hooks: dict[str, ModuleType]) -> None:
    schema = ROOT / "src" / "hydra_plugins" / "steady_sweeper" / "config.py"
    page = hooks["reference"].sweeper_page(schema, CONF / "hydra" / "sweeper" / "steady.yaml")
    rows = dict(re.findall(r"^\| `(\w+)` \|.* \| ([^|]*) \|$", page.replace("\\|", "/"), re.MULTILINE))
    keys = {field.name for field in dataclasses.fields(SteadySweeperConf)} - {"_target_", "defaults"}
    assert set(rows) == keys
    assert [key for key, meaning in rows.items() if not meaning.strip()] == []
    assert "| `baseline` | `false` | `true` |" in page
    assert re.findall(r"^## (.*)$", page, re.MULTILINE)[:2] == ["As in hydra-optuna-sweeper", "The space"]


def test_every_target_of_make_is_listed(hooks: dict[str, ModuleType]) -> None:
    page = hooks["reference"].make_page(ROOT / "Makefile")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^\| `make ([a-z-]+)` \|", page, re.MULTILINE) == targets


def test_the_front_page_leads_to_pages_of_the_site(hooks: dict[str, ModuleType]) -> None:
    made = hooks["pages"].made(ROOT / "docs")
    links = set(re.findall(r"\]\(([^)#\s]+)", made["index.md"]))
    assert {"tutorial.md", "cats.png", "changelog.md", "license.md"} <= links
    assert [link for link in links if not (ROOT / "docs" / link).exists() and link not in made] == []


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".gif")}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}
    assert sum(sizes.values()) < 1_000_000


def test_examples_are_code_wherever_they_stand(hooks: dict[str, ModuleType]) -> None:
    text = "Add.\n\n>>> for n in [1, 2]:\n...     n\n1\n2\n\nArgs:\n    n: one.\n"
    assert hooks["examples"].fenced(text) == text.replace(">>>", "```pycon\n>>>").replace("2\n\n", "2\n```\n\n")
