"""Files of a source: names in a fixed order, and bytes behind each name.

A file without the suffix of an image is judged by its first bytes: browsers, phones and scrapers save sound photos as
`photo`, `photo.jpg_large` or `photo.jpg?w=300`.
"""

import ast
import csv
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from catsweep.data.decode import MAX_BYTES, Unreadable, read_bytes, read_start
from catsweep.data.threads import ByteSemaphore, in_order
from catsweep.errors import DataError
from catsweep.ownership import MARKER
from steady.printing import escaped, readable_name

# Modules of this folder that decide what comes of a file.
READING = ("archives.py", "decode.py", "files.py", "pixels.py")
SOURCE = Path(__file__).parents[1]
# By digest of the present code, the digest that keys hold for it: code that was rewritten and makes the same images as
# before keeps its ready sets. tests/{data,prepare}/test_code_digests.py write it.
RECORDED: dict[str, str] = json.loads(Path(__file__).with_name("code_digests.json").read_text(encoding="utf-8"))
MEMORY = ByteSemaphore(MAX_BYTES)
PASSED_OVER = "passed_over.csv"
NAMED, GROUPS = 3, 8  # names of files with one reason, and reasons, in a line


class Files(Protocol):
    """Files of a source by name; implementations derive from it, and so have `digest` and `passed_over`."""

    def __iter__(self) -> Iterator[str]:
        """Names of the photos, in an order that depends on nothing but the source; what cannot be read is included."""

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a file of this name, photo or not."""

    def size(self, name: str) -> int:
        """Return the bytes that `read` will take, or a little more; 0 if it will not take any."""

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """Read one file of at most `limit` bytes, or raise Unreadable. Thread-safe."""

    def digest(self, name: str) -> str:
        """Return a text that differs if the content does: its sha256, or the kind of reason why it cannot be read."""
        try:
            with reading(self, name) as data:
                return hashlib.sha256(data).hexdigest()
        except Unreadable as error:
            return error.kind

    def passed_over(self) -> dict[str, str]:
        """Name what is there, but not taken for a photo, each with the reason: "kind: details"."""
        return {}


@contextmanager
def reading(files: Files, name: str) -> Iterator[bytes]:
    """Hold the bytes of a photo while the block runs; together, all threads hold no more than `MAX_BYTES` at a time."""
    with MEMORY.hold(files.size(name)):
        yield files.read(name)


def digests(files: Files, names: Sequence[str]) -> Iterator[str]:
    """Compute `Files.digest` of each name, in their order, on all cores."""
    return in_order(files.digest, names)


def digest(files: Files, beside: str | None = None) -> str:
    """Hash names and contents of all photos, and of files called NAME + `beside`: sha256, as of an archive of them."""
    names = [file for name in files for file in ([name] if beside is None else [name, name + beside])]
    state = hashlib.sha256()
    for name, content in zip(names, digests(files, names), strict=True):
        state.update(os.fsencode(name) + b"\0" + content.encode() + b"\0")
    return state.hexdigest()


def code_digest(*files: str) -> str:
    """Hash the statements of source files of `catsweep`, without comments, docstrings and imports: 16 hex digits."""
    texts = [path.read_text(encoding="utf-8") for path in sorted({SOURCE / name for name in files})]
    return hashlib.sha256(b"\0".join(map(_statements, texts))).hexdigest()[:16]


def recorded_digest(*files: str) -> str:
    """Return `code_digest`, or the one in `RECORDED` for it."""
    digest = code_digest(*files)
    return RECORDED.get(digest, digest)


@lru_cache(maxsize=64)
def _statements(text: str) -> bytes:
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (docstring or isinstance(node, ast.Import | ast.ImportFrom)):
            end = node.end_lineno or node.lineno
            lines[node.lineno - 1 : end] = [""] * (end - node.lineno + 1)
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#")).encode()


def write_passed_over(path: Path, passed_over: Mapping[str, str]) -> None:
    """Write names and reasons as CSV; if there are none, remove the file that was there."""
    path.unlink(missing_ok=True)
    if passed_over:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("source", "reason"))
            table.writerows([escaped(name), escaped(reason)] for name, reason in sorted(passed_over.items()))


def say_passed_over(passed_over: Mapping[str, str]) -> str:
    """Summarise them: "4 other files passed over: 3 not an image: .txt (a.txt, b.txt, …); 1 hidden (.x.jpg)"."""
    if not passed_over:
        return ""
    groups: dict[str, list[str]] = {}
    for name, reason in sorted(passed_over.items()):
        groups.setdefault(reason, []).append(readable_name(name))
    order = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    shown = len(order) if len(order) == GROUPS + 1 else GROUPS  # the last one takes no more room than its count
    words = [
        f"{len(names):,} {reason} ({', '.join([*names[:NAMED], *['…'] * (len(names) > NAMED)])})"
        for reason, names in order[:shown]
    ]
    if rest := sum(len(names) for _, names in order[shown:]):
        words.append(f"{rest:,} for other reasons")
    return f"{len(passed_over):,} other file{'s' * (len(passed_over) > 1)} passed over: {'; '.join(words)}"


class Folder(Files):
    """Files of a folder and its sub-folders; hidden ones (also macOS's `._x.jpg`) are passed over.

    So are sub-folders that catsweep made, such as stages: their images are photos of the folder once more.
    """

    def __init__(self, path: Path, suffixes: Collection[str]) -> None:
        self.path, self.suffixes = path, suffixes

    def __iter__(self) -> Iterator[str]:
        return (name for name, reason in self._walk() if not reason)

    def passed_over(self) -> dict[str, str]:
        """See `Files`."""
        return {name: reason for name, reason in self._walk() if reason}

    def _walk(self) -> Iterator[tuple[str, str]]:
        """Name each file, with the reason why it is no photo; empty for those that are."""

        def fail(error: OSError) -> None:
            raise DataError(f"Expected to list {error.filename}, but: {error.strerror}. Allow it, or move it away.")

        for parent, folders, names in os.walk(self.path, onerror=fail):
            place = Path(parent).relative_to(self.path)
            unseen = {name for name in folders if hidden((name,))}
            folders[:] = sorted(set(folders) - unseen)
            links = {name for name in folders if Path(parent, name).is_symlink()}  # not followed, but accounted for
            ours = {
                name for name in folders if name not in links and os.path.isfile(os.path.join(parent, name, MARKER))
            }
            folders[:] = [name for name in folders if name not in ours]
            yield from ((f"{place / name}/", "made by catsweep") for name in sorted(ours))
            for name in sorted([*names, *links, *unseen]):
                if (out := hidden((name, "") if name in unseen else (name,))) is not None:
                    yield str(place / name) + "/" * (name in unseen), out[1]
                elif name in links or Path(name).suffix.lower() in self.suffixes:
                    yield str(place / name), ""
                else:
                    try:
                        yield str(place / name), refusal(name, read_start(Path(parent, name), START))
                    except Unreadable as error:
                        yield str(place / name), error.reason

    def __contains__(self, name: object) -> bool:
        return os.path.lexists(self.path / str(name))

    def size(self, name: str) -> int:
        """See `Files`."""
        with suppress(OSError, ValueError):
            return os.lstat(self.path / name).st_size
        return 0

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        return read_bytes(self.path / name, limit)


START = 64  # bytes that are needed
# Of the formats in `decode.FORMATS`, and HEIF.
_IMAGE = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|RIFF.{4}WEBP"
    rb"|II[*+]\0|MM\0[*+]"  # TIFF, BigTIFF
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # BMP: nothing reserved, a header of a known length
    rb"|P[1-6]\s+[#\d]"  # PPM
    rb"|\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"  # JPEG 2000
    rb"|.{4}ftyp.{0,40}?(?:avi[fs]|hei[cx]|hev[cx])",
    re.DOTALL,
)
# Camera raw that begins like a TIFF, whose first picture is a thumbnail.
_RAW = {".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"}
_RAW |= {".nef", ".nrw", ".pef", ".rwl", ".sr2", ".srf", ".srw"}


def refusal(name: str, start: bytes) -> str:
    """Say why a file is no image, by its name and first `START` bytes; empty if it is to be tried."""
    suffix = PurePosixPath(name).suffix.lower()
    if not start:
        return "empty file"
    if _IMAGE.match(start) is None:
        return f"not an image: {suffix or 'without a suffix'}"
    raw = suffix in _RAW and start.startswith((b"II", b"MM"))
    return "camera raw: save it as JPEG first" if raw else ""


def hidden(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """Find the first hidden part of a path: the path up to it, of a folder with a slash, and the reason; else None."""
    for place, part in enumerate(parts):
        if part == "__MACOSX" or part.startswith("._"):
            reason = "metadata of macOS"
        elif part.startswith(".") and part != "..":
            reason = "hidden"
        else:
            continue
        return "/".join(parts[: place + 1]) + ("/" if place + 1 < len(parts) else ""), reason
    return None
