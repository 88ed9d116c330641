import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catsweep.data.ready import ReadySet, open_or_build
from catsweep.prepare.exporters import Format, Images, Parquet, Shards, write


@pytest.fixture
def ready(fake: Callable, tmp_path: Path) -> ReadySet:
    return open_or_build(fake(12, copies=2), 8, tmp_path / "ready", 0.34)


@pytest.fixture
def by_source(ready: ReadySet) -> dict[str, np.ndarray]:
    return {row.source: ready.images[row.index] for row in ready.rows}


def read(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_images_have_a_table_beside_them(ready: ReadySet, tmp_path: Path) -> None:
    folder = write(ready, tmp_path / "loose", Images(".jpg"))
    lines = [json.loads(line) for line in (folder / "val" / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == sorted(file.name for file in (folder / "val").glob("*.jpg"))
    assert {line["source"] for line in lines} == {row.source for row in ready.rows if row.split == "val"}


def test_shards_hold_whole_samples_in_the_layout_of_webdataset(
    ready: ReadySet, by_source: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = write(ready, tmp_path / "loose", Shards(".png", images=3))
    shards = sorted(file.name for file in folder.glob("*.tar"))
    assert shards == ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar", "val-000001.tar"]
    seen = []
    for name in shards:
        with tarfile.open(folder / name) as shard:
            members = shard.getmembers()
            assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
            for image, about in zip(members[::2], members[1::2], strict=True):
                # A reader of the stream takes neighbours with the same name up to the first dot for one sample.
                assert image.name.split(".", 1) == [about.name.split(".", 1)[0], "png"]
                told = json.loads(shard.extractfile(about).read())
                np.testing.assert_array_equal(read(shard.extractfile(image).read()), by_source[told["source"]])
                seen.append((name.split("-")[0], told["source"]))
    assert sorted(seen) == sorted((row.split, row.source) for row in ready.rows)
    # Copies of a photo are not neighbours, as they would be by name.
    assert [source for split, source in seen if split == "train"] != sorted(s for split, s in seen if split == "train")


def test_parquet_has_pictures_and_where_they_come_from(
    ready: ReadySet, by_source: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = write(ready, tmp_path / "loose", Parquet(".png", images=5))
    files = sorted(file.name for file in folder.glob("*.parquet"))
    assert files == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val-00000-of-00001.parquet"]
    rows = [row for name in files for row in pq.read_table(folder / name).to_pylist()]
    assert sorted(row["source"] for row in rows) == sorted(by_source)
    for row in rows:
        np.testing.assert_array_equal(read(row["image"]["bytes"]), by_source[row["source"]])
    assert {row["split"] for row in rows} == {"train", "val"}


@pytest.mark.parametrize(
    ("form", "builder"),
    [(Images(".jpg"), "imagefolder"), (Images(".png"), "imagefolder"), (Shards(".jpg"), "webdataset"),
     (Parquet(".jpg"), "parquet"), (Parquet(".png", images=5), None)],
    ids=["jpg", "png", "tar", "parquet", "unnamed"],
)  # fmt: skip
def test_hugging_face_reads_it_back_as_images(
    form: Format, builder: str | None, ready: ReadySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    folder = write(ready, tmp_path / "loose", form)
    where = {"path": str(folder)} if builder is None else {"path": builder, "data_dir": str(folder)}
    loaded = datasets.load_dataset(**where, cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 8, "validation": 4}
    sources = {row.source for row in ready.rows}
    for row in (row for rows in loaded.values() for row in rows):
        column = form.suffix[1:] if builder == "webdataset" else "image"
        about = row["json"] if builder == "webdataset" else row
        assert isinstance(row[column], Image.Image)
        assert row[column].size == (8, 8)
        assert about["source"] in sources
        assert np.shape(about["landmarks"]) == (9, 2)
        assert "label" not in row
