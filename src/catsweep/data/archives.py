"""Zips and tars as `Files`, read in place and never unpacked under a name that they bring along.

A hostile archive is refused, or costs no more than the photos that it claims to hold: every read of its directory,
of a member and of the whole is bounded, links and devices cannot be read, and damage is an error.
"""

import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import tempfile
import weakref
import zipfile
from bz2 import BZ2File
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from catsweep.data import landmarks
from catsweep.data.decode import MAX_BYTES, Unreadable, check_size
from catsweep.data.files import START, Files, Folder, hidden, refusal
from catsweep.errors import CatsweepError, DataError
from steady.places import explain, is_full

MAX_DIRECTORY = 1 << 25  # bytes that may be read in one go, as zipfile does the whole directory and tarfile long names
MAX_WINDOW = 1 << 27  # bytes that unpacking an .xz may take; `xz -9` needs 65 MiB, and its files may ask for 4 GiB
CHUNK = 1 << 20
MAX_MEMBERS = 500_000
# What an archive's photos may come to, unpacked: photos hardly shrink, so more than this is a bomb.
MAX_UNPACKED, MAX_RATIO, ALWAYS = 1 << 36, 64, 1 << 30
_READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python's reader of the others unpacks without a bound
_ENCRYPTED = 0x2041  # bits of a member's flags: the old way, the strong one, hidden names
NOT_REGULAR = "not a regular file: a link, pipe or device (links are not followed)"


class _BoundedReader(io.BufferedReader):
    """File with bounds on the size of one read, and on the place (None: its end) up to which it is read."""

    def __init__(self, raw: Any, most: int | None = None) -> None:
        super().__init__(raw, 1 << 16)
        self.most, self.last = most, b""  # last: what was read last

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = size if size is not None and 0 <= size <= MAX_DIRECTORY else MAX_DIRECTORY + 1
        self.last = super().read(wanted)
        if len(self.last) > MAX_DIRECTORY:
            raise ValueError(f"its directory claims more than {MAX_DIRECTORY >> 20} MiB")
        return self.last

    def seek(self, place: int, whence: int = 0, /) -> int:
        if self.most is not None and place > self.most:
            raise ValueError(f"it unpacks to more than {self.most >> 30} GiB")
        return super().seek(place, whence)


class _XzFile(io.RawIOBase):
    """Stream of an .xz, decompressed in bounded memory, forwards only; `lzma.open` has no bound."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file, self._place = path.open("rb"), 0
        self._start()

    def _start(self) -> None:
        self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0, /) -> int:
        if whence or place < self._place:
            raise io.UnsupportedOperation("an .xz is read forwards only")
        while self._place < place and self.read(min(place - self._place, CHUNK)):
            pass
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        while True:
            if self._unpacker.eof:
                left = (self._unpacker.unused_data or self._file.read(1 << 16)).lstrip(b"\0")  # padding
                if not left:
                    return 0
                self._start()
            else:
                left = self._file.read(1 << 16) if self._unpacker.needs_input else b""
                if self._unpacker.needs_input and not left:
                    raise EOFError("it ends early")
            if data := self._unpacker.decompress(left, len(buffer)):
                buffer[: len(data)] = data
                self._place += len(data)
                return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


_OPENERS = {b"\x1f\x8b": gzip.GzipFile, b"BZh": BZ2File, b"\xfd7zXZ\0": _XzFile}


def open_files(source: str | Path, suffixes: Collection[str]) -> Files:
    """Open a folder, a zip or a tar (plain, gz, bz2, xz); DataError if it is none, is damaged, or holds too much.

    `suffixes` are the endings of photos, in lower case with their dot; of other files the first bytes decide.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return Folder(path, suffixes)
    if path.is_file():  # a named pipe would be waited for
        with _damage(path), path.open("rb") as file:
            start = file.read(512)
        # By its beginning, never its end: a tar may end in a zip.
        if start.startswith(b"PK"):
            return Zip(path, suffixes)
        if start[257:262] == b"ustar" or start.startswith(tuple(_OPENERS)) or _is_old_tar(start):
            return Tar(path, suffixes)
    came = "is not there; check the path"
    if path.is_file():
        came = "is a file of another kind. Unpack it if it is an archive, and give the folder: data.source=DIR"
    elif path.exists():
        came = "is neither: it is a pipe, a socket or a device; check the path"
    elif path.is_symlink():
        came = "is a link that leads nowhere; check the path"
    raise DataError(f"Expected a folder of photos, or a zip or tar of them, but data.source={source} {came}.")


class _Archive(Files):
    """Base of zip and tar: members by name, with the reason why one is refused."""

    def __init__(self, path: Path, suffixes: Collection[str]) -> None:
        self.path, self.suffixes = path, suffixes
        self.most = min(MAX_UNPACKED, max(ALWAYS, MAX_RATIO * path.stat().st_size))
        self.unpacked = 0
        self.photos: set[str] = set()
        self.sizes: dict[str, int] = {}  # by name, as the reasons of those refused and passed over
        self.refused: dict[str, str] = {}
        self.passed: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        yield from sorted(self.photos, key=_as_walked)

    def __contains__(self, name: object) -> bool:
        return name in self.sizes

    def size(self, name: str) -> int:
        """See `Files`."""
        return 0 if name in self.refused else self.sizes.get(name, 0)

    def passed_over(self) -> dict[str, str]:
        """See `Files`."""
        return dict(self.passed)

    def _admit(self, raw: str, size: int, reason: str, start: Callable[[], bytes]) -> str | None:
        """Note a member, and return the name to read it by; None if it is passed over.

        `start` reads its first bytes; `reason` says why it cannot be read.
        """
        name = str(PurePosixPath(raw))  # tar writes ./a.jpg
        parts = PurePosixPath(raw.replace("\\", "/")).parts
        if len(self.sizes) + len(self.passed) >= MAX_MEMBERS:
            raise self._bomb()
        if (out := hidden(parts)) is not None:
            self.passed[out[0]] = out[1]
            return None
        if ".." in parts or raw.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", raw):
            reason = "unsafe path: it leads out of the archive"
        called_photo = PurePosixPath(name).suffix.lower() in self.suffixes
        if called_photo or not (why := reason or refusal(name, start() if size else b"")):
            self.photos.add(name)
        else:
            self.passed[name] = why
            if reason or not name.lower().endswith(landmarks.SUFFIX):  # else it may lie beside a photo: x.jpg.cat
                return None
        if reason:
            self.refused[name] = reason
        else:
            self.unpacked += size
        if self.unpacked > self.most:
            raise self._bomb()
        self.sizes[name] = size
        return name

    def _bomb(self) -> DataError:
        return DataError(
            f"Expected an archive of at most {self.most >> 30} GiB and {MAX_MEMBERS:,} files, but {self.path} claims "
            "to hold more. If it is honest, unpack it and give the folder: data.source=DIR."
        )

    def _check(self, name: str, limit: int) -> int:
        if name not in self.sizes:
            raise Unreadable("cannot be opened: No such file or directory")  # as a folder says it
        if name in self.refused:
            raise Unreadable(self.refused[name])
        check_size(self.sizes[name], limit)
        return self.sizes[name]


class Zip(_Archive):
    """Zip, read in place."""

    def __init__(self, path: Path, suffixes: Collection[str]) -> None:
        super().__init__(path, suffixes)
        with _damage(path):
            file = _BoundedReader(io.FileIO(path))
            weakref.finalize(self, file.close)
            self.archive = zipfile.ZipFile(file)
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in self.archive.infolist():
            if member.is_dir():
                continue
            start = partial(self._start, member)
            if (name := self._admit(member.filename, member.file_size, _refusal(member), start)) is not None:
                self.members[name] = member

    def _start(self, member: zipfile.ZipInfo) -> bytes:
        try:
            with self.archive.open(member) as file:
                return file.read(START)
        except Exception:  # as in `read`; damage is found when it is read
            return b""

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        size = self._check(name, limit)
        try:
            with self.archive.open(self.members[name]) as file:
                data = b"".join(_chunks(file, size))
                file.read(1)  # at the end it compares the checksum
        except Exception as error:  # of many kinds, as Pillow's
            raise Unreadable(f"damaged in the archive: {' '.join(str(error).split())[:200]}") from error
        if len(data) != size:
            raise Unreadable("damaged in the archive: it ends early")
        return data


class Tar(_Archive):
    """Tar: a plain one is read in place, the photos of a compressed one are first unpacked into one unnamed file."""

    def __init__(self, path: Path, suffixes: Collection[str]) -> None:
        super().__init__(path, suffixes)
        self.places: dict[str, int] = {}
        with _damage(path):
            self.file = self._index()

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        size = self._check(name, limit)
        data = os.pread(self.file.fileno(), size, self.places[name])
        if len(data) < size:
            raise Unreadable("damaged in the archive: it ends early")
        return data

    def _index(self) -> IO[bytes]:
        """Note where each member is, and return the file to find them in."""
        with self.path.open("rb") as plain:
            start = plain.read(6)
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
        if opener is None:
            with _BoundedReader(io.FileIO(self.path)) as file:
                for name, member, _ in self._files(file):
                    self.places[name] = member.offset_data
            return self._kept(self.path.open("rb"))
        # One pass over a compressed one, for going back in it would decompress it anew each time.
        spool = self._kept(tempfile.TemporaryFile())  # noqa: SIM115  # closed when the archive is
        with _BoundedReader(cast(Any, opener(self.path)), self.most + ALWAYS) as file:
            for name, member, start in self._files(file):
                self.places[name] = spool.tell()
                if name not in self.refused and member.size <= MAX_BYTES:
                    spool.write(start)
                    spool.writelines(_chunks(file, member.size - len(start)))
        spool.flush()
        return spool

    def _kept(self, file: IO[bytes]) -> IO[bytes]:
        """Close a file when the archive goes."""
        weakref.finalize(self, file.close)
        return file

    def _files(self, file: _BoundedReader) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
        """Iterate over admitted members: name, header, and the first bytes, behind which the file stands."""
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all; typeshed lacks it
                if member.isdir():
                    continue
                reason = "" if member.isreg() else NOT_REGULAR
                reason = "not a regular file: one with holes" if member.issparse() else reason
                file.seek(member.offset_data)  # never back, which some decompressors cannot
                start = file.read(min(START, member.size))
                if (name := self._admit(member.name, member.size, reason, partial(bytes, start))) is not None:
                    yield name, member, start
        if file.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a broken header for the end
            raise tarfile.ReadError("a header in the middle cannot be read" if file.last else "it ends early")


def _refusal(member: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(member.external_attr >> 16)
    if mode and mode != stat.S_IFREG:
        return NOT_REGULAR
    if member.flag_bits & _ENCRYPTED:
        return "encrypted: unpack it with its password first"
    if member.compress_type not in _READ_METHODS:
        return "unusual compression: unpack it first"
    return ""


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(size, CHUNK))):
        yield chunk
        size -= len(chunk)


def _is_old_tar(start: bytes) -> bool:
    """Recognise a tar of before 1988, which has no mark, by its checksum."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with an archive as a whole into DataError; its readers raise many kinds."""
    try:
        yield
    except CatsweepError:
        raise
    except Exception as error:
        if is_full(error):
            raise DataError(
                f"Expected room in {tempfile.gettempdir()}, where the photos of a compressed tar are unpacked to, but "
                f"{path} holds more than there is. Make room there, name another folder by the environment variable "
                "TMPDIR, or unpack it yourself and give the folder: data.source=DIR."
            ) from error
        if explain(error) is not None:  # of the machine, not of the archive
            raise
        raise DataError(
            f"Expected a whole archive of photos, but {path} cannot be read: {str(error) or type(error).__name__}. "
            "Get it again, or unpack it and give the folder: data.source=DIR."
        ) from error


def _as_walked(name: str) -> list[tuple[bool, str]]:
    """Sort key of names in the order of `Folder`: of each folder first its files, then its folders."""
    *folders, file = PurePosixPath(name).parts
    return [*((True, folder) for folder in folders), (False, file)]
