"""Memory as a thing that threads share: who needs more than is left waits until others are done.

Serves reading (`catsweep.data.files.reading`) and decoding (`catsweep.data.decode.decoding`), so that a folder of
huge photos takes no more memory than one of them, and one of small photos still uses all cores.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Budget:
    """A number of bytes to share. First come, first served: a large need is not overtaken for ever by small ones.

    Args:
        total: bytes that may be held at the same time.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._held = 0
        self._door = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold so many bytes while the block runs; more than there are means all of them.

        A thread that holds some must not ask the same budget for more: it could wait for itself.
        """
        size = min(size, self.total)
        with self._door, self._changed:
            self._changed.wait_for(lambda: self._held + size <= self.total)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc).

    It keeps blocks of up to 32 MiB for later, and Pillow's are of 16: a TIFF of 50 megapixels after a JPEG of 67 took
    1.1 GiB, though neither alone takes more than 0.6.
    """
    with suppress(OSError, AttributeError, TypeError):  # another library, another system
        ctypes.CDLL(None).malloc_trim(0)
