"""Readers that stay small, whatever a hostile archive asks for.

`catsweep.data.archives` puts them under Python's own readers of zips and tars.
"""

import io
import lzma
from pathlib import Path
from typing import Any

MAX_DIRECTORY = 1 << 25  # bytes that may be read in one go, as zipfile does the whole directory and tarfile long names
MAX_WINDOW = 1 << 27  # bytes that unpacking an .xz may take; `xz -9` needs 65 MiB, and its files may ask for 4 GiB


class Bounded(io.BufferedReader):
    """A file of which nobody reads a lot at once, nor what lies behind a certain place.

    Args:
        raw: the file.
        most: place up to which it may be read, bytes; None: to its end.

    Attributes:
        last: what was read last.
    """

    def __init__(self, raw: Any, most: int | None = None) -> None:
        super().__init__(raw, 1 << 16)
        self.most, self.last = most, b""

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's, but of at most `MAX_DIRECTORY` bytes.

        Raises:
            ValueError: there are more to read.
        """
        wanted = size if size is not None and 0 <= size <= MAX_DIRECTORY else MAX_DIRECTORY + 1
        self.last = super().read(wanted)
        if len(self.last) > MAX_DIRECTORY:
            raise ValueError(f"its directory claims more than {MAX_DIRECTORY >> 20} MiB")
        return self.last

    def seek(self, place: int, whence: int = 0, /) -> int:
        """As any file's.

        Raises:
            ValueError: behind `most`.
        """
        if self.most is not None and place > self.most:
            raise ValueError(f"it unpacks to more than {self.most >> 30} GiB")
        return super().seek(place, whence)


class XzFile(io.RawIOBase):
    """An .xz, unpacked while it is read, forwards only; `lzma.open` does not bound the memory that this takes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._unpacker = self._new()
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, but only forwards."""
        return True

    def tell(self) -> int:
        """Bytes unpacked."""
        return self._place

    def seek(self, place: int, whence: int = 0, /) -> int:
        """Unpack up to a place."""
        if whence or place < self._place:
            raise io.UnsupportedOperation("an .xz is read forwards only")
        while self._place < place and self.read(min(place - self._place, 1 << 20)):
            pass
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Unpack as many bytes as there is room for, or fewer; 0 at the end."""
        while True:
            if self._unpacker.eof:
                left = (self._unpacker.unused_data or self._file.read(1 << 16)).lstrip(b"\0")  # padding
                if not left:
                    return 0
                self._unpacker = self._new()
            else:
                left = self._file.read(1 << 16) if self._unpacker.needs_input else b""
                if self._unpacker.needs_input and not left:
                    raise EOFError("it ends early")
            if data := self._unpacker.decompress(left, len(buffer)):
                buffer[: len(data)] = data
                self._place += len(data)
                return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW)
