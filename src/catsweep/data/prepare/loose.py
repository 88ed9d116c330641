"""Loose files of a ready set, for other programs: `export=jpg|png|tar|parquet`.

After `catsweep.data.prepare.ready`, and only when asked for. The formats are nodes of `formats` in conf/prepare.yaml;
one's own is a class derived from `Format` and a node there. A folder data/loose/<name>-<size>-<format> holds

    train/ val/ …  what the format makes of it
    card.json      key, format, digest of the ready set, counts

appears at once when it is complete, and is made again only for another ready set or in another way.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from catsweep.data.prepare.images import encode
from catsweep.data.prepare.original import identity
from catsweep.data.ready import MANIFEST, ReadySet, Row
from catsweep.data.threads import in_order, watched
from catsweep.errors import ConfigError
from catsweep.folders import replacing_folder
from catsweep.instantiation import instantiate
from catsweep.ownership import Kind
from steady.places import named
from steady.printing import readable_name

CARD = "card.json"
SPLITS = ("train", "val")
LOOSE = Kind("loose files", "root=DIR", (CARD, "train/*", "val/*", "train-*", "val-*"), sign=CARD)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a file.

    Attributes:
        key: its name without suffix: unique, safe for any file system, and without a dot.
        data: the file's bytes.
        row: what the ready set knows of it.
    """

    key: str
    data: bytes
    row: Row

    @property
    def about(self) -> dict[str, Any]:
        """Where the image comes from, as JSON. `landmarks`: nine pairs x, y in pixels, or None; `copy`: see `Row`."""
        numbers = [float(word) for word in self.row.landmarks.split()]
        points = [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        row = self.row
        names = {"source": readable_name(row.source), "sha256": row.sha256, "group": row.group, "copy": row.copy}
        return {**names, "landmarks": points or None}


class Format(ABC):
    """A way to lay images out in files.

    Attributes:
        suffix: of the images in it: `.jpg` (quality 95) or `.png` (lossless).
        mixed: whether the images come in a mixed order (always the same) rather than by name. Readers of a stream
            take neighbours into one batch, and by name, those would be the copies of one photo.
    """

    mixed: ClassVar[bool] = False

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    @abstractmethod
    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """Write one split, which is not empty.

        Args:
            folder: exists, and is this format's own.
            split: `train` or `val`.
            n: number of samples.
            samples: in the order in which they are to be written; encoded as they are asked for.
        """

    def parameters(self) -> dict[str, Any]:
        """All that decides what the files look like, as JSON."""
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", **vars(self)}


def choose(export: str | None, formats: Mapping[str, Any]) -> Format | None:
    """The format that a user asks for; None if none is.

    Args:
        export: its name.
        formats: nodes that name a class, by name.

    Raises:
        ConfigError: there is no such format, or it cannot be written as asked.
    """
    if export is None:
        return None
    if export not in formats:
        raise ConfigError(f"export must be null or one of {', '.join(formats)}; got {export!r}.")
    made = instantiate(formats[export])
    assert isinstance(made, Format), f"formats.{export} names {made}, which is no Format"
    return made


def write(ready: ReadySet, folder: Path, form: Format) -> Path:
    """Write a ready set as loose files, unless they are there.

    Args:
        ready: what to write.
        folder: where; what was written there before is replaced as a whole.
        form: how.

    Returns:
        The folder.

    Raises:
        OSError: it cannot be written.
        TakenError: in its place is something that catsweep did not make.
    """
    wanted = _key(ready, form)
    if _is_current(folder, wanted):
        return folder
    with named(folder), replacing_folder(folder, LOOSE) as new:
        counts = _write_splits(ready, new, form)
        card = {
            "key": wanted,
            "format": form.parameters(),
            "digest": ready.digest,
            "size": ready.size,
            "images": counts,
        }
        (new / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def key(row: Row) -> str:
    """The name of an image of a ready set; see `Sample.key`. Copies of a photo are numbered."""
    return identity(row.source) + (f"-{row.copy:03d}" if row.copy else "")


def _write_splits(ready: ReadySet, folder: Path, form: Format) -> dict[str, int]:
    by_key = {key(row): row for row in ready.rows if row.kept}
    assert len(by_key) == len(ready), "two images of a ready set have the same source and copy number"
    order = sorted(by_key, key=_mixed if form.mixed else None)

    def sample(name: str) -> Sample:
        row = by_key[name]
        assert row.index is not None
        return Sample(name, encode(ready.images[row.index], form.suffix), row)

    counts = {}
    for split in SPLITS:
        chosen = [name for name in order if by_key[name].split == split]
        if chosen:
            form.write(folder, split, len(chosen), watched(in_order(sample, chosen), len(chosen), f"loose {split}"))
            counts[split] = len(chosen)
    return counts


def _mixed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _key(ready: ReadySet, form: Format) -> str:
    """Equal keys, equal files. The manifest is in it for the names, groups and landmarks."""
    parts = [json.dumps(form.parameters(), sort_keys=True).encode(), ready.digest.encode()]
    parts += [(ready.path / MANIFEST).read_bytes(), *(_HERE.with_name(name).read_bytes() for name in _CODE)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _is_current(folder: Path, key: str) -> bool:
    try:
        return bool(json.loads((folder / CARD).read_text(encoding="utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


_HERE = Path(__file__)
_CODE = ("loose.py", "formats.py", "stage.py")
