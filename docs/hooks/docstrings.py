"""What the source says about arguments: the explanation of a key that has no remark beside it.

It is in the docstring (`Args:`), or in a comment behind or above the parameter, or the field of a dataclass.
"""

import ast
import io
import tokenize
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
        explained |= _remarks(member)
        for section in member.docstring.parsed if member.docstring else []:
            if section.kind is griffe.DocstringSectionKind.parameters:
                explained |= {argument.name: " ".join(argument.description.split()) for argument in section.value}
    return explained


def _remarks(member: griffe.Object) -> dict[str, str]:
    """The comments of a class's fields and of the parameters of its `__init__`, or of a function's."""
    file = member.filepath
    if not isinstance(file, Path) or member.lineno is None:
        return {}
    text = file.read_text(encoding="utf-8")
    lines, comments = text.splitlines(), _comments(text)
    found: dict[str, str] = {}
    for name, first, last in _arguments(ast.parse(text), member.name):
        above = first - 1
        while above in comments and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        said = [comments[line] for line in range(above + 1, first)]
        if said := [*said, *(comments[line] for line in (last,) if line in comments)]:
            found[name] = " ".join(said)
    return found


def _comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _arguments(module: ast.Module, name: str) -> list[tuple[str, int, int]]:
    """Names of fields or parameters, with the first and the last line of each that is alone on its lines."""
    found: list[tuple[str, int, int]] = []
    for node in module.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != name:
            continue
        functions = [node] if isinstance(node, ast.FunctionDef) else []
        for part in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                found.append((part.target.id, part.lineno, part.end_lineno or part.lineno))
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                functions.append(part)
        for function in functions:
            arguments = [*function.args.args, *function.args.kwonlyargs]
            defaults = {default.lineno: default.end_lineno for default in function.args.defaults if default}
            for argument in arguments:
                last = defaults.get(argument.lineno) or argument.end_lineno or argument.lineno
                found.append((argument.arg, argument.lineno, last))
    alone = [line for _, line, _ in found]
    return [one for one in found if alone.count(one[1]) == 1]
