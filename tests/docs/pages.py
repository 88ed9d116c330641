"""What README.md and docs/ show: their pages, what is code in them, the commands, and the files they tell to write."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAVIGATION = re.findall(r"([\w/-]+\.md)$", (ROOT / ".mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / name for name in NAVIGATION)]
    if path.is_file()  # the others are made when the site is
}
FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its title where it is a file to write, and its text."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    """All blocks of a page."""
    found = []
    for indent, language, rest, text in FENCE.findall(page):
        plain = "\n".join(line.removeprefix(indent) for line in text.splitlines()) + "\n"
        title = re.search(r'title="([^"]+)"', rest)
        found.append(Block(language, title[1] if title else "", plain))
    return found


def code(page: str) -> list[str]:
    """What a page shows as typed or as a name: the lines of its commands and trees, then its inline spans."""
    shown = [block for block in blocks(page) if block.language in ("", "bash", "text")]
    lines = [line for block in shown for line in _lines(block)]
    return lines + re.findall(r"`([^`\n]+)`", FENCE.sub("", page))


def commands(page: str) -> list[str]:
    """The lines of a page's `bash` blocks, without remarks; a line that ends in a backslash goes on in the next."""
    return [" ".join(line.split()) for block in blocks(page) if block.language == "bash" for line in _lines(block)]


def _lines(block: Block) -> list[str]:
    lines = [line.split("  #")[0].strip() for line in re.sub(r"\\\n\s*", "", block.text).splitlines()]
    return [line for line in lines if line]


def words(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that are set before a command, and its words."""
    split = shlex.split(command)
    count = next(place for place, word in enumerate(split) if not re.match(r"[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in split[:count]), split[count:]
