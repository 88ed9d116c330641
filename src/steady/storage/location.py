"""Find the study that a command is about: in SQLite beside its results, or where the sweep noted that it is kept.

The results of a sweep are in `sweeps/STUDY/`, its study there (`study.db`) or elsewhere (`hydra.sweeper.storage`); then
`study.json` there says where, without a password: that comes from the command line, from `STEADY_STORAGE`, or from
`~/.pgpass`. The note may be a stranger's, so it can lead to a server, and never say how to get in.
"""

import importlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage

from steady.atomic import write_json
from steady.exceptions import ConfigError, StudyError
from steady.safe_paths import checked_name
from steady.storage import CONFIRMATION, LEASES, SERVERS, VARIABLE, find_study, open_storage, shown

DATABASE, NOTE = "study.db", "study.json"
LATEST = (DATABASE, f"{DATABASE}-wal", NOTE, "leaderboard.csv")  # what is written while a study goes on
DRIVERS = re.compile(r"(postgresql|mysql)(\+(psycopg|psycopg2|pymysql|mysqldb))?", re.ASCII)
REQUIRES_AUTH = 160_000  # libpq that knows require_auth
HASHED = "!password,!md5"  # logins that tell a server neither the password nor an MD5 of it
QUERY = {"sslmode"}  # others name files, or hosts in place of the one that is shown


def remember(folder: Path, study: str, url: str) -> None:
    """Note where a study is kept, beside its results.

    >>> remember(Path("sweeps/cats"), "cats", "postgresql://me:secret@host/studies")
    >>> storage_url(Path("sweeps/cats"))
    'postgresql://me@host/studies'
    """
    note = {"by": "steady", "study": study, "storage": shown(url)}
    if _noted(folder) != note:
        write_json(folder / NOTE, note)


def study_folder(sweeps: Path, name: str | None, url: str | None = None) -> Path:
    """Find the folder `sweeps/NAME` of a study; of the one written last if no name is given.

    Args:
        sweeps: holds the folders.
        name: of the study.
        url: of the study's storage, which is then noted in the folder; None: it is there, or noted there.

    Raises:
        StudyError: there is no such study, or none at all.

    Example:
        >>> storage = open_storage("sqlite:///sweeps/cats/study.db")
        >>> study_folder(Path("sweeps"), None)
        PosixPath('sweeps/cats')
    """
    if url is not None:
        names = _names(open_storage(url, make=False))
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            asked = f"No study {name!r}" if name else "Say which study"
            raise StudyError(f"{asked} in {shown(url)}. There are: {', '.join(names) or 'none'}.")
        if url.startswith(SERVERS):
            os.environ[VARIABLE] = url  # for whoever opens the study by its note, which could be a stranger's
        remember(folder := sweeps / checked_name(name, "The name of a study"), name, url)
        return folder
    written = {path.parent: _last_write(path.parent) for file in (DATABASE, NOTE) for path in sweeps.glob(f"*/{file}")}
    if not written:
        raise StudyError(
            f"No study in {sweeps}/ (expected {sweeps}/<study>/{DATABASE}, or {NOTE} there). Run a sweep first, or say "
            "where its study is: storage=URL study=NAME."
        )
    if name is None:
        return max(sorted(written), key=lambda folder: written[folder])
    known = {folder.name: folder for folder in sorted(written)}
    if name not in known:
        raise StudyError(f"No study {name!r} in {sweeps}/. There are: {', '.join(known)}.")
    return known[name]


def storage_url(folder: Path) -> str:
    """Get the URL of the storage of the study in a folder, without a password.

    Raises:
        ConfigError: the note there is damaged, or names what a note must not.
    """
    if (note := _noted(folder)) is None:
        return f"sqlite:///{folder / DATABASE}"
    url = note.get("storage") if isinstance(note, dict) else None
    if not isinstance(url, str) or not _is_plain(url):
        raise ConfigError(
            f"{folder / NOTE} should say where the study is kept, as sqlite:///FILE, journal:///FILE, "
            f"postgresql://USER@HOST/DATABASE, mysql://… or grpc://HOST:PORT; it says {shown(url)[:200]}. If the study "
            f"is there, say so yourself: storage=URL study={folder.name}."
        )
    return url


def open_study(folder: Path) -> optuna.Study:
    """Open the study in a folder, or where the note there says; nothing is written.

    Raises:
        ConfigError: the note is damaged.
        StorageError: it cannot be read.
        StudyError: the storage holds no study of that name.
    """
    url = storage_url(folder)
    storage = open_storage(_guarded(url), make=False)
    names = _names(storage)
    name = names[0] if len(names) == 1 else folder.name
    if find_study(storage, name) is None:
        raise StudyError(
            f"{shown(url)} holds the studies {', '.join(names) or '(none)'}, but none is called {folder.name!r}. "
            f"Run the sweep again, or give it another study name."
        )
    return optuna.load_study(study_name=name, storage=storage)


def _names(storage: BaseStorage) -> list[str]:
    """List the studies of a storage, without those that a sweep keeps beside its own."""
    return [name for name in optuna.get_all_study_names(storage) if not name.endswith((CONFIRMATION, LEASES))]


def _guarded(url: str) -> str:
    """Let no server that only a note names have the password of the environment, which libpq would send it.

    Raises:
        ConfigError: libpq is too old to be told so.
    """
    if not url.startswith("postgresql") or url == shown(os.environ.get(VARIABLE)):
        return url
    address = sqlalchemy.make_url(url)
    if 0 < libpq(address.get_driver_name()) < REQUIRES_AUTH:
        raise ConfigError(
            f"A note names the server {url}, and this libpq (before 16) cannot keep your password from a server that "
            "asks for it in the clear. If you trust that server, say storage=URL yourself; or install a newer one: "
            "pip install --upgrade 'psycopg[binary]'."
        )
    return address.update_query_dict({"require_auth": HASHED}).render_as_string(hide_password=False)


def libpq(driver: str) -> int:
    """Get the version of libpq that a driver uses, as 160002 for 16.2; of a missing one 0."""
    module, name = ("psycopg2.extensions", "libpq_version") if driver == "psycopg2" else ("psycopg.pq", "version")
    with suppress(ImportError):
        return int(getattr(importlib.import_module(module), name)())
    return 0


def _is_plain(url: str) -> bool:
    scheme = url.partition("://")[0]
    if scheme in ("sqlite", "journal", "grpc"):
        return "://" in url
    try:
        address = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        return False
    return DRIVERS.fullmatch(scheme) is not None and not address.password and set(address.query) <= QUERY


def _noted(folder: Path) -> object:
    """Read the note in a folder; None if there is none."""
    try:
        return json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return ""


def _last_write(folder: Path) -> float:
    # In WAL mode the newest trials are in the log beside the database until they are checkpointed.
    return max(path.stat().st_mtime for name in LATEST if (path := folder / name).exists())
