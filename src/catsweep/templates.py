"""Pages from Jinja templates: the report of a study, that of a ready set, and a bundle's model card.

What is filled in is escaped, whether somebody thinks of it or not: it may be a stranger's text.
"""

from pathlib import Path

import jinja2

from steady import printing


def environment(folder: Path, html: bool = True) -> jinja2.Environment:
    """How templates are read: a name that nothing was given for is an error, and lines of statements leave no trace.

    Args:
        folder: of the templates.
        html: whether they are HTML, else Markdown; either way what is filled in is escaped, but for what says that it
            is of that kind already (`markupsafe.Markup`, `steady.printing.Markdown`).
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
