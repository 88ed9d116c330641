"""Pages from Jinja templates: the report of a study, that of a ready set, and a bundle's model card."""

from pathlib import Path

import jinja2


def environment(folder: Path, html: bool = True) -> jinja2.Environment:
    """How templates are read: a name that nothing was given for is an error, and lines of statements leave no trace.

    Args:
        folder: of the templates.
        html: whether what is filled in is escaped.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
