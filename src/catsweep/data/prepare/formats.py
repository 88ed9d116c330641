"""How loose files are laid out: single images, WebDataset shards, or Parquet as Hugging Face reads it.

Named by `_target_` in `formats` of conf/prepare.yaml; `catsweep.data.prepare.loose` writes with the one asked for.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from catsweep.data.prepare.loose import Format, Sample
from catsweep.data.prepare.table import need_pyarrow


class Images(Format):
    """One file per image, `train/KEY.jpg`, and beside them `metadata.jsonl`: where each comes from.

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


class Shards(Format):
    """WebDataset: tar files `train-000000.tar`, in which `KEY.jpg` and `KEY.json` are one sample.

    Source: https://github.com/webdataset/webdataset, "The WebDataset Format". Members carry no time and no owner, so
    the same images give the same bytes.

    Args:
        suffix: see `Format`.
        images: in one tar, at most.
    """

    mixed: ClassVar[bool] = True

    def __init__(self, suffix: str, images: int = 1000) -> None:
        super().__init__(suffix)
        self.images = images

    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """See `Format`."""
        for number in range(_files(n, self.images)):
            with tarfile.open(folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
                for sample in islice(samples, self.images):
                    _add(shard, sample.key + self.suffix, sample.data)
                    _add(shard, f"{sample.key}.json", json.dumps(sample.about).encode())


class Parquet(Format):
    """Parquet files `train-00000-of-00001.parquet` with a column `image` that Hugging Face shows as pictures.

    `datasets.load_dataset("parquet", data_dir=FOLDER)` reads them back as images, `val` as split `validation`.

    Args:
        suffix: see `Format`.
        images: in one file, at most.
    """

    mixed: ClassVar[bool] = True
    group: ClassVar[int] = 1000  # rows that are read together, and held in memory while they are written

    def __init__(self, suffix: str, images: int = 10_000) -> None:
        super().__init__(suffix)
        need_pyarrow("export=parquet")
        self.images = images

    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        """See `Format`."""
        import pyarrow as pa  # an optional extra
        import pyarrow.parquet as pq

        schema, files = self._schema(), _files(n, self.images)
        for number in range(files):
            part = islice(samples, self.images)
            with pq.ParquetWriter(folder / f"{split}-{number:05d}-of-{files:05d}.parquet", schema) as file:
                while rows := [self._row(sample) for sample in islice(part, self.group)]:
                    file.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _row(self, sample: Sample) -> dict[str, Any]:
        image = {"bytes": sample.data, "path": sample.key + self.suffix}
        return {"image": image, "split": sample.row.split, **sample.about}

    @staticmethod
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


def _files(n: int, at_most: int) -> int:
    return -(-n // at_most)


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # time 0, owner 0, mode 0644
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))
