"""Two renames that Python has no name for: exchange two paths at once, and take a place only if it is free.

For `catsweep.atomic`. Linux has both as flags of `renameat2` (man 2 rename); other systems, and some file systems
(NFS), do not, and then `Unsupported` is raised and nothing has changed.
"""

import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOREPLACE, EXCHANGE = 1, 2  # linux/fs.h
_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)  # EPERM: a sandbox that knows no such call


class Unsupported(Exception):
    """The system or the file system has no such rename."""


def exchange(one: Path, other: Path) -> None:
    """Let two files or folders take each other's place at the same moment.

    Raises:
        Unsupported: this cannot be done here.
        OSError: one of them is not there, or may not be moved.
    """
    _rename(one, other, EXCHANGE)


def move(path: Path, free: Path) -> None:
    """Rename a file or folder to where nothing is.

    Raises:
        Unsupported: this cannot be done here.
        FileExistsError: something is there.
        OSError: it may not be moved.
    """
    _rename(path, free, NOREPLACE)


def _rename(source: Path, target: Path, flag: int) -> None:
    if (call := _renameat2()) is None:
        raise Unsupported
    sys.audit("catsweep.rename", str(source), str(target), flag)
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag) == 0:
        return
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        raise Unsupported
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """The C library's function; None where it has none."""
    try:
        call: Any = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    call.restype = ctypes.c_int
    return call  # type: ignore[no-any-return]
