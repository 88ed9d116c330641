import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import kagglehub
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from catsweep.data import sources
from catsweep.data.datamodule import CatDataModule
from catsweep.data.sources import KaggleCats
from catsweep.errors import ConfigError, DataError, PlaceError
from catsweep.instantiation import instantiate


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Kaggle gives, in a stand-in of its layout; `kagglehub` is asked as it would be."""
    folder = tmp_path / "versions" / "2"
    for part in ("CAT_00", "CAT_01"):
        (folder / part).mkdir(parents=True)
        pixels = np.random.default_rng(len(part)).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(np.kron(pixels, np.ones((20, 20, 1), np.uint8)))
        image.save(folder / part / "00000001_000.jpg")
        (folder / part / "00000001_000.jpg.cat").write_text("9 60 50 100 50 80 80" + " 50 20" * 6)

    def download(handle: str, path: str | None = None, *, force_download: bool = False, **_: Any) -> str:
        assert (handle, path, force_download) == ("crawford/cat-dataset", None, False)
        return str(folder)

    monkeypatch.setattr(kagglehub, "dataset_download", download)
    return folder


def test_the_fetched_photos_are_the_source(fetched: Path) -> None:
    items = list(KaggleCats(None, download=True).items(32))
    assert [(item.source, item.reason) for item in items] == [
        ("CAT_00/00000001_000.jpg", ""), ("CAT_01/00000001_000.jpg", "")
    ]  # fmt: skip
    assert KaggleCats(None, download=True).key(32) == KaggleCats(fetched).key(32)


def test_nothing_is_fetched_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", lambda *_, **__: pytest.fail("was fetched"))
    KaggleCats(None, download=True)  # only when the photos are needed
    with pytest.raises(ConfigError, match=r"data\.source=DIR \(or data\.download=true"):
        KaggleCats(None).key(32)
    with pytest.raises(ConfigError, match=r"either a download or data\.source="):
        KaggleCats(tmp_path, download=True).key(32)


@pytest.mark.parametrize(
    ("command", "word"),
    [("train", "data.download=true"), ("prepare", "download=true"), ("prepare", "data.download=true")],
)
def test_either_command_fetches_by_one_word(root: Path, fetched: Path, command: str, word: str) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = compose(command, overrides=["data=kaggle_cats", word])
        reader = instantiate(cfg.data.reader)
        assert len(list(reader.files)) == 2
        assert isinstance(instantiate(cfg.data, seed=0), CatDataModule)
        plain = compose(command, overrides=["data=kaggle_cats", f"data.source={fetched}"])
        assert len(list(instantiate(plain.data.reader).files)) == 2


def test_without_a_network_an_account_or_room_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("Max retries\n exceeded")

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    with pytest.raises(DataError) as caught:
        sources.download_kaggle()
    said = str(caught.value)
    assert "but: ConnectionError: Max retries exceeded. It takes a network" in said
    assert "KAGGLE_API_TOKEN" in said
    assert "data=kaggle_cats data.source=DIR" in said


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match=r"pip install kagglehub\. Or download .* in a browser"):
        sources.download_kaggle()


def test_what_was_fetched_as_an_archive_is_read_as_well(fetched: Path, tmp_path: Path) -> None:
    file = shutil.make_archive(str(tmp_path / "cat-dataset"), "zip", fetched)
    assert KaggleCats(file).key(32) == KaggleCats(fetched).key(32)


@pytest.mark.security
def test_a_full_cache_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "cache/kagglehub/x.zip")

    monkeypatch.setattr(kagglehub, "dataset_download", full)
    with pytest.raises(PlaceError, match=r"x\.zip cannot be written: no space .* environment variable KAGGLEHUB_CACHE"):
        sources.download_kaggle()
