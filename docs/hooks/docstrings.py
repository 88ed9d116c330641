"""What docstrings of the source say about arguments: the explanation of a key that has no remark beside it."""

from functools import cache
from pathlib import Path

import griffe

SOURCE = Path(__file__).resolve().parents[2] / "src"


@cache
def _package() -> griffe.Object:
    loader = griffe.GriffeLoader(search_paths=[SOURCE], docstring_parser=griffe.Parser.google)
    package = loader.load("catsweep")
    assert isinstance(package, griffe.Object)
    return package


@cache
def arguments(target: str) -> dict[str, str]:
    """Explanations of an object's arguments, its own before those of what it derives from.

    Args:
        target: dotted path of a class or function; of another package than ours it has none.
    """
    module, _, rest = target.partition(".")
    if module != "catsweep" or not rest:
        return {}
    found = _package()[rest]
    family = [found, *(found.mro() if isinstance(found, griffe.Class) else [])]
    explained: dict[str, str] = {}
    for member in reversed(family):
        for section in member.docstring.parsed if member.docstring else []:
            if section.kind is griffe.DocstringSectionKind.parameters:
                explained |= {argument.name: " ".join(argument.description.split()) for argument in section.value}
    return explained
