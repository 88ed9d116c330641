"""Printing and logging, CSV and Markdown of text that may be a stranger's, such that it acts on nothing.

A terminal obeys control characters, and some invisible ones reverse what follows or make one name look like another.
Every line goes through `say` (print), `console` (Rich) or `make_logs_readable` (logging). Imported at each start, so
Rich is not.

Excel, LibreOffice and Google Sheets take a cell that begins with = + - @ for a formula, which can call programs and
send other cells away (OWASP, "CSV Injection"). A quote in front makes it text (`escaped`). A spreadsheet may divide the
line elsewhere than we do (at semicolons in much of Europe), so what follows a comma, a semicolon, a tab or a line end
counts as the beginning of a cell too.

Markdown from `plain`, `code`, `fenced` or `table` means the same to CommonMark, GitHub and Python-Markdown: in a
line, in a heading, in a cell of a table.
"""

import html
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

JOINER = "\u200d"  # joins several emojis to one, such as a family
_OWN = ("catsweep", "steady")  # loggers whose arguments stay in one line


def readable(text: str, lines: bool = True) -> str:
    r"""Escape the invisible characters of a text; line ends and tabs stay, unless `lines` is False.

    Those are bytes that are not UTF-8 (PEP 383), control and format characters (Unicode's "Other"), line separators.

    >>> print(readable("\x1b[2Jcat\u202egpj.exe"))
    \x1b[2Jcat\u202egpj.exe
    """
    kept = "\n\t" if lines else ""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in kept or _is_seen(text, place) else _escape(char)
        for place, char in enumerate(text)
    )


def readable_name(name: str) -> str:
    r"""Escape the invisible characters of a file name, or another text that is to stay in one line.

    >>> print(readable_name("two\nlines.jpg"))
    two\nlines.jpg
    """
    return readable(name, lines=False)


def _is_seen(text: str, place: int) -> bool:
    char = text[place]
    if char == JOINER:
        around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
        return len(around) == 2 and all(unicodedata.category(one) in ("So", "Sk", "Mn") for one in around)
    return unicodedata.category(char) == "Zs"  # blanks of other widths, as in the names of screenshots


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def say(*words: object, file: TextIO | None = None, flush: bool = False) -> None:
    r"""Print words readably, as `print` does.

    >>> say("trial", 3, "\x07")
    trial 3 \x07
    """
    print(*(readable(str(word)) for word in words), file=file or sys.stdout, flush=flush)


class ReadableRecord(logging.LogRecord):
    """A readable line of the log. Its arguments stay in one line, so that no name can begin another."""

    def getMessage(self) -> str:  # the name is logging's
        """See `logging.LogRecord`."""
        given = self.args
        if self.name.split(".")[0] in _OWN and isinstance(given, tuple):
            is_text = (str, Path, BaseException)
            given = tuple(readable_name(str(one)) if isinstance(one, is_text) else one for one in given)
        message = str(self.msg)
        return readable(message % given if given else message)

    @property
    def exc_text(self) -> str | None:
        """The traceback, once a formatter has made it."""
        return self._exc_text

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self._exc_text = None if text is None else readable(text)


def trials(numbers: Iterable[int]) -> str:
    """Name trials in a sentence.

    >>> trials([3]), trials([0, 4, 2])
    ('trial 3', 'trials 0, 4 and 2')
    """
    *others, last = map(str, numbers)
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"


def make_logs_readable() -> None:
    """Make all loggers of this process and those forked from it write readably.

    >>> make_logs_readable()  # doctest: +SKIP
    """
    logging.setLogRecordFactory(ReadableRecord)


def console(**how: Any) -> Any:
    """Make a console of Rich that prints readably, and takes `[red]` and `:cat:` in a name for no markup.

    >>> console(file=sys.stdout).print("[red]:cat:")
    [red]:cat:
    """
    from rich.console import Console

    class ReadableConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=readable(segment.text))

    return ReadableConsole(**{"markup": False, "emoji": False} | how)


_NUMBER = r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?+"
# Where a cell may begin, what spreadsheets skip there, and a sign, also of full width, but for numbers alone.
_BEGIN = re.compile(
    r"""(?P<skipped>(?:(?P<start>^)|[;,\t\r\n])[\s'"\x00-\x20\u200b-\u200f\u2060\ufeff,;]*+)"""
    rf"(?P<sign>(?!{_NUMBER}(?:\ {_NUMBER})*+(?(start)\Z|(?:$|[;,\t\r\n\]}})])))"
    r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])?+"
)
_DIVIDED = re.compile(r"[;,\t\r\n]")
_BLANK = re.compile(r"'*[\t\r\n]")


def escaped(value: Any) -> Any:
    """Escape a value for a cell of a CSV file: a quote before each sign that could begin a formula.

    >>> escaped("=1+1"), escaped("a;-b"), escaped("-1.5"), escaped(-1.5), escaped("a-b.jpg")
    ("'=1+1", "a;'-b", '-1.5', -1.5, 'a-b.jpg')
    """
    if not isinstance(value, str) or (value[:1].isalnum() and _DIVIDED.search(value) is None):
        return value
    text = _BEGIN.sub(lambda found: f"{found['skipped']}'{found['sign']}" if found["sign"] else found[0], value)
    return f"'{text}" if _BLANK.match(text) else text


def unescaped(text: str) -> str:
    """Recover the text that `escaped` has made a cell of.

    >>> unescaped("'=1+1"), unescaped("'quoted'")
    ('=1+1', "'quoted'")
    """

    def without_quote(found: re.Match[str]) -> str:
        return found["skipped"].removesuffix("'") + found["sign"] if found["sign"] else found[0]

    return _BEGIN.sub(without_quote, text[1:] if text.startswith("'") and _BLANK.match(text) else text)


# Anywhere in a line. Backslashes where every reader of Markdown takes them, else entities. Of : . @ alone GitHub makes
# links, $ is mathematics, {{ is Liquid's.
_SIGNS = re.compile(r"[\\`*_\[\]{}#]|(?<=www)\.|[|~$@]|:(?=//)|(?<=mailto):|(?<=xmpp):", re.IGNORECASE)
# At the beginning of a line: a list, a rule, a heading that is underlined, a table. Not of numbers.
_BEGINS = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=:](?!\d)))(.)")
_BACKSLASHED = r"\`*_[]{}#.+-"
_CODE = re.compile(r"(?!.*\{[{%#])[^`|]+")


class Markdown(str):
    """Text that is Markdown already, and is not escaped again."""


def plain(text: object) -> Markdown:
    r"""Escape a text for Markdown, on one line; `Markdown` itself stays.

    >>> print(plain("[a](b)|<c>"))
    \[a\](b)&#124;&lt;c&gt;
    """
    if isinstance(text, Markdown):
        return text
    line = _SIGNS.sub(lambda sign: _escaped_sign(sign[0]), html.escape(_line(text), quote=False))
    return Markdown(_BEGINS.sub(lambda begin: f"{begin[1]}{_escaped_sign(begin[2])}", line))


def code(text: object) -> Markdown:
    """Format a text as inline code, also in a table.

    >>> code("a_b"), code("a|b")
    ('`a_b`', '<code>a&#124;b</code>')
    """
    line = _line(text)
    # Code between backticks ends at one, in a table at a stroke, and for Liquid at {{.
    return Markdown(f"`{line}`" if _CODE.fullmatch(line) else f"<code>{plain(line)}</code>")


def fenced(text: str) -> list[Markdown]:
    """Format a text as the lines of a fenced code block.

    >>> fenced("x = 1")
    ['```text', 'x = 1', '```']
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [Markdown(line) for line in (f"{fence}text", *readable(text).splitlines(), fence)]


def preformatted(text: str) -> Markdown:
    """Format a text as a code block within HTML, where not every reader of Markdown knows fences.

    >>> preformatted("<x>")
    '<pre>&lt;x&gt;</pre>'
    """
    return Markdown(f"<pre>{html.escape(readable(text), quote=False)}</pre>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], right: bool = False) -> list[Markdown]:
    """Format a table as lines; `right` aligns all columns but the first to the right.

    >>> table(["a", "b"], [[1, 2]], right=True)
    ['| a | b |', '| --- | ---: |', '| 1 | 2 |']
    """
    ruler = [Markdown("---"), *[Markdown("---:" if right else "---")] * (len(head) - 1)]
    return [Markdown(f"| {' | '.join(map(plain, cells))} |") for cells in (head, ruler, *rows)]


def _escaped_sign(sign: str) -> str:
    return f"\\{sign}" if sign in _BACKSLASHED else f"&#{ord(sign)};"


def _line(text: object) -> str:
    return " ".join(readable(str(text)).split())
