"""A Griffe extension: set the `>>>` examples of docstrings as code wherever they stand, not only below `Examples:`."""

import re
from typing import Any

import griffe

BLOCK = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences each block of lines that begins with `>>> ` and ends at an empty line."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change an object's docstring, once it has been loaded."""
        if obj.docstring and "```" not in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    r"""Put examples into fences.

    >>> fenced("Add.\n\n>>> 1 + 1\n2\n")
    'Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n'
    """
    return BLOCK.sub(lambda block: f"```pycon\n{block[0]}\n```", docstring)
