import errno
import io
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from catsweep.data.decode import Unreadable
from catsweep.data.hub import HubCats, HubFiles
from catsweep.data.ready import open_or_build
from catsweep.errors import ConfigError, DataError, PlaceError
from catsweep.instantiation import instantiate
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.original import Original


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.kron(np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8), np.ones((20, 20, 1)))
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched, and nothing stays."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def write(path: Path, images: list[Any]) -> None:
    """A parquet file of a column of images, the only one of its set."""
    for other in path.parent.iterdir():
        other.unlink()
    column = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    kinds = datasets.Features({"image": datasets.Image()})
    pq.write_table(pa.table({"image": column}).replace_schema_metadata(kinds.arrow_schema.metadata), path)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """A set as the Hub shows it: parquet files with the images' bytes; one is no image, one is missing."""
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    content: list[bytes | None] = [*map(photo, range(4)), b"no image", None]
    images = [None if data is None else {"bytes": data, "path": None} for data in content]
    columns = {"image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})), "label": range(6)}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = pa.table(columns).replace_schema_metadata(kinds.arrow_schema.metadata)
    for split in ("train", "test"):
        pq.write_table(
            table.slice(0, 6 if split == "train" else 2), folder / "data" / f"{split}-00000-of-00001.parquet"
        )
    return folder


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A set of loose images in a folder for each split."""
    folder = tmp_path / "loose"
    for split, numbers in (("train", range(3)), ("test", range(3, 4))):
        (folder / split / "tabby").mkdir(parents=True)
        for number in numbers:
            (folder / split / "tabby" / f"{number}.jpg").write_bytes(photo(number))
    return folder


def test_a_set_in_parquet_is_read_as_the_bytes_that_it_holds(parquet: Path) -> None:
    files = HubFiles(str(parquet), "train", None)
    assert list(files) == [f"train/{row:07d}" for row in range(6)]
    assert [files.read(name) for name in list(files)[:5]] == [*map(photo, range(4)), b"no image"]
    assert files.size("train/0000001") == len(photo(1))
    assert ("train/0000005" in files, "train/0000006" in files, "test/0000000" in files) == (True, False, False)
    for name, reason in (
        ("train/0000005", "empty file"),
        ("train/0000006", "no such row"),
        ("photo.jpg", "no such row"),
    ):
        with pytest.raises(Unreadable, match=reason):
            files.read(name)
    with pytest.raises(Unreadable, match="at most 100 are read"):
        files.read("train/0000001", 100)


def test_it_makes_a_ready_set(parquet: Path, tmp_path: Path) -> None:
    ready = open_or_build(HubCats(str(parquet)), 32, tmp_path / "ready", 0.25)
    assert ready.path.name.startswith("hub_cats-32-")
    assert [(row.source, row.reason.split(":")[0]) for row in ready.rows if not row.kept] == [
        ("train/0000004", "not an image"), ("train/0000005", "empty file")
    ]  # fmt: skip
    assert len(ready) == 4
    before = HubCats(str(parquet)).key(32)
    assert HubCats(str(parquet), "test").key(32)["content"] != before["content"]
    assert HubCats(str(parquet), min_side=9).key(32) != before


def test_loose_images_are_read_and_pass_the_first_stage_of_preparation(loose: Path, tmp_path: Path) -> None:
    files = HubCats(str(loose)).files
    assert [files.read(name) for name in files] == [*map(photo, range(3))]
    assert len(list(HubCats(str(loose), split="test").files)) == 1
    stage = Original(files)
    done = build(stage, tmp_path / "0.original", tmp_path, stage.inputs())
    assert [record.source for record in done.kept] == ["train/0000000", "train/0000001", "train/0000002"]


@pytest.mark.security
@pytest.mark.parametrize(
    "named",
    [
        "{secret}", "{set}/../secret.jpg", "{set}/link.jpg", "{set}/linked/secret.jpg", "../secret.jpg", "secret.jpg",
        "file://{secret}", "http://127.0.0.1:1/x.jpg", "hf://datasets/a/b/x.jpg", "zip://x.jpg::{secret}", "~/x.jpg",
        "{set}\x00/x.jpg", "/proc/self/environ", "{set}", "{set}-beside/x.jpg",
    ],
)  # fmt: skip
def test_a_row_that_names_a_file_outside_of_the_set_reads_none(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    secret = tmp_path / "secret.jpg"
    for place in (secret, tmp_path / "set-beside" / "x.jpg"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(photo(9))
    (parquet / "link.jpg").symlink_to(secret)
    (parquet / "linked").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = [{"bytes": None, "path": named.format(secret=secret, set=parquet)}, {"bytes": photo(1), "path": None}]
    write(parquet / "data" / "train-00000-of-00001.parquet", rows)
    ready = open_or_build(HubCats(str(parquet)), 32, tmp_path / "ready", 0.5)
    refused = [row.reason.split(":")[0] for row in ready.rows if not row.kept]
    assert refused in (["not in the set"], ["not a regular file"])
    assert len(ready) == 1


@pytest.mark.security
def test_a_row_may_name_a_file_of_the_set(parquet: Path) -> None:
    (parquet / "loose").mkdir()
    (parquet / "loose" / "a.jpg").write_bytes(photo(3))
    write(parquet / "data" / "train-00000-of-00001.parquet", [{"bytes": None, "path": f"{parquet}/loose/a.jpg"}])
    assert HubFiles(str(parquet), "train", None).read("train/0000000") == photo(3)


@pytest.mark.security
def test_a_row_may_not_name_a_link_within_a_folder_of_ones_own(parquet: Path) -> None:
    (parquet / "a.jpg").write_bytes(photo(3))
    (parquet / "link.jpg").symlink_to("a.jpg")
    write(parquet / "data" / "train-00000-of-00001.parquet", [{"bytes": None, "path": f"{parquet}/link.jpg"}])
    with pytest.raises(Unreadable, match="not a regular file: a link"):
        HubFiles(str(parquet), "train", None).read("train/0000000")


@pytest.mark.security
@pytest.mark.parametrize("named", ["../private/*.jpg", "{private}/*.jpg", "{private}/a.jpg", "train/link/*.jpg"])
def test_a_card_that_names_files_outside_of_the_set_is_refused(loose: Path, tmp_path: Path, named: str) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "a.jpg").write_bytes(photo(9))
    (loose / "train" / "link").symlink_to(private)
    path = named.format(private=private)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ['{path}']\n---\n"
    (loose / "README.md").write_text(card)
    with pytest.raises(DataError, match=r"to hold its own data, but its card \(README\.md\) names '.*a\.jpg'"):
        HubFiles(str(loose), "train", None)


@pytest.mark.security
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("hf://datasets/a/cats@abc/data/x.parquet", True), ("https://example.com/x.parquet", True),
        ("hf://datasets/a/cats@abcd/x.parquet", False), ("hf://datasets/me/private@abc/x.parquet", False),
        ("/home/me/x.parquet", False), ("file:///home/me/x.parquet", False), ("x.parquet", False),
    ],
)  # fmt: skip
def test_the_card_of_a_set_on_the_hub_names_its_own_files(
    name: str, own: bool, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = datasets.load_dataset(str(parquet), split="train")
    card = SimpleNamespace(base_path="hf://datasets/a/cats@abc", config=SimpleNamespace(data_files={"train": [name]}))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda source: card)
    monkeypatch.setattr(datasets, "load_dataset", lambda source, split: rows)
    with nullcontext() if own else pytest.raises(DataError, match="to hold its own data"):
        assert len(list(HubFiles("a/cats", "train", None))) == 6


def test_no_image_is_looked_at_by_pillow(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("was opened"))
    files = HubFiles(str(parquet), "train", None)
    assert len([files.digest(name) for name in files]) == 6


def test_what_is_not_there_is_an_error_that_says_what_is(parquet: Path) -> None:
    with pytest.raises(ConfigError, match=r"data=hub_cats needs an image set: add data\.source=USER/NAME"):
        HubCats(None).key(32)
    with pytest.raises(DataError, match=r"column=label; of its columns image, label these hold images: image"):
        HubFiles(str(parquet), "train", "label")
    with pytest.raises(DataError, match=r"Expected split val .*Unknown split.*data\.reader\.split"):
        HubFiles(str(parquet), "val", None)


def test_two_columns_of_images_need_a_choice(tmp_path: Path) -> None:
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = datasets.Features({"photo": datasets.Image(), "mask": datasets.Image()})
    columns = {name: pa.array([{"bytes": photo(place), "path": None}], image) for place, name in enumerate(kinds)}
    (tmp_path / "two").mkdir()
    table = pa.table(columns).replace_schema_metadata(kinds.arrow_schema.metadata)
    pq.write_table(table, tmp_path / "two" / "train.parquet")
    with pytest.raises(DataError, match=r"data\.reader\.column=NAME, got column=None; .* hold images: photo, mask"):
        HubFiles(str(tmp_path / "two"), "train", None)
    assert HubFiles(str(tmp_path / "two"), "train", "mask").read("train/0000000") == photo(1)


def test_without_a_network_it_says_so_at_once(root: Path, tmp_path: Path) -> None:
    code = (
        "from catsweep.data import hub\n"
        "try: hub.HubFiles('somebody/cats', 'train', None)\n"
        "except hub.DataError as error: print(error)\n"
    )
    proxy = "http://127.0.0.1:9"  # nobody listens at the port for what is to be thrown away
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "HF_HOME": str(tmp_path)}
    environment |= {
        "HTTPS_PROXY": proxy,
        "HTTP_PROXY": proxy,
        "https_proxy": proxy,
        "http_proxy": proxy,
        "NO_PROXY": "",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Expected split train of a public image set somebody/cats, but: ConnectionError: ")
    assert "OfflineModeIsEnabled" in done.stdout  # asked once, and not again and again for half a minute
    assert "takes a network, but no account" in done.stdout
    assert "data=photos data.source=DIR" in done.stdout


def test_without_a_network_what_was_fetched_before_is_taken(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's part is played by the folder; `datasets` must be told that it may not ask."""
    real, offline = datasets.load_dataset, []

    def load(source: str, split: str) -> Any:
        offline.append(datasets.config.HF_HUB_OFFLINE)
        return real(str(parquet), split=split)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    builder = datasets.load_dataset_builder(str(parquet))
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda source: builder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for answer in (fail, lambda *_, **__: None):
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", answer)
        assert len(list(HubFiles("somebody/cats", "train", None))) == 6
        assert datasets.config.HF_HUB_OFFLINE is False
    assert offline == [True, False]


def test_an_id_that_cannot_be_one_is_an_error() -> None:
    with pytest.raises(DataError, match=r"Expected split train of a public image set a b/c\?, but: HFValidationError"):
        HubFiles("a b/c?", "train", None)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        HubFiles("somebody/cats", "train", None)


def test_the_configuration_makes_it_for_both_commands(root: Path, parquet: Path) -> None:
    with initialize_config_dir(str(root / "conf")):
        for command in ("train", "prepare"):
            words = ["data=hub_cats", f"data.source={parquet}", "data.reader.split=test"]
            reader: Any = instantiate(compose(command, overrides=words).data.reader)
            assert isinstance(reader, HubCats)
            assert len(list(reader.files)) == 2


@pytest.mark.security
def test_a_full_cache_is_told_as_one(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("I/O error") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "cache/huggingface/x.arrow")

    monkeypatch.setattr(datasets, "load_dataset", full)
    with pytest.raises(
        PlaceError, match=r"x\.arrow cannot be written: no space .* environment variable HF_HOME"
    ) as caught:
        HubFiles(str(loose), "train", None)
    assert "Check the id" not in str(caught.value)
