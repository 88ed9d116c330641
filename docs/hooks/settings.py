"""Reads what a configuration file says of itself: its heading, its keys, and the remark beside each.

The reference pages (`docs/hooks/reference.py`) are made of it, so that they say what conf/ says and nothing else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

HIDDEN = {"_target_", "_partial_", "_convert_", "_args_"}
REMARK = re.compile(r"\s#\s?(.*)$")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class Key:
    """One key of a file.

    Attributes:
        path: with dots, from the file's root.
        value: as it stands in the file; empty for a node with keys of its own.
        remark: the comment beside or above it.
        target: the object that the node around it builds, if it builds one.
        argument: name of the key within that node.
    """

    path: str
    value: str
    remark: str = ""
    target: str = ""
    argument: str = ""


@dataclass(frozen=True)
class Settings:
    """What a file says.

    Attributes:
        heading: its first comment, without the line about its package.
        package: where its keys go, from `# @package`; empty where the folder says it.
        target: what the file as a whole builds.
        chooses: options of other groups that it sets, as {group: option}.
        keys: in the order of the file.
    """

    heading: str
    package: str = ""
    target: str = ""
    chooses: dict[str, str] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()


def read(file: Path, without: tuple[str, ...] = ("hydra",)) -> Settings:
    """Read a file of conf/.

    Args:
        file: the YAML file.
        without: nodes at its root to leave out.
    """
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    head = _leading_comment(lines)
    package = next((line.split()[1] for line in head if line.startswith("@package")), "")
    heading = " ".join(line for line in head if not line.startswith("@package"))
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = dict(_entries(root))
    kept = [(name, node) for name, node in nodes.items() if name not in {"defaults", *without}]
    keys = [key for name, node in kept for key in _keys(name, node, lines, _target(root), text)]
    return Settings(heading, package, _target(root), _chosen(nodes.get("defaults")), tuple(keys))


def _leading_comment(lines: list[str]) -> list[str]:
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# ").rstrip())
    return head


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value)


def _target(node: yaml.Node | None) -> str:
    return next((value.value for name, value in _entries(node) if name == "_target_"), "")


def _chosen(defaults: yaml.Node | None) -> dict[str, str]:
    """`- model: vae` and `- override /model: vae` of a defaults list; what is of Hydra's own is left out."""
    if not isinstance(defaults, yaml.SequenceNode):
        return {}
    pairs = [(name, node.value) for entry in defaults.value for name, node in _entries(entry)]
    plain = [(name.removeprefix("override ").lstrip("/"), option) for name, option in pairs]
    return {name: option for name, option in plain if name != "hydra/job_logging"}


def _keys(path: str, node: yaml.Node, lines: list[str], target: str, text: str) -> Iterator[Key]:
    """The key at a path and, of a block of keys, those within it."""
    name = path.rpartition(".")[2]
    if name in HIDDEN:
        return
    if isinstance(node, yaml.MappingNode) and (not node.flow_style or (_target(node) and len(node.value) == 1)):
        first, own = _line_of_key(name, node, lines), _target(node)
        if (remark := _remark(first, first, lines)) or own:
            yield Key(path, "", remark, own)
        for inner, value in _entries(node):
            yield from _keys(f"{path}.{inner}", value, lines, own, text)
        return
    first = _line_of_key(name, node, lines)
    last = first if _is_block(node) else node.end_mark.line
    yield Key(path, _source(node, text), _remark(first, last, lines), target, name)


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _line_of_key(name: str, node: yaml.Node, lines: list[str]) -> int:
    """The line that has a node's key: its own, or the nearest above."""
    for number in range(node.start_mark.line, -1, -1):
        if re.match(rf"\s*(- )?{re.escape(name)}:", lines[number]):
            return number
    return int(node.start_mark.line)


def _source(node: yaml.Node, text: str) -> str:
    """A value as it was written; a list of lines becomes one in brackets."""
    if isinstance(node, yaml.SequenceNode) and _is_block(node):
        return f"[{', '.join(_source(entry, text) for entry in node.value)}]"
    return " ".join(text[node.start_mark.index : node.end_mark.index].split())


def _remark(first: int, last: int, lines: list[str]) -> str:
    """The comment at the end of a key's lines, or that directly above it with the same indentation.

    A comment that begins in the first line is the file's heading, and no key's.
    """
    for number in (first, min(last, len(lines) - 1)):
        # What is quoted may hold the sign of a comment; it is blotted out, and keeps its length.
        if found := REMARK.search(QUOTED.sub(lambda quoted: "x" * len(quoted[0]), lines[number])):
            said = lines[number][found.start(1) :].strip()
            return " ".join([said, *_going_on(lines[number + 1 :], found.start() + 1)])
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    above = first
    while above > 0 and lines[above - 1].startswith(f"{indent}#"):
        above -= 1
    return "" if above == 0 else " ".join(line.strip().lstrip("# ") for line in lines[above:first])


def _going_on(lines: list[str], column: int) -> Iterator[str]:
    """The lines of a remark that go on below it, each at the same column."""
    for line in lines:
        if line[:column].strip() or not line.startswith("#", column) or column == 0:
            return
        yield line[column:].lstrip("# ").rstrip()
