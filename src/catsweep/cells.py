"""Text in the cells of the CSV files that we write, such that no spreadsheet calculates it.

Names of photos and messages of exceptions are a stranger's, and Excel, LibreOffice and Google Sheets take a cell that
begins with = + - @ for a formula, which can call programs and send other cells away (OWASP, "CSV Injection"). A quote
in front makes it text. It is told from a quote of the name's own, so that reading gives back the true name.

A spreadsheet may also divide the line elsewhere than we do (at semicolons in much of Europe), hence what follows a
comma, a semicolon, a tab or a line end counts as the beginning of a cell, too.
"""

import re
from typing import TypeVar

T = TypeVar("T")

_NUMBER = r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?+"
# Where a cell may begin, what spreadsheets skip there, and a sign, also of full width, but for numbers alone.
_BEGIN = re.compile(
    r"""(?P<skipped>(?:(?P<start>^)|[;,\t\r\n])[\s'"\x00-\x20\u200b-\u200f\u2060\ufeff,;]*+)"""
    rf"(?P<sign>(?!{_NUMBER}(?:\ {_NUMBER})*+(?(start)\Z|(?:$|[;,\t\r\n\]}})])))"
    r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])?+"
)
_DIVIDED = re.compile(r"[;,\t\r\n]")
_BLANK = re.compile(r"'*[\t\r\n]")


def escaped(value: T) -> T:
    """A value as it goes into a cell: text with a quote before each sign that could begin a formula.

    Example:
        >>> escaped("=1+1"), escaped("a;-b"), escaped("-1.5"), escaped(-1.5), escaped("a-b.jpg")
        ("'=1+1", "a;'-b", '-1.5', -1.5, 'a-b.jpg')
    """
    if not isinstance(value, str) or (value[:1].isalnum() and _DIVIDED.search(value) is None):
        return value
    text = _BEGIN.sub(lambda found: f"{found['skipped']}'{found['sign']}" if found["sign"] else found[0], value)
    return f"'{text}" if _BLANK.match(text) else text  # type: ignore[return-value]  # a text is one of T here


def unescaped(text: str) -> str:
    """The text of which `escaped` has made the cell.

    Example:
        >>> unescaped("'=1+1"), unescaped("'quoted'")
        ('=1+1', "'quoted'")
    """

    def true(found: re.Match[str]) -> str:
        skipped = found["skipped"]
        return f"{skipped.removesuffix(chr(39))}{found['sign']}" if found["sign"] else found[0]

    return _BEGIN.sub(true, text[1:] if text.startswith("'") and _BLANK.match(text) else text)
