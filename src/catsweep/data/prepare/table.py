"""The manifest of a whole preparation: one table with a row per image and stage, next to the stages' folders.

Last step of `catsweep.data.prepare.pipeline` before the ready set. Each stage has its own manifest, which the next one
reads; this one is for people, for a spreadsheet or a data frame: where each image came from, what was done to it, and
why it was left out.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from catsweep.data.prepare.record import MANIFEST, Record
from catsweep.data.prepare.stage import Done
from catsweep.errors import ConfigError
from steady.atomic import replacing
from steady.printing import readable_name

STEM = "manifest"


def check(kind: str) -> None:
    """Refuse a kind of table that cannot be written, before any work is done for it.

    Raises:
        ConfigError: it needs a package that is not there.
    """
    if kind == "parquet":
        need_pyarrow("manifest=parquet")


def write_table(root: Path, stages: Sequence[Done], kind: str) -> Path:
    """Write the table, whole or not at all; a table of the other kind, which would be stale, is removed.

    Args:
        root: folder of the stages.
        stages: all of them, in their order.
        kind: `csv` or `parquet`.

    Returns:
        The file.
    """
    path = root / f"{STEM}.{kind}"
    with replacing(path) as unfinished:
        _WRITERS[kind](unfinished, stages)
    for other in _WRITERS.keys() - {kind}:
        (root / f"{STEM}.{other}").unlink(missing_ok=True)
    return path


def need_pyarrow(what: str) -> None:
    """Refuse what only pyarrow can write, where it is not installed.

    Args:
        what: the user asked for, as on the command line.
    """
    if find_spec("pyarrow") is None:
        raise ConfigError(f"{what} needs the package pyarrow, which is not installed: pip install pyarrow")


def _join_csv(path: Path, stages: Sequence[Done]) -> None:
    """The stages' own manifests, one after the other: to write 75,000 rows anew would take seconds."""
    with path.open("wb") as table:
        for number, stage in enumerate(stages):
            with (stage.folder / MANIFEST).open("rb") as manifest:
                header = manifest.readline()
                if number == 0:
                    table.write(header)
                shutil.copyfileobj(manifest, table)


def _write_parquet(path: Path, stages: Sequence[Done]) -> None:
    import pyarrow as pa  # an optional extra
    import pyarrow.parquet as pq

    def same(value: Any) -> Any:
        return value

    # By the type of the field; a type that is not here is our own bug, which the tests of this module find.
    kinds: dict[Any, tuple[Any, Callable[[Any], Any]]] = {
        str: (pa.string(), readable_name),
        bool: (pa.bool_(), same),
        int: (pa.int64(), same),
        int | None: (pa.int64(), same),
        float | None: (pa.float64(), same),
        dict[str, Any]: (pa.string(), lambda value: json.dumps(value, sort_keys=True)),
        tuple[str, ...]: (pa.list_(pa.string()), lambda value: [readable_name(text) for text in value]),
        tuple[tuple[float, float], ...] | None: (pa.list_(pa.list_(pa.float64())), same),
    }
    records = [record for stage in stages for record in stage.records]
    names = [column.name for column in fields(Record)]
    columns = []
    for name in names:
        kind, convert = kinds[get_type_hints(Record)[name]]
        columns.append(pa.array([convert(getattr(record, name)) for record in records], type=kind))
    pq.write_table(pa.table(columns, names=names), path)


_WRITERS: dict[str, Callable[[Path, Sequence[Done]], None]] = {"csv": _join_csv, "parquet": _write_parquet}
