"""Find and open the studies of a folder: `sweeps/<study>/study.db`."""

from pathlib import Path

import optuna

from catsweep.errors import ExportError
from catsweep.search.storage import open_storage

CONFIRM = ".confirm"  # behind the study's name: the study of its confirmation runs
BESIDES = (CONFIRM, ".leases")  # studies that a sweep of ours keeps beside its own, in the same database


def find_study(sweeps: Path, name: str | None) -> Path:
    """Find the folder of a study.

    Args:
        sweeps: the folder that holds one folder per study.
        name: of the study; `None` for the one whose database was written last.

    Returns:
        `sweeps/<study>`.

    Raises:
        ExportError: there is no such study, or none at all.
    """
    written = {path.parent: _last_write(path) for path in sorted(sweeps.glob("*/study.db"))}
    if not written:
        raise ExportError(f"No study in {sweeps}/ (expected {sweeps}/<study>/study.db). Run `make sweep` first.")
    if name is None:
        return max(written, key=lambda folder: written[folder])
    known = {folder.name: folder for folder in written}
    if name not in known:
        raise ExportError(f"No study {name!r} in {sweeps}/. There are: {', '.join(known)}.")
    return known[name]


def open_study(folder: Path) -> optuna.Study:
    """Open the study in a folder; nothing is written.

    Raises:
        StorageError: its database cannot be read.
        ExportError: it holds no study of that name.
    """
    database = folder / "study.db"
    storage = open_storage(f"sqlite:///{database}", make=False)
    every = optuna.get_all_study_names(storage)
    names = [name for name in every if not name.endswith(BESIDES)]
    name = names[0] if len(names) == 1 else folder.name
    if name not in every:
        raise ExportError(
            f"{database} holds the studies {', '.join(names) or '(none)'}, but none is called {folder.name!r}. "
            f"Run the sweep again, or give it another study name."
        )
    return optuna.load_study(study_name=name, storage=storage)


def _last_write(database: Path) -> float:
    # In WAL mode the newest trials are in the log beside the database until they are checkpointed.
    log = database.with_name(database.name + "-wal")
    return max(path.stat().st_mtime for path in (database, log) if path.exists())
