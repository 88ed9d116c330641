"""What README.md, docs/ and the help page name exists: files, targets, options and keys; what is not run composes.

Their commands are run by `tests/docs/test_commands.py`.
"""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tests.docs.pages import PAGES as DOCUMENTS
from tests.docs.pages import blocks, code
from tests.docs.pages import commands as typed

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
HELP = OmegaConf.load(CONF / "train.yaml").hydra.help.template
PAGES = {**DOCUMENTS, "help": f"```\n{HELP}\n```\n"}
GROUPS = {
    folder.name: {file.stem for file in folder.glob("*.yaml")}
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name != "hydra"
}
KEYS_OF_CODE = {
    "dtype",
    "weights_only",
    "prompt",
    "require_auth",
    "hydra.launcher.ray.init.address",
    "hydra.launcher.ray.init.log_to_driver",
    "hydra.launcher.ray.remote.num_gpus",
}  # of Python functions and drivers, not of conf/
MADE_BY_RUNNING = ("data/", "outputs/", "sweeps/", ".venv/", "../shared/")


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Each `python src/NAME.py …` of a page that is not run: in a sentence, or in the help page."""
    mentioned = [line for line in code(page) if " ".join(line.split()) not in typed(page)]
    found = (re.search(r"python src/(\w+)\.py((?: \S+)*)", line) for line in mentioned)
    return [(match[1], shlex.split(match[2])) for match in found if match]


def told(page: str) -> dict[str, set[str]]:
    """Options that a page tells to write, by their group."""
    titles = [Path(block.title) for block in blocks(page) if block.title.startswith("conf/")]
    return {title.parent.name: {title.stem} for title in titles}


def paths(page: str) -> set[str]:
    """Paths in inline code, in commands and, from the root, behind links; capitals stand for any name."""
    words = {word for span in code(page) for word in re.findall(r"(?<![\w=/.*])[\w.-]+(?:/[\w.*-]*)+", span)}
    names = {span for span in code(page) if re.fullmatch(r"[A-Z]+\.md|Makefile|[a-z]+\.(?:toml|txt)", span)}
    links = set(re.findall(r"\]\(([^)\s]+)\)", page)) if page == PAGES["README.md"] else set()  # others: by MkDocs
    local = {word for word in words if (ROOT / word.split("/")[0]).is_dir() or word.startswith(".")}
    return {path for path in local | names | links if not path.startswith(MADE_BY_RUNNING)}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param]


def test_there_is_something_to_check() -> None:
    readme = PAGES["README.md"]
    assert len(typed(readme)) >= 20
    assert {"docs/cats.png", "LICENSE", ".ci/run"} <= paths(readme)
    assert {"conf/loss/", "src/catsweep/metrics/scores.py"} <= paths(PAGES["CONTRIBUTING.md"])
    assert len(commands(PAGES["help"])) == 6


def test_every_path_exists(page: str) -> None:
    patterns = {path: re.sub(r"\b[A-Z]{2,}\b(?!\.md)", "*", path.rstrip("/")) for path in paths(page)}
    patterns |= {path: path for path in patterns if (ROOT / path).exists()}  # LICENSE is no placeholder
    assert [path for path, pattern in patterns.items() if not any(ROOT.glob(pattern))] == []


def test_every_make_target_and_variable_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \??:?=", makefile, re.MULTILINE))
    lines = [shlex.split(span)[1:] for span in code(page) if re.match(r"make( |$)", span)]
    used = {word for line in lines for word in line}
    assert {word for word in used if "=" not in word} <= targets
    assert {word.split("=")[0] for word in used if "=" in word} <= variables


def test_every_option_of_a_group_exists(page: str) -> None:
    named = {pair for span in code(page) for pair in re.findall(r"(?<![\w./])([a-z_]+)=([a-z]\w*)", span)}
    there = {group: options | told(page).get(group, set()) for group, options in GROUPS.items()}
    assert {f"{group}={option}" for group, option in named if group in there and option not in there[group]} == set()


def test_every_key_exists(page: str) -> None:
    spans = [span for span in code(page) if not span.startswith("make ")]
    named = {key for span in spans for key in re.findall(r"(?<![\w./-])([a-z][\w.]*)=", span)}
    missing = {key for key in named - KEYS_OF_CODE if not any(_has(config, key) for config in known())}
    assert missing - set(GROUPS) == set()


@cache
def known() -> list[DictConfig]:
    """Every command's configuration; of training, with each of the options that bring keys of their own."""
    choices = [[f"{group}={option}"] for group in ("model", "hparams_search", "metrics") for option in GROUPS[group]]
    with initialize_config_dir(str(CONF)):
        sweep = compose(
            "train", overrides=["hparams_search=vae_optuna", "hydra/launcher=slurm"], return_hydra_config=True
        )
        removers = [file.stem for file in (CONF / "background" / "remover").glob("*.yaml")]
        prepare = [
            compose("prepare", overrides=["background=remove", f"background/remover={name}"]) for name in removers
        ]
        return [compose("train", overrides=overrides) for overrides in choices] + [
            sweep, *prepare, *(compose(file.stem) for file in CONF.glob("*.yaml"))
        ]  # fmt: skip


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not OmegaConf.is_dict(config) or part not in config:
            return False
        config = config._get_node(part)  # unresolved: an interpolation is a key as well
    return True


@pytest.mark.parametrize(
    ("name", "words"),
    [pytest.param(*command, id=f"{p}: {' '.join(command[1])}") for p in PAGES for command in commands(PAGES[p])],
)
def test_every_command_that_is_only_mentioned_composes(name: str, words: list[str]) -> None:
    overrides = [word for word in words if "=" in word]
    assert {word for word in words if "=" not in word} <= {"-m", "--help", "--cfg", "job"}
    with initialize_config_dir(str(CONF)):
        compose(name, overrides=overrides, return_hydra_config=True)


def test_the_table_of_groups_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|", PAGES["README.md"], re.MULTILINE)
    assert {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows} == GROUPS


def test_the_help_page_shows_the_groups_and_no_page_of_configuration() -> None:
    assert "$APP_CONFIG_GROUPS" in HELP
    assert "$CONFIG" not in HELP
    assert HELP.splitlines()[0].startswith("Train one small generator of cats")
