"""Explanation of places that cannot be used: a full disk, a read-only folder, a file where a folder should be.

Whatever a command does ends at some folder, of ours, of a library or of the machine, and most of what can be wrong
with one is no fault of the program: `told` turns it into one message in the place of a traceback, with the key of the
configuration that sets the place; `check` asks before the work begins. Imported at each start, so it may import
nothing heavy.
"""

import errno
import itertools
import os
import re
import resource
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from steady.exceptions import PlaceError, SteadyError, causes
from steady.printing import say

# By error number: what is wrong with a place, and what to do about it.
WRONG = {
    errno.ENOSPC: ("no space is left there", "Make room"),
    errno.EDQUOT: ("the quota of this user is used up there", "Make room"),
    errno.EFBIG: ("it would become larger than a file may be here", "Raise the limit (ulimit -f unlimited)"),
    errno.EROFS: ("it is on a file system that can only be read", "Make that writable"),
    errno.EACCES: ("permission is denied", "Grant access"),
    errno.EPERM: ("it is not permitted", "Grant access"),
    errno.ENOTDIR: ("a file is where a folder is needed", "Move it away"),
    errno.EISDIR: ("a folder is where a file is needed", "Move it away"),
    errno.EEXIST: ("something else is in its place", "Move it away"),
    errno.ENAMETOOLONG: ("the name is too long", "Shorten it"),
    errno.ELOOP: ("its links lead in a circle", "Remove them"),
    errno.EBUSY: ("it is in use, as a folder is that something is mounted on", "Free it"),
    errno.EIO: ("the disk does not read or write", "Check the disk"),
    errno.ESTALE: ("the file system is no longer there", "Mount it again"),
}
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE = (*FULL, errno.EFBIG)  # no file can be written, or no longer one
NAMELESS = (*NO_SPACE, errno.EIO)  # told when a file is written, whose name is not known by then
# What libraries say that are not written in Python, of a full disk and of others, in place of an `OSError`.
SAID = re.compile(r"No space left on device|Disk quota exceeded|File too large|\(os error (\d+)\)")
LOOP = re.compile(r"Symlink loop from '(.*)'")  # of `Path.resolve`, before Python 3.13
NUMBERS = {"No": errno.ENOSPC, "Disk": errno.EDQUOT, "File": errno.EFBIG}
BLOCK = 4096  # bytes: what a file system gives at least

# Hydra makes its callbacks without asking what may be made, and warns of that, for each; this one is ours.
warnings.filterwarnings("ignore", r"hydra\.utils\.instantiate\(\) resolved _target_='steady\.places\.Ending'")


@contextmanager
def told(cfg: DictConfig | None = None, key: str | None = None) -> Iterator[None]:
    """Translate an error inside the block that is about a place: what is wrong with it, and what to do.

    Raises:
        PlaceError: in the place of such an error. Any other one passes. For `cfg` and `key` see `check`.

    Example:
        >>> with told():
        ...     raise NotADirectoryError(errno.ENOTDIR, "", "out/a")
        Traceback (most recent call last):
        steady.exceptions.PlaceError: out/a cannot be used: a file is where a folder is needed. Move it away.
    """
    try:
        yield
    except SteadyError:
        raise
    except Exception as error:
        if (said := explain(error, cfg, key)) is None:
            raise
        raise PlaceError(said) from error


def check(folder: Path, cfg: DictConfig | None = None, file: str | None = None, key: str | None = None) -> None:
    """Refuse a folder that cannot be written, before long work whose result goes there. Leaves it as it was.

    Args:
        folder: that will be written to; it may be missing, and so may those above it.
        cfg: of the command: which key names the place.
        file: name of the one file that will be written there, if it is one.
        key: what sets the place, as one writes it on the command line, where no value in `cfg` shows it.

    Raises:
        PlaceError: saying what is wrong with it.

    Example:
        >>> check(Path("outputs/a"))
    """
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    with told(cfg, key):
        if file is not None and (folder / file).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / file))
        try:
            _make(folder)
            _try(folder, folder / (file or ""))
        finally:
            for place in missing:  # the innermost first; one that another process uses by now is not empty
                with suppress(OSError):
                    place.rmdir()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # beside a folder that is there: /proc lets nobody make anything
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder)) from error


def _try(folder: Path, wanted: Path) -> None:
    """Write a block in a folder, and take it away again; an error is about what is wanted there."""
    probe = folder / f".steady-{uuid.uuid4().hex}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(BLOCK))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(wanted)
        raise
    finally:
        with suppress(OSError):
            probe.unlink()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an `OSError` of the block, that does not say which file it is about, a name.

    Example:
        >>> with named(Path("a.txt")):
        ...     raise OSError(errno.ENOSPC, "No space left")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left: 'a.txt'
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def is_full(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, says that a disk is full, or a quota or the size of a file used up.

    Example:
        >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError("other"))
        (True, False)
    """
    return (found := _find(error)) is not None and found[0] in NO_SPACE


def explain(error: BaseException, cfg: DictConfig | None = None, key: str | None = None) -> str | None:
    """Explain what is wrong with a place, and how to go on; None for an error that is about something else.

    What caused the error counts too, for libraries wrap what they cannot handle. For `cfg` and `key` see `check`.

    Example:
        >>> explain(PermissionError(errno.EACCES, "", "out/a"), key="out=DIR")
        'out/a cannot be used: permission is denied. Grant access, or choose another place: out=DIR.'
    """
    if (found := _find(error)) is None:
        return None
    number, name = found
    if number in (errno.EMFILE, errno.ENFILE):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"{shown(name) if name else 'A file'} cannot be opened: too many files are open. A process may have "
            f"{limit:,} (ulimit -n); allow more, for example by ulimit -n 4096, or close other programs."
        )
    if number == errno.ENOENT:
        return (
            "No folder for temporary files can be written: not $TMPDIR, /tmp, /var/tmp, nor this one. Make room in "
            "one, or name another by the environment variable TMPDIR."
        )
    what, remedy = WRONG[number]
    place = (name and _culprit(number, name)) or name
    if place is None and number in FULL and (full := _full(cfg)):
        place = full
    other = _other(name or place, cfg, key)
    where = shown(place) if place else "A file"
    return f"{where} cannot be {'used' if number in _EITHER else 'written'}: {what}. {remedy}{other}."


_EITHER = {*WRONG} - {*FULL, errno.EFBIG, errno.EROFS}


def shown(place: str) -> str:
    """Format a place for a message, relative to here if it is below.

    Example:
        >>> shown(os.path.abspath("out/a"))
        'out/a'
    """
    beside = os.path.relpath(place) if os.path.isabs(place) else place
    text = place if beside.startswith("..") else beside
    if len(text) > 200:  # a name that is too long, for people too
        text = f"{text[:100]}…{text[-60:]}"
    return text if text.isprintable() else ascii(text)


def _find(error: BaseException) -> tuple[int, str | None] | None:
    """Find error number and file of the error about a place, in an error or what caused it."""
    seen: list[BaseException] = []
    for cause in causes(error, suppressed=True):
        seen.append(cause)
        if (found := _about(cause)) is not None and (len(seen) == 1 or _led(seen, found[0])):
            return found
    return None


def _led(seen: list[BaseException], number: int) -> bool:
    """Tell if the last error led to the first: it says so, or the disk is full, which libraries stumble over later."""
    return number in NAMELESS or all(before.__cause__ is after for before, after in itertools.pairwise(seen))


def _about(error: BaseException) -> tuple[int, str | None] | None:
    if isinstance(error, RuntimeError) and (loop := LOOP.fullmatch(str(error).partition("\n")[0])):
        return errno.ELOOP, loop[1]
    if not isinstance(error, OSError):
        said = SAID.search(str(error)) if isinstance(error, Exception) else None
        number = said and int(said[1] or NUMBERS[said[0].split()[0]])
        return (number, None) if number in NAMELESS else None
    names = [os.fsdecode(name) for name in (error.filename2, error.filename) if isinstance(name, str | bytes)]
    name = names[0] if names else None
    if error.errno == errno.ENOENT and "usable temporary directory" in str(error.strerror):
        return errno.ENOENT, None
    if error.errno in (errno.EMFILE, errno.ENFILE) or error.errno in NAMELESS:
        return error.errno, name
    if error.errno not in WRONG or name is None:
        return None
    if error.errno == errno.EEXIST and os.path.isdir(name):  # a folder that was to be new: ours to mend
        return None
    return error.errno, name


def _culprit(number: int, name: str) -> str | None:
    """Find what stands in the way of a place: the file that is no folder, the link that leads nowhere."""
    if number not in (errno.ENOTDIR, errno.EEXIST):
        return None
    above = [Path(name), *Path(name).parents]
    return next((str(place) for place in reversed(above) if os.path.lexists(place) and not place.is_dir()), None)


def _other(place: str | None, cfg: DictConfig | None, key: str | None) -> str:
    """Say how to choose another place than one."""
    if place is None:
        return ""
    if key := setting_of(place, cfg) or key:
        return f", or choose another place: {key}"
    if _is_temporary(place):
        return ", or name another folder for temporary files by the environment variable TMPDIR"
    return ""


def _is_temporary(place: str) -> bool:
    """Tell if a place is the folder for temporary files, or one that Python's `tempfile` has named in it."""
    folder = os.path.abspath(tempfile.tempdir or os.environ.get("TMPDIR", "/tmp"))
    inner = os.path.relpath(os.path.abspath(place), folder)
    return inner == "." or inner.startswith(tempfile.gettempprefix())


def _full(cfg: DictConfig | None) -> str | None:
    """Find the folder without room among those of a configuration, here, and the one for temporary files."""
    with suppress(OSError):
        folders = [value for _, value in words(cfg)]
        for folder in (*folders, ".", tempfile.gettempdir()):
            place = Path(folder)
            while not place.is_dir() and place != place.parent:
                place = place.parent
            state = os.statvfs(place)
            if state.f_blocks and state.f_bavail * state.f_frsize < 16 * BLOCK:
                return folder
    return None


class Ending(Callback):
    """A Hydra callback that ends a command with one message where Hydra itself stumbles over a place.

    In every conf/*.yaml: Hydra makes the folder of a run before our code runs, and shows a traceback.
    """

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """See `hydra.experimental.callback`."""
        _end(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """See `hydra.experimental.callback`."""
        _end(config)


def _end(config: DictConfig) -> None:
    error = sys.exception()
    if isinstance(error, Exception) and explain(error, config) is not None:
        leave(error, config)


def leave(error: Exception, cfg: DictConfig | None = None) -> NoReturn:
    """End the process with one message, and code 1, for an error of ours or about a place; raise any other again.

    Example:
        >>> leave(PlaceError("out cannot be written."))
        Traceback (most recent call last):
        SystemExit: 1
    """
    if not isinstance(error, SteadyError):
        said = explain(error, cfg)
        if said is None or os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            raise error
        error = PlaceError(said)
    say(f"{type(error).__name__}: {error}", file=sys.stderr)
    raise SystemExit(1) from None


def setting_of(place: str, cfg: DictConfig | None) -> str | None:
    """Get the key that sets a file or folder, or one above it, as one writes it on the command line; None if none does.

    Example:
        >>> setting_of("out/run/0", OmegaConf.create({"out": "out"}))
        'out=DIR'
    """
    found = [(len(os.path.abspath(value)), key, value) for key, value in words(cfg) if within(place, value)]
    if not found:
        return None
    longest = max(length for length, _, _ in found)
    _, key, value = min(item for item in found if item[0] == longest)
    is_file = Path(value).suffix and not os.path.isdir(value)
    return f"{key}={'FILE' + Path(value).suffix if is_file else 'DIR'}"


def within(place: str, folder: str) -> bool:
    """Tell whether a place is a folder or in it; here itself, and what is above, holds everything and sets nothing.

    Example:
        >>> within("out/a", "out"), within("out", ".")
        (True, False)
    """
    inner, outer, here = (os.path.abspath(path) for path in (place, folder, "."))
    return outer not in (here, *map(str, Path(here).parents)) and (inner == outer or inner.startswith(f"{outer}/"))


def words(cfg: DictConfig | None) -> Iterator[tuple[str, str]]:
    """Yield keys, with their values, that are set to a word, which may be that of a folder; Hydra's own for runs, too.

    Example:
        >>> dict(words(OmegaConf.create({"data": {"dir": "cats"}, "n": 3})))["data.dir"]
        'cats'
    """
    yield from _words(cfg, "")
    hydra: Any = None
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
    elif cfg is not None:
        with suppress(OmegaConfBaseException):  # as Hydra hands it to its callbacks
            hydra = OmegaConf.select(cfg, "hydra")
    for key in ("sweep.dir", "run.dir"):
        with suppress(OmegaConfBaseException):
            if hydra is not None and isinstance(value := OmegaConf.select(hydra, key), str):
                yield f"hydra.{key}", value


def _words(node: Any, above: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    for key in map(str, node):
        if above + key == "hydra" or OmegaConf.is_interpolation(node, key):  # the latter is set by another key
            continue
        with suppress(OmegaConfBaseException):
            value = node[key]
            if isinstance(value, str):
                yield above + key, value
            yield from _words(value, f"{above}{key}.")
