"""The reference of groups, commands, `hydra.sweeper` and make's targets, as Markdown, made from the files themselves.

Called by `docs/hooks/pages.py` at each build. Nothing here knows a group, a key or a target by name.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import yaml
from docstrings import arguments
from settings import Key, Settings, read

CONF = Path(__file__).resolve().parents[2] / "conf"
API = re.compile(r"^::: ([\w.]+)", re.MULTILINE)
Field = tuple[str, str, str]  # name, default, meaning
TARGET = re.compile(r"^([a-z-]+):.*?## (.*)$", re.MULTILINE)


def groups(conf: Path) -> list[str]:
    """Every group of ours, `data` as well as `data/augment`."""
    folders = {file.parent.relative_to(conf).as_posix() for file in conf.rglob("*.yaml")} - {"."}
    return sorted(name for name in folders if not name.startswith("hydra/"))


def default_options(conf: Path) -> dict[str, str]:
    """The option of each group that is taken when nothing is said."""
    chosen = {}
    for command in sorted(conf.glob("*.yaml"), reverse=True):  # train before prepare
        chosen = read(command).chooses | chosen
    for file in conf.rglob("*.yaml"):
        inner = {f"{file.parent.name}/{group}": option for group, option in read(file).chooses.items()}
        chosen = {group: option for group, option in inner.items() if (conf / group).is_dir()} | chosen
    return chosen


def group_page(conf: Path, group: str, api: Iterable[str]) -> str:
    """The page of one group: each option with its heading and its keys, as they are typed.

    Args:
        conf: folder of the configuration.
        group: its folder within.
        api: names that the API pages describe; targets among them become links.
    """
    default = default_options(conf).get(group)
    files = sorted((conf / group).glob("*.yaml"))
    names = ", ".join(f"`{file.stem}`" + (" (default)" if file.stem == default else "") for file in files)
    lines = [f"# {group}", "", f"`{group}=OPTION`, from `conf/{group}/`: {names}.", ""]
    for file in files:
        found = read(file, without=())
        lines += [f"## {file.stem}", "", f"`{group}={file.stem}`", ""]
        lines += [_plain(found.heading), ""] if found.heading else []
        if found.target:
            lines += [f"Builds {_reference(found.target, api)}.", ""]
        others = {name: option for name, option in found.chooses.items() if not (conf / group / name).is_dir()}
        if others := {name: option for name, option in others.items() if option != "default" and "schema" not in name}:
            lines += ["Also chooses " + ", ".join(f"`{name}={option}`" for name, option in others.items()) + ".", ""]
        lines += _table(found, "" if found.package == "_global_" else found.package or group.replace("/", "."), api)
    return "\n".join(lines)


def commands_page(conf: Path, api: Iterable[str]) -> str:
    """All commands: what each is typed like, and its keys."""
    lines = [
        "# Commands", "",
        "`--help` after a command prints its page, `--cfg job` every key with its value; neither runs anything.",
        "Keys are typed as `KEY=VALUE`. The groups that commands choose from have [their own pages](groups/index.md).",
        "",
    ]  # fmt: skip
    for file in sorted(conf.glob("*.yaml"), key=lambda file: (file.stem != "train", file.stem != "prepare", file.stem)):
        found = read(file)
        lines += [f"## {file.stem}", "", _plain(found.heading), "", "```", *usage(file), "```", ""]
        if chosen := {name: option for name, option in found.chooses.items() if option != "null"}:
            words = ", ".join(f"[`{name}={option}`](groups/{name}.md#{option})" for name, option in chosen.items())
            lines += [f"Groups, with their defaults: {words}.", ""]
        lines += _table(found, "", api)
    return "\n".join(lines)


def usage(file: Path) -> list[str]:
    """The lines of a command's help page that show how it is typed."""
    template = str(yaml.safe_load(file.read_text(encoding="utf-8"))["hydra"]["help"]["template"])
    typed = [line.strip() for line in template.splitlines() if line.strip().startswith("python src/")]
    lines = [re.sub(r" {2,}", "  # ", line) for line in typed]
    return [line for line in lines if "[" not in line] or [f"python src/{file.stem}.py"]


def make_page(makefile: Path) -> str:
    """Every target of the Makefile with its own remark."""
    found = TARGET.findall(makefile.read_text(encoding="utf-8"))
    head = ["# make", "", "`make` alone prints this list.", "", "| command | what it does |", "| --- | --- |"]
    return "\n".join([*head, *(f"| `make {name}` | {_plain(remark)} |" for name, remark in found)])


def sweeper_page(schema: Path, ours: Path) -> str:
    """Every key of `hydra.sweeper` from its schema, and what our own searches set.

    Args:
        schema: `src/hydra_plugins/steady_sweeper/config.py`.
        ours: `conf/hydra/sweeper/steady.yaml`.
    """
    lines = [
        "# hydra.sweeper", "",
        "The keys of `hydra/sweeper=steady`, typed as `hydra.sweeper.KEY=VALUE`. It works in any Hydra app; the first",
        "block has the keys of hydra-optuna-sweeper's `hydra/sweeper=optuna`, with the same meaning.", "",
    ]  # fmt: skip
    set_by_us = {key.path: key.value or "set" for key in read(ours, without=()).keys if "." not in key.path}
    for title, fields in _blocks(schema.read_text(encoding="utf-8")):
        rows = [
            f"| `{name}` | {_code(default)} | {_code(set_by_us.get(name, ''))} | {_plain(remark)} |"
            for name, default, remark in fields
        ]
        lines += [f"## {title}", "", *_keys(["key", "default", "in catsweep", "meaning"], rows)]
    return "\n".join(lines)


def api_names(folder: Path) -> list[str]:
    """What the pages of a folder describe by mkdocstrings."""
    return [name for page in folder.rglob("*.md") for name in API.findall(page.read_text(encoding="utf-8"))]


def explanation(key: Key) -> str:
    """The remark beside a key, or what the docstring of what it goes to says."""
    if key.remark or not key.argument:
        return key.remark
    from_group = re.fullmatch(r"\$\{(\w+)(\.\w+)?\}", key.value)
    if from_group and (CONF / from_group[1]).is_dir():
        return f"what the group `{from_group[1]}` says"
    return arguments(key.target).get(key.argument) or _of_training().get(key.path, "")


@cache
def _of_training() -> dict[str, str]:
    """What conf/train.yaml says of its keys, for the searches, which set them."""
    return {key.path: key.remark for key in read(CONF / "train.yaml").keys}


def _table(found: Settings, prefix: str, api: Iterable[str]) -> list[str]:
    if not found.keys:
        return []
    rows = []
    for key in found.keys:
        path = f"{prefix}.{key.path}" if prefix else key.path
        builds = f"builds {_reference(key.target, api)}" if key.target and not key.argument else ""
        said = "; ".join(part for part in (_plain(explanation(key)), builds) if part)
        rows.append(f"| `{path}` | {_code(key.value)} | {said} |")
    return _keys(["key", "value", "meaning"], rows)


def _keys(columns: list[str], rows: list[str]) -> list[str]:
    """A table of keys; its class lets a phone set each row as a paragraph (docs/assets/catsweep.css)."""
    head = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return ['<div class="keys" markdown>', "", *head, *rows, "", "</div>", ""]


def _reference(target: str, api: Iterable[str]) -> str:
    described = any(target == name or target.startswith(f"{name}.") for name in api)
    return f"[`{target}`][{target}]" if described else f"`{target}`"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _plain(text: str) -> str:
    """A remark as Markdown: what would be a tag or a column is neither, and typed examples are code."""
    parts = text.split("`")
    outside = [part.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") for part in parts[::2]]
    parts[::2] = outside
    return "`".join(parts).replace("|", "\\|")


def _blocks(source: str) -> Iterator[tuple[str, list[Field]]]:
    """The schema's fields, in the blocks that blank lines make of them.

    One line of comment above a block is its title; more of them, or one within a block, explain the field below.
    """
    tree = ast.parse(source)
    schema = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("SweeperConf"))
    lines = source.splitlines()
    title, fields = "", list[Field]()
    for node in schema.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            continue
        if node.target.id in {"_target_", "defaults"}:
            continue
        above = _comment_above(lines, node.lineno - 1)
        after_blank = not lines[node.lineno - 2 - len(above)].strip()
        if after_blank and len(above) <= 1:
            if fields:
                yield title, fields
            title, fields, above = "".join(above).rstrip(".") or "More", [], []
        beside = lines[node.lineno - 1].partition("  # ")[2]
        fields.append((node.target.id, _default(node.value), " ".join([*above, beside]).strip()))
    yield title, fields


def _comment_above(lines: list[str], number: int) -> list[str]:
    above: list[str] = []
    while lines[number - 1 - len(above)].strip().startswith("#"):
        above.insert(0, lines[number - 1 - len(above)].strip().lstrip("# "))
    return above


def _default(value: ast.expr) -> str:
    """A default as YAML would have it."""
    if isinstance(value, ast.Call):  # field(default_factory=list)
        return {"list": "[]", "dict": "{}"}.get(ast.unparse(value.keywords[0].value), "")
    written = ast.unparse(value).strip("'")
    return {"None": "null", "MISSING": "default", "True": "true", "False": "false"}.get(written, written)
