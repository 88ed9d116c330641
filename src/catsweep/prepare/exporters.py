"""Exporters: write a ready set as files for other programs, `export=jpg|png|tar|parquet`.

Formats are nodes of `formats` in conf/prepare.yaml; one's own is a class derived from `Format` and a node there. A
folder data/loose/<name>-<size>-<format> holds

    train/ val/ …  files of the format
    card.json      key, format, digest of the ready set, counts

appears when it is complete, and is made again only for another ready set or other parameters.
"""

import hashlib
import io
import json
import math
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from catsweep.data.files import recorded_digest
from catsweep.data.ready import MANIFEST, ReadySet, Row
from catsweep.data.threads import in_order, watched
from catsweep.errors import ConfigError
from catsweep.folders import replacing_folder
from catsweep.instantiation import instantiate
from catsweep.ownership import FolderKind
from catsweep.prepare.image_files import encode
from catsweep.prepare.manifest import need_pyarrow
from catsweep.prepare.stages.original import identity
from steady.places import named
from steady.printing import readable_name

CARD = "card.json"
SPLITS = ("train", "val")
FORMATS_MODULE = "catsweep.data." + "prepare.formats"  # former module of the formats, in keys; split from rewrites
CODE = ("prepare/exporters.py", "prepare/image_files.py")
LOOSE = FolderKind("loose files", "root=DIR", (CARD, "train/*", "val/*", "train-*", "val-*"), sign=CARD)


@dataclass(frozen=True, slots=True)
class Sample:
    """Encoded image of a ready set."""

    key: str  # file name without suffix: unique, safe for any file system, without a dot
    data: bytes  # the file's bytes
    row: Row  # of the ready set

    @property
    def about(self) -> dict[str, Any]:
        """Metadata as JSON. `landmarks`: nine pairs x, y in pixels, or None; `copy`: see `Row`."""
        row, numbers = self.row, [float(word) for word in self.row.landmarks.split()]
        points = [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        names = {"source": readable_name(row.source), "sha256": row.sha256, "group": row.group, "copy": row.copy}
        return {**names, "landmarks": points or None}


@dataclass
class Format(ABC):
    """Base class of a layout of images in files."""

    # Whether the images come shuffled (always alike) rather than by name. Readers of a stream take neighbours into one
    # batch, and by name, those would be the copies of one photo.
    mixed: ClassVar[bool] = False

    suffix: str  # of the images in it: `.jpg` (quality 95) or `.png` (lossless)

    @abstractmethod
    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """Write the `n` samples, at least one and encoded lazily, of a split (`train` or `val`) into an own folder."""

    def parameters(self) -> dict[str, Any]:
        """Return all that decides the files, as JSON."""
        module = FORMATS_MODULE if type(self).__module__ == __name__ else type(self).__module__
        return {"class": f"{module}.{type(self).__qualname__}", **vars(self)}


def choose(export: str | None, formats: Mapping[str, Any]) -> Format | None:
    """Build the format named `export`, one of the nodes `formats`; None for None.

    Raises ConfigError if there is no such format, or it cannot be written as asked.
    """
    if export is None:
        return None
    if export not in formats:
        raise ConfigError(f"export must be null or one of {', '.join(formats)}; got {export!r}.")
    made = instantiate(formats[export])
    assert isinstance(made, Format), f"formats.{export} names {made}, which is no Format"
    return made


def write(ready: ReadySet, folder: Path, form: Format) -> Path:
    """Write a ready set in a format, unless `folder`, which is replaced as a whole, is current; return the folder.

    Raises TakenError if `folder` holds something that catsweep did not make.
    """
    wanted = _key(ready, form)
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((folder / CARD).read_text(encoding="utf-8"))["key"] == wanted:
            return folder
    with named(folder), replacing_folder(folder, LOOSE) as new:
        counts = _write_splits(ready, new, form)
        about = {"format": form.parameters(), "digest": ready.digest, "size": ready.size, "images": counts}
        (new / CARD).write_text(json.dumps({"key": wanted, **about}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def sample_key(row: Row) -> str:
    """Name an image of a ready set; see `Sample.key`. Copies of a photo are numbered."""
    return identity(row.source) + (f"-{row.copy:03d}" if row.copy else "")


def _write_splits(ready: ReadySet, folder: Path, form: Format) -> dict[str, int]:
    by_key = {sample_key(row): row for row in ready.rows if row.kept}
    assert len(by_key) == len(ready), "two images of a ready set have the same source and copy number"
    order = sorted(by_key, key=(lambda name: hashlib.sha256(name.encode()).hexdigest()) if form.mixed else None)

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


def _key(ready: ReadySet, form: Format) -> str:
    """Hash what decides the files: format, pixels, code, and the manifest for names, groups and landmarks."""
    parts = [json.dumps(form.parameters(), sort_keys=True).encode(), ready.digest.encode()]
    parts.append((ready.path / MANIFEST).read_bytes())
    digests = [hashlib.sha256(part).digest() for part in parts]
    return hashlib.sha256(b"".join([*digests, bytes.fromhex(recorded_digest(*CODE))])).hexdigest()


class Images(Format):
    """Single files, `train/KEY.jpg`, and beside them `metadata.jsonl`: where each comes from.

    `datasets.load_dataset("imagefolder", data_dir=FOLDER)` reads both, as does anything that reads pictures.
    """

    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """See `Format`."""
        place = folder / split
        place.mkdir()
        with (place / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as table:
            for sample in samples:
                name = sample.key + self.suffix
                (place / name).write_bytes(sample.data)
                table.write(json.dumps({"file_name": name, **sample.about}) + "\n")


@dataclass
class Shards(Format):
    """WebDataset: tar files `train-000000.tar`, in which `KEY.jpg` and `KEY.json` are one sample.

    Source: https://github.com/webdataset/webdataset, "The WebDataset Format". Members carry no time and no owner, so
    the same images give the same bytes.
    """

    mixed: ClassVar[bool] = True

    images: int = 1000  # in one tar, at most

    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """See `Format`."""
        for number in range(math.ceil(n / self.images)):
            with tarfile.open(folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
                for sample in islice(samples, self.images):
                    _add(shard, sample.key + self.suffix, sample.data)
                    _add(shard, f"{sample.key}.json", json.dumps(sample.about).encode())


@dataclass
class Parquet(Format):
    """Parquet files `train-00000-of-00001.parquet` with a column `image` that Hugging Face shows as pictures.

    `datasets.load_dataset("parquet", data_dir=FOLDER)` reads them back as images, `val` as split `validation`.
    """

    mixed: ClassVar[bool] = True
    group: ClassVar[int] = 1000  # rows that are read together, and held in memory while they are written

    images: int = 10_000  # in one file, at most

    def __post_init__(self) -> None:
        need_pyarrow("export=parquet")

    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """See `Format`."""
        import pyarrow as pa  # an optional extra
        import pyarrow.parquet as pq

        schema, files = _schema(), math.ceil(n / self.images)
        for number in range(files):
            part = islice(samples, self.images)
            with pq.ParquetWriter(folder / f"{split}-{number:05d}-of-{files:05d}.parquet", schema) as file:
                while rows := [self._row(sample) for sample in islice(part, self.group)]:
                    file.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _row(self, sample: Sample) -> dict[str, Any]:
        image = {"bytes": sample.data, "path": sample.key + self.suffix}
        return {"image": image, "split": sample.row.split, **sample.about}


def _schema() -> Any:
    """Column types, and what `datasets` has to know to take the structs of `image` for images."""
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = ("split", "source", "sha256", "group")
    text, number, real = ({"dtype": name, "_type": "Value"} for name in ("string", "int64", "float64"))
    # "Sequence" rather than the newer "List": every release of datasets reads it.
    points = {"feature": {"feature": real, "_type": "Sequence"}, "_type": "Sequence"}
    features = {"image": {"_type": "Image"}, **dict.fromkeys(texts, text), "copy": number, "landmarks": points}
    columns = [("image", image), *((name, pa.string()) for name in texts), ("copy", pa.int64())]
    columns.append(("landmarks", pa.list_(pa.list_(pa.float64()))))
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # time 0, owner 0, mode 0644
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))
