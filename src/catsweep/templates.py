"""Escape texts of strangers in Jinja templates (reports and model cards) and in plotly's figures."""

import re
from html import escape
from pathlib import Path
from typing import Any

import jinja2

from steady import printing

OWN = re.compile(r"&lt;(br|/?extra)&gt;")  # Optuna's line breaks and plotly's boxes: harmless in a stranger's text


def environment(folder: Path, html: bool = True) -> jinja2.Environment:
    """Make a Jinja environment in which undefined names are errors and all filled-in text is escaped.

    Args:
        folder: of the templates.
        html: whether they are HTML, else Markdown; text of that type (`markupsafe.Markup`,
            `steady.printing.Markdown`) is not escaped.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=html,
        finalize=None if html else printing.plain,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def without_markup(content: Any) -> Any:
    """Escape all HTML in plotly's description of a figure, except Optuna's and our own.

    Plotly renders some HTML in any text, so that the option `<a href="https://…">l1</a>` would be a link.
    """
    if isinstance(content, dict):
        return {key: without_markup(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_markup(value) for value in content]
    return OWN.sub(r"<\1>", escape(content, quote=False)) if isinstance(content, str) else content
