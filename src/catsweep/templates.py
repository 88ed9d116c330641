"""Escape texts of strangers in Jinja templates (reports and model cards) and in plotly's figures."""

import re
from html import escape
from pathlib import Path
from typing import Any

import jinja2

from steady import printing
from steady.printing import Markdown, code, plain

# Within a sentence: what stands in `…`, a line to its end, a target of the Makefile, an override in quotes.
COMMAND = re.compile(
    r"`((?:python src/|make )[^`\n]+)`|\b(python src/\w+\.py\b.*|make (?:best-model|judge|sweep)\b)|('hydra\.[^']*')",
    re.DOTALL,
)
OWN = re.compile(r"&lt;(br|/?extra)&gt;")  # Optuna's line breaks and plotly's boxes: harmless in a stranger's text


def environment(folder: Path, html: bool = True) -> jinja2.Environment:
    """Make a Jinja environment in which undefined names are errors and all filled-in text is escaped.

    They are HTML, or else Markdown; text of that type (`markupsafe.Markup`, `steady.printing.Markdown`) is not escaped.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=html,
        finalize=None if html else printing.plain,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if not html:
        made.filters.update(code=code, with_commands=with_commands, md=Markdown)
    return made


def with_commands(sentence: str) -> Markdown:
    r"""Escape a sentence for Markdown, its commands as code, so that they can be copied from the file.

    Example:
        >>> print(with_commands("Study a_b: make judge. To find out: python src/train.py -m 'x={top: 3}'"))
        Study a\_b: `make judge`. To find out: `python src/train.py -m 'x={top: 3}'`
    """
    made, end = "", 0
    for command in COMMAND.finditer(sentence):
        made += _spaced(sentence[end : command.start()]) + code(command[command.lastindex or 0])
        end = command.end()
    return Markdown(made + _spaced(sentence[end:]))


def _spaced(text: str) -> str:
    """Escape a part of a sentence, with the space at its ends."""
    return f"{' ' * text[:1].isspace()}{plain(text)}{' ' * text[-1:].isspace()}" if text.strip() else text


def without_markup(content: Any) -> Any:
    """Escape all HTML in plotly's description of a figure, except Optuna's and our own.

    Plotly renders some HTML in any text, so that the option `<a href="https://…">l1</a>` would be a link.
    """
    if isinstance(content, dict):
        return {key: without_markup(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_markup(value) for value in content]
    return OWN.sub(r"<\1>", escape(content, quote=False)) if isinstance(content, str) else content
