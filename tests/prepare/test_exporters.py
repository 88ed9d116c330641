import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from catsweep.data.ready import Item, ReadySet, Row, open_or_build
from catsweep.errors import ConfigError, PlaceError, TakenError
from catsweep.prepare.exporters import CARD, Format, Images, Sample, choose, sample_key, write
from catsweep.prepare.image_files import read_image
from steady.places import translated_errors


@pytest.fixture
def ready(fake: Callable, tmp_path: Path) -> ReadySet:
    return open_or_build(fake(12, refused=2, copies=2), 8, tmp_path / "ready", 0.34)


@pytest.fixture
def formats(root: Path) -> dict:
    return yaml.safe_load((root / "conf" / "prepare.yaml").read_text())["formats"]


def row(source: str, copy: int = 0) -> Row:
    return replace(Row.of(Item(source), 0), copy=copy)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


class Failing(Format):
    """Stops in the middle."""

    def write(self, folder: Path, split: str, n: int, samples: Iterator[Sample]) -> None:
        (folder / "first").write_bytes(next(samples).data)
        raise OSError(errno.ENOSPC, "no space left")


def test_no_export_is_no_format(formats: dict) -> None:
    assert choose(None, formats) is None


@pytest.mark.parametrize("export", ["gif", "", "JPG"])
def test_an_unknown_format_is_refused_by_name(export: str, formats: dict) -> None:
    with pytest.raises(ConfigError, match="export must be null or one of jpg, png, tar, parquet; got"):
        choose(export, formats)


@pytest.mark.parametrize("export", ["jpg", "png", "tar", "parquet"])
def test_the_same_ready_set_gives_the_same_bytes(export: str, ready: ReadySet, formats: dict, tmp_path: Path) -> None:
    form = choose(export, formats)
    assert form is not None
    first = snapshot(write(ready, tmp_path / "one", form))
    assert snapshot(write(ready, tmp_path / "two", form)) == first
    assert json.loads(first[CARD])["images"] == {"train": 8, "val": 4}


def test_what_is_there_is_not_written_again(ready: ReadySet, tmp_path: Path) -> None:
    folder = write(ready, tmp_path / "loose", Images(".png"))
    (folder / "mine").touch()
    assert write(ready, folder, Images(".png")) == folder
    assert (folder / "mine").exists()


def test_another_way_or_another_ready_set_replaces_it(
    ready: ReadySet, fake: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(ready, tmp_path / "loose", Images(".png"))
    write(ready, folder, Images(".jpg"))
    assert {file.suffix for file in (folder / "train").iterdir()} == {".jpg", ".jsonl"}
    other = open_or_build(fake(3, seed=1), 8, tmp_path / "ready", 0.3)
    write(other, folder, Images(".jpg"))
    assert len(list(folder.rglob("*.jpg"))) == 3
    (folder / CARD).write_text("{")
    write(other, folder, Images(".jpg"))
    assert json.loads((folder / CARD).read_text())["digest"] == other.digest


def test_a_failure_leaves_the_old_folder_whole_and_the_next_run_finishes(ready: ReadySet, tmp_path: Path) -> None:
    folder = write(ready, tmp_path / "loose", Images(".png"))
    before = snapshot(folder)
    cfg = OmegaConf.create({"root": str(tmp_path)})
    with (
        pytest.raises(PlaceError, match=r"loose cannot be written: no space is left.* root=DIR"),
        translated_errors(cfg),
    ):
        write(ready, folder, Failing(".png"))
    assert snapshot(folder) == before
    assert [file.name for file in sorted(tmp_path.glob("*loose*"))] == ["loose"]
    write(ready, folder, Images(".jpg"))
    assert [file.name for file in sorted(tmp_path.glob("*loose*"))] == ["loose"]
    assert "first" not in snapshot(folder)


def test_copies_of_a_photo_are_numbered() -> None:
    first, other, copy = sample_key(row("a/cat.jpg")), sample_key(row("b/cat.jpg")), sample_key(row("a/cat.jpg", 12))
    assert first != other
    assert copy == f"{first}-012"


@given(st.sets(st.tuples(st.text(max_size=3), st.integers(0, 2000)), max_size=30))
def test_names_are_unique_and_safe_whatever_the_sources_are_called(images: set[tuple[str, int]]) -> None:
    names = {sample_key(row(source, copy)) for source, copy in images}
    assert len({name.casefold() for name in names}) == len(images)
    assert all(name.isascii() and "." not in name and "/" not in name and len(name) < 64 for name in names)


def test_a_sample_tells_where_it_comes_from(ready: ReadySet) -> None:
    about = Sample("key", b"", ready.rows[-1]).about
    group = "group-0-5"
    assert about == {"source": "cat-11", "sha256": group, "group": group, "copy": 0, "landmarks": [[11.0, 11.0]] * 9}
    about = Sample("key", b"", row("caf\udce9.jpg")).about
    assert about == {"source": r"caf\xe9.jpg", "sha256": "", "group": "", "copy": 0, "landmarks": None}


def test_png_files_are_the_images(ready: ReadySet, tmp_path: Path) -> None:
    folder = write(ready, tmp_path / "loose", Images(".png"))
    kept = [one for one in ready.rows if one.kept]
    for one in kept:
        assert one.index is not None
        image = read_image(folder / one.split / f"{sample_key(one)}.png")
        np.testing.assert_array_equal(image, ready.images[one.index])


@pytest.mark.parametrize("change", ["landmarks", "group"])
def test_another_manifest_is_another_export(change: str, ready: ReadySet, tmp_path: Path) -> None:
    folder = write(ready, tmp_path / "loose", Images(".png"))
    before = (folder / "card.json").read_bytes()
    table = ready.path / "manifest.csv"
    old, new = {"landmarks": ("11.00", "11.50"), "group": ("group-0-5", "group-0-9")}[change]
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    write(ReadySet.open(ready.path), folder, Images(".png"))
    assert (folder / "card.json").read_bytes() != before


def test_a_set_without_held_out_photos_has_no_folder_for_them(fake: Callable, tmp_path: Path) -> None:
    ready = open_or_build(fake(1), 8, tmp_path / "ready", 0.0)
    folder = write(ready, tmp_path / "loose", Images(".jpg"))
    assert [place.name for place in folder.iterdir() if place.is_dir()] == list(dict.fromkeys(ready.splits))


@pytest.mark.security
def test_a_folder_of_the_user_is_not_replaced(ready: ReadySet, tmp_path: Path) -> None:
    (mine := tmp_path / "loose" / "train" / "mine.png").parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(TakenError, match=r"catsweep did not make train/mine\.png in it"):
        write(ready, tmp_path / "loose", Images(".png"))
    assert mine.exists()
