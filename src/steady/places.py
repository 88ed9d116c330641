"""Explanation of places that cannot be used: a full disk, a read-only folder, a file where a folder should be.

Turns an `OSError` about a file or folder into one message, with the key of the configuration that sets the place.
Imported at each start, so it may import nothing heavy.
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
NAMELESS = (*NO_SPACE, errno.EIO)  # raised when a file is written, often without its name
# What libraries that are not written in Python say in place of an `OSError`.
SAID = re.compile(r"No space left on device|Disk quota exceeded|File too large|\(os error (\d+)\)")
NUMBERS = {"No": errno.ENOSPC, "Disk": errno.EDQUOT, "File": errno.EFBIG}
LOOP = re.compile(r"Symlink loop from '(.*)'")  # of `Path.resolve`, before Python 3.13
BLOCK = 4096  # bytes: what a file system gives at least

# Hydra warns of each callback that it makes without a list of trusted names; this one is ours.
warnings.filterwarnings("ignore", r"hydra\.utils\.instantiate\(\) resolved _target_='steady\.places\.Ending'")


@contextmanager
def translated_errors(cfg: DictConfig | None = None, key: str | None = None) -> Iterator[None]:
    """Raise a `PlaceError` for an error of the block that is about a place (`cfg`, `key`: see `check`).

    >>> with translated_errors():
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
    """Raise a PlaceError for a folder, or a file in it, that cannot be written. Leaves it as it was, also if missing.

    The message names the key of `cfg` that sets the place, or else `key` (`KEY=DIR`).

    >>> check(Path("outputs/a"))
    """
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    wanted = folder / (file or "")
    with translated_errors(cfg, key):
        if file is not None and wanted.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(wanted))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_a_block(folder, wanted)
        except FileNotFoundError as error:  # beside a folder that is there: /proc lets nobody make anything
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder)) from error
        finally:
            for place in missing:  # the innermost first; one that another process uses by now is not empty
                with suppress(OSError):
                    place.rmdir()


def _write_a_block(folder: Path, wanted: Path) -> None:
    """Write a block to a file in a folder, and remove it; an error names the file that is wanted there."""
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
    """Set the file name of an `OSError` of the block that has none.

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
    """Tell whether an error, or its cause, says that a disk is full, or a quota or the size of a file used up.

    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError("other"))
    (True, False)
    """
    return (found := _find(error)) is not None and found[0] in NO_SPACE


def explain(error: BaseException, cfg: DictConfig | None = None, key: str | None = None) -> str | None:
    """Explain what is wrong with a place, and the remedy; None for an error that is about something else.

    The causes of the error count too: libraries wrap what they cannot handle. For `cfg` and `key` see `check`.

    >>> explain(PermissionError(errno.EACCES, "", "out/a"), key="out=DIR")
    'out/a cannot be used: permission is denied. Grant access, or choose another place: out=DIR.'
    """
    if (found := _find(error)) is None:
        return None
    number, name = found
    if number in (errno.EMFILE, errno.ENFILE):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"{_shown(name)} cannot be opened: too many files are open. A process may have "
            f"{limit:,} (ulimit -n); allow more, for example by ulimit -n 4096, or close other programs."
        )
    if number == errno.ENOENT:
        return (
            "No folder for temporary files can be written: not $TMPDIR, /tmp, /var/tmp, nor this one. Make room in "
            "one, or name another by the environment variable TMPDIR."
        )
    what, remedy = WRONG[number]
    place = (name and _obstacle(number, name)) or name
    if place is None and number in FULL:
        place = _full_folder(cfg)
    verb = "written" if number in (*NO_SPACE, errno.EROFS) else "used"
    return f"{_shown(place)} cannot be {verb}: {what}. {remedy}{_alternative(name or place, cfg, key)}."


def _shown(place: str | None) -> str:
    """Format a place for a message, relative to the working directory if it is below."""
    if not place:
        return "A file"
    beside = os.path.relpath(place) if os.path.isabs(place) else place
    text = place if beside.startswith("..") else beside
    if len(text) > 200:  # a name that is too long, for people too
        text = f"{text[:100]}…{text[-60:]}"
    return text if text.isprintable() else ascii(text)


def _find(error: BaseException) -> tuple[int, str | None] | None:
    """Find error number and file name of the error about a place: the error itself, or one that caused it."""
    chain: list[BaseException] = []
    for cause in causes(error, suppressed=True):
        chain.append(cause)
        # One that was only being handled when another came is not its cause; but a full disk is the cause of much.
        stated = all(before.__cause__ is after for before, after in itertools.pairwise(chain))
        if (found := _number_and_name(cause)) is not None and (stated or found[0] in NAMELESS):
            return found
    return None


def _number_and_name(error: BaseException) -> tuple[int, str | None] | None:
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
    if error.errno == errno.EEXIST and os.path.isdir(name):  # a folder that was to be new: a bug of ours
        return None
    return error.errno, name


def _obstacle(number: int, name: str) -> str | None:
    """Find the file that is no folder, or the link that leads nowhere, at a place or above it."""
    if number not in (errno.ENOTDIR, errno.EEXIST):
        return None
    above = [Path(name), *Path(name).parents]
    return next((str(place) for place in reversed(above) if os.path.lexists(place) and not place.is_dir()), None)


def _alternative(place: str | None, cfg: DictConfig | None, key: str | None) -> str:
    """Say how to choose another place; empty if nobody can."""
    if place is None:
        return ""
    if key := _key_of(place, cfg) or key:
        return f", or choose another place: {key}"
    temporary = os.path.abspath(tempfile.tempdir or os.environ.get("TMPDIR", "/tmp"))
    inner = os.path.relpath(os.path.abspath(place), temporary)
    if inner == "." or inner.startswith(tempfile.gettempprefix()):
        return ", or name another folder for temporary files by the environment variable TMPDIR"
    return ""


def _full_folder(cfg: DictConfig | None) -> str | None:
    """Find the folder without room: of a configuration, the working directory, or the one for temporary files."""
    with suppress(OSError):
        for folder in (*(value for _, value in _texts(cfg)), ".", tempfile.gettempdir()):
            place = Path(folder)
            while not place.is_dir() and place != place.parent:
                place = place.parent
            state = os.statvfs(place)
            if state.f_blocks and state.f_bavail * state.f_frsize < 16 * BLOCK:
                return folder or None
    return None


class Ending(Callback):
    """A Hydra callback that ends a command with one message where Hydra cannot make the folder of a run.

    In every conf/*.yaml: Hydra makes that folder before our code runs, and shows a traceback.
    """

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """See `hydra.experimental.callback`."""
        error = sys.exception()
        if isinstance(error, Exception) and explain(error, config) is not None:
            exit_with_message(error, config)

    on_multirun_end = on_run_end


def exit_with_message(error: Exception, cfg: DictConfig | None = None) -> NoReturn:
    """Exit with one message, and code 1, for an error of ours or about a place; raise any other again.

    >>> exit_with_message(PlaceError("out cannot be written."))
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


def _key_of(place: str, cfg: DictConfig | None) -> str | None:
    """Get `KEY=DIR` or `KEY=FILE.ext` for the key that sets a place or one above it; None if none does."""
    found = [(-len(os.path.abspath(value)), key, value) for key, value in _texts(cfg) if _is_within(place, value)]
    if not found:
        return None
    _, key, value = min(found)  # the innermost
    is_file = Path(value).suffix and not os.path.isdir(value)
    return f"{key}={'FILE' + Path(value).suffix if is_file else 'DIR'}"


def _is_within(place: str, folder: str) -> bool:
    """Tell whether a place is a folder or in it; not for the working directory and those above, which hold all."""
    inner, outer, here = (os.path.abspath(path) for path in (place, folder, "."))
    return outer not in (here, *map(str, Path(here).parents)) and (inner == outer or inner.startswith(f"{outer}/"))


def _texts(cfg: DictConfig | None) -> Iterator[tuple[str, str]]:
    """Yield the keys whose value is a text, which may be that of a folder, and Hydra's own for the folders of runs."""
    yield from _texts_below({} if cfg is None else OmegaConf.to_container(cfg, resolve=False))
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


def _texts_below(node: Any, above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, str) and value != "???" and "${" not in value:  # one by interpolation is of another key
            yield f"{above}{key}", value
        elif f"{above}{key}" != "hydra":
            yield from _texts_below(value, f"{above}{key}.")
