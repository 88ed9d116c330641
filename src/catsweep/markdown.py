r"""Text in the Markdown that we write, such that it is read as the text that it is.

Names of photos, studies and scores, options, reasons and messages may be a stranger's. Whoever writes Markdown
(`catsweep.report.markdown`, `catsweep.export.model_card` and `choice`, the notes of `catsweep.search.dashboard` and
`catsweep.tracking.workspace`) passes them through here, templates without being asked (`catsweep.templates`). What
comes out is the same to CommonMark, to GitHub's and to Python-Markdown: in a line, in a heading, in a cell of a table.
"""

import html
import re
from collections.abc import Iterable, Sequence

from catsweep.printing import readable

# Of any place in a line. Backslashes where every reader of Markdown takes them, else entities. With : . @ and nothing
# else GitHub makes links, $ is mathematics, {{ is Liquid's.
_SIGNS = re.compile(r"[\\`*_\[\]{}#]|(?<=www)\.|[|~$@]|:(?=//)|(?<=mailto):|(?<=xmpp):", re.IGNORECASE)
# Of the beginning of a line: a list, a rule, a heading that is underlined, a table. Not of numbers.
_BEGINS = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=:](?!\d)))(.)")
_BACKSLASHED = r"\`*_[]{}#.+-"
_CODE = re.compile(r"(?!.*\{[{%#])[^`|]+")


class Markdown(str):
    """Text that is Markdown already: our own, or what came out of here."""


def plain(text: object) -> Markdown:
    r"""A text that Markdown shows as it is, on one line; `Markdown` itself stays.

    Example:
        >>> print(plain("[a](b)|<c>"))
        \[a\](b)&#124;&lt;c&gt;
    """
    if isinstance(text, Markdown):
        return text
    line = _SIGNS.sub(lambda sign: _spelled(sign[0]), html.escape(_line(text), quote=False))
    return Markdown(_BEGINS.sub(lambda begin: f"{begin[1]}{_spelled(begin[2])}", line))


def code(text: object) -> Markdown:
    """A text in the letters of code, on one line, also in a table."""
    line = _line(text)
    # Code between backticks ends at one, in a table at a stroke, and for Liquid at {{.
    return Markdown(f"`{line}`" if _CODE.fullmatch(line) else f"<code>{plain(line)}</code>")


def fenced(text: str) -> list[Markdown]:
    """A block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [Markdown(line) for line in (f"{fence}text", *readable(text).splitlines(), fence)]


def preformatted(text: str) -> Markdown:
    """A block of code within HTML, where not every reader of Markdown knows fences."""
    return Markdown(f"<pre>{html.escape(readable(text), quote=False)}</pre>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], right: bool = False) -> list[Markdown]:
    """A table.

    Args:
        head: of its columns.
        rows: as many cells each.
        right: whether all columns but the first are of numbers.
    """
    ruler = [Markdown("---"), *[Markdown("---:" if right else "---")] * (len(head) - 1)]
    return [Markdown(f"| {' | '.join(map(plain, cells))} |") for cells in (head, ruler, *rows)]


def _spelled(sign: str) -> str:
    return f"\\{sign}" if sign in _BACKSLASHED else f"&#{ord(sign)};"


def _line(text: object) -> str:
    return " ".join(readable(str(text)).split())
