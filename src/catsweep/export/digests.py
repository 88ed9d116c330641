"""Compare the files of a bundle with the sha256 digests in its `provenance.json`, and keep a page that was edited.

The digests tell of damage, of files that were swapped, and of others that were added; not of somebody who writes them
anew, for nothing is signed. The page asks its readers to put its licence right, so a new export does not write over it.
"""

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from catsweep import runs
from catsweep.errors import DataError, ExportError
from catsweep.records import file_digest
from catsweep.runs import Bundle, RunDir
from steady import safe_paths

PROVENANCE, README = str(runs.PROVENANCE), Bundle.README
READ = {*Bundle.FILES}  # one that was added is as bad as one that was changed
KEPT = "README.before*.md"  # a person's, from an earlier export: theirs to change and remove
FIRST = "README.before.md"
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
LISTED = 5  # files that a message names
AGAIN = "Export it again with `make export`, or get it again from where it came."


def of(folder: Path) -> dict[str, dict[str, Any]]:
    """Compute bytes and sha256 of each file of a bundle, but of `provenance.json`, kept pages and hidden files."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != PROVENANCE and path.name[0] != "." and not path.match(KEPT)
    }


def verify(folder: Path) -> list[str]:
    """Compare each file of a bundle with what was exported, at some 1 GB a second.

    Returns:
        What one should know, a sentence each: no digests (an earlier version), an edited page, more in the folder.

    Raises:
        ExportError: a file is missing, damaged or another, was added, or is a link out of the bundle.
    """
    refuse_links((folder / name for name in sorted({*READ, README})), folder)
    expected = _recorded(folder)
    if expected is None:
        return [f"{folder} holds no digests of its files, as of an earlier version: whether they are whole is unknown."]
    wrong, said = [], []
    for name, (size, digest) in expected.items():
        if difference := _difference(folder / name, size, digest):
            if name == README and (folder / name).is_file():
                said.append(f"{folder / README} was edited after the export.")
            else:
                wrong.append(f"{name} {difference}")
    others = {path.name for path in folder.iterdir() if path.name[0] != "."} - expected.keys() - {PROVENANCE}
    wrong += [f"{name} was not exported with it" for name in sorted(others & READ)]
    if wrong:
        raise ExportError(f"{folder} is not the bundle that was exported: {_listed(wrong, '; ')}. {AGAIN}")
    if rest := sorted(others - READ):
        said.append(f"Not of the bundle, and not read: {_listed(rest, ', ')} in {folder}.")
    return said


def _listed(words: list[str], between: str) -> str:
    more = [f"and {len(words) - LISTED} more"] if len(words) > LISTED else []
    return between.join([*words[:LISTED], *more])


def _page_was_edited(folder: Path) -> bool:
    """Whether the page of a bundle is not the one that was exported, or nobody can tell; False without a page."""
    page, recorded = folder / README, None
    if not page.is_file() or page.is_symlink():
        return False
    with suppress(ExportError):
        recorded = (_recorded(folder) or {}).get(README)
    return recorded is None or bool(_difference(page, *recorded))


def refuse_links(paths: Iterable[Path], folder: Path) -> None:
    """Refuse links that lead out of the folder, or nowhere: what they point to on this machine would be pushed."""
    safe_paths.refuse_links(paths, folder, "bundle", ExportError, dangling=False)


def _recorded(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Read the digests in `provenance.json`; None if it is of a version that wrote none, or not there."""
    if not (folder / PROVENANCE).exists():
        return None
    try:
        export = RunDir(folder).provenance().get("export") or {}
        if not isinstance(export, dict):
            raise TypeError(f"`export` is {export!r:.40}")
        if "files" not in export:
            return None
        recorded = {str(name): (one["bytes"], one["sha256"]) for name, one in export["files"].items()}
        for name, (size, digest) in recorded.items():
            if name in ("", ".", "..", PROVENANCE) or {"/", "\\", "\0"} & {*name}:
                raise ValueError(f"{name!r:.60} is no name of a file of the bundle")
            if type(size) is not int or not isinstance(digest, str) or not SHA256.fullmatch(digest):
                raise ValueError(f"what it says of {name!r:.60} is no size and sha256")
    except DataError as error:
        raise ExportError(f"{error} {AGAIN}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{folder / PROVENANCE} does not hold the digests of an export: {error}. {AGAIN}") from error
    refuse_links((folder / name for name in recorded), folder)
    return recorded


def _difference(path: Path, size: int, digest: str) -> str:
    """Compare a file with its record, in words; empty if they agree."""
    if not path.is_file():
        return "is missing"
    try:
        if (there := path.stat().st_size) != size:
            return f"has {there:,} bytes, expected {size:,}"
        found = file_digest(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if found == digest else f"has sha256 {found[:12]}…, expected {digest[:12]}…"


def keep_page(before: Path, folder: Path) -> str | None:
    """Copy the page of the bundle `before`, if it was edited, and those kept earlier, to the new bundle in `folder`.

    Returns the name of the file that holds the page now; None if it was not edited.
    """
    for page in sorted(before.glob(KEPT)):
        if page.is_file() and not page.is_symlink():
            shutil.copyfile(page, folder / page.name)
    if not _page_was_edited(before):
        return None
    content = (before / README).read_bytes()
    if content == (folder / README).read_bytes():
        return None
    names = (FIRST if number == 1 else f"README.before-{number}.md" for number in count(1))
    name = next(name for name in names if not (folder / name).exists() or (folder / name).read_bytes() == content)
    (folder / name).write_bytes(content)
    return name
