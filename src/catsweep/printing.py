"""What we print and log, such that no name of a file and no message of an exception acts on the terminal.

A terminal obeys control characters: they move the cursor, hide what was printed, write the clipboard, set the window's
title; and some characters that are not seen at all reverse what follows or make one name look like another. Every line
goes through here: `say` for print, `ReadableConsole` for Rich, `make_logs_readable` for logging. Imported at each
start (`catsweep.commands`), so Rich is not.
"""

import logging
import sys
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

JOINER = "\u200d"  # of several pictures one, such as a family
_OWN = "catsweep"


def readable(text: str, lines: bool = True) -> str:
    r"""Text in which every character is seen: `caf\xe9.jpg`, `\x1b[2J`, `\u202egpj.exe`.

    Letters, marks and pictures of whatever script stay as they are. Bytes that are not UTF-8 (PEP 383), control
    characters and what only steers the letters around it (Unicode's "Other", and separators of lines) are spelled out.

    Args:
        text: of whatever origin.
        lines: whether line ends and tabs stay, too; a name has none.
    """
    kept = "\n\t" if lines else ""
    if text.isprintable() or all(char.isprintable() or char in kept for char in text):
        return text
    return "".join(
        char if char.isprintable() or char in kept or _is_seen(text, place) else _spelled(char)
        for place, char in enumerate(text)
    )


def readable_name(name: str) -> str:
    r"""The name of a file, or another text that is to stay in one line: `two\nlines.jpg`."""
    return readable(name, lines=False)


def _is_seen(text: str, place: int) -> bool:
    char = text[place]
    if char == JOINER:
        around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
        return len(around) == 2 and all(unicodedata.category(one) in ("So", "Sk", "Mn") for one in around)
    return unicodedata.category(char) == "Zs"  # blanks of other widths, as in the names of screenshots


def _spelled(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def say(*words: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Print, readably.

    Args:
        words: as for `print`.
        file: standard output if it is not given.
        flush: as for `print`.
    """
    print(*(readable(str(word)) for word in words), file=file or sys.stdout, flush=flush)


class ReadableRecord(logging.LogRecord):
    """A line of the log. What fills its gaps stays in one line, so that no name can begin another."""

    def getMessage(self) -> str:  # the name is logging's
        """See `logging.LogRecord`."""
        given = self.args
        if self.name.split(".")[0] == _OWN and isinstance(given, tuple):
            given = tuple(
                readable_name(str(one)) if isinstance(one, str | Path | BaseException) else one for one in given
            )
        message = str(self.msg)
        return readable(message % given if given else message)

    @property
    def exc_text(self) -> str | None:
        """The traceback, once a formatter has made it."""
        return self._exc_text

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self._exc_text = None if text is None else readable(text)


def make_logs_readable() -> None:
    """From now on, for all loggers of this process and those forked from it."""
    logging.setLogRecordFactory(ReadableRecord)


@lru_cache(maxsize=1)
def _console() -> type[Any]:
    from rich.console import Console

    class ReadableConsole(Console):
        """Rich's, which lets escape sequences through in what it is given; those that it makes itself are apart."""

        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=readable(segment.text))

    return ReadableConsole


def console(**how: Any) -> Any:
    """A console of Rich's that prints readably, and text as it is: `[red]` and `:cat:` in a name are no markup.

    Args:
        how: as for `rich.console.Console`.
    """
    make: Callable[..., Any] = _console()
    return make(**{"markup": False, "emoji": False} | how)
