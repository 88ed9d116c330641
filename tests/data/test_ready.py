import csv
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catsweep.data.ready import (
    CARD,
    IMAGES,
    MANIFEST,
    TRAIN,
    VAL,
    Item,
    ReadySet,
    Row,
    contact_sheet,
    create_images,
    digest,
    find_ready_set,
    open_or_build,
    pick,
    read_manifest,
    split,
    write_manifest,
)
from catsweep.errors import DataError


@pytest.fixture
def built(fake: Callable, tmp_path: Path) -> Path:
    return open_or_build(fake(20, refused=3, copies=2), 16, tmp_path, 0.2).path


def test_a_folder_is_all_it_takes(built: Path, tmp_path: Path) -> None:
    moved = built.rename(tmp_path / "elsewhere")
    ready = ReadySet.open(str(moved))
    assert len(ready) == 20
    assert ready.size == 16
    assert ready.images.shape == (20, 16, 16, 3)
    assert ready.images.dtype == np.uint8
    assert isinstance(ready.images, np.memmap)
    assert not ready.images.flags.writeable
    ready.verify()


def test_the_splits_cover_every_image_once_and_match_the_manifest(built: Path) -> None:
    ready = ReadySet.open(built)
    train, val = ready.indices("train"), ready.indices("val")
    assert sorted([*train, *val]) == list(range(20))
    assert len(val) == 4
    assert [row.split for row in ready.rows if row.kept] == list(ready.splits)
    groups = [row.group for row in ready.rows if row.kept]
    assert not {groups[i] for i in train} & {groups[i] for i in val}


def test_refused_photos_are_in_the_manifest_without_a_place(built: Path) -> None:
    refused = [row for row in ReadySet.open(built).rows if not row.kept]
    assert [row.source for row in refused] == ["bad-0", "bad-1", "bad-2"]
    assert {(row.index, row.reason, row.split) for row in refused} == {(None, "empty file", "")}


def test_the_digest_changes_with_a_pixel_a_split_or_the_shape() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    splits = ["train", "train", "val", "train", "val"]
    before = digest(images, splits)
    assert digest(images.copy(), tuple(splits)) == before
    other = images.copy()
    other[4, 7, 7, 2] ^= 1
    assert digest(other, splits) != before
    assert digest(images, [*splits[:-1], "train"]) != before
    assert digest(images.reshape(5, 4, 16, 3), splits) != before


def test_verify_notices_a_changed_pixel(built: Path) -> None:
    images = np.load(built / IMAGES, mmap_mode="r+")
    images[7, 3, 3, 1] ^= 1
    images.flush()
    with pytest.raises(DataError, match="pixels and splits give"):
        ReadySet.open(built).verify()


def shorten(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])


def drop_last_image(file: Path) -> None:
    np.save(file, np.load(file)[:-1])


def other_type(file: Path) -> None:
    np.save(file, np.load(file).astype(np.int16))


def no_digest(file: Path) -> None:
    card = json.loads(file.read_text())
    del card["digest"]
    file.write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (IMAGES, Path.unlink),
        (IMAGES, shorten),
        (IMAGES, drop_last_image),
        (IMAGES, other_type),
        (IMAGES, lambda file: file.write_bytes(b"")),
        (IMAGES, lambda file: np.save(file, np.array([{}]), allow_pickle=True)),
        (MANIFEST, Path.unlink),
        (MANIFEST, shorten),
        (MANIFEST, lambda file: file.write_text("what,ever\n1,2\n")),
        (CARD, Path.unlink),
        (CARD, shorten),
        (CARD, no_digest),
        (CARD, lambda file: file.write_text("[]")),
    ],
)
def test_a_damaged_set_is_refused_with_the_remedy(built: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(built / name)
    with pytest.raises(DataError, match=r"Expected a complete ready set .* Delete that folder"):
        ReadySet.open(built)


def test_a_folder_that_is_no_ready_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected a complete ready set"):
        ReadySet.open(tmp_path / "nothing")


names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=1, max_size=20).map(lambda name: name.decode("utf-8", "surrogateescape")),
    st.sampled_from(["a,b.jpg", 'say "cat".jpg', "two\nlines.jpg", "carriage\rreturn.jpg", " blank .jpg", "süß.jpg"]),
)


@given(source=names, reason=st.sampled_from(["", "empty file", "damaged or truncated: a, b"]), width=st.integers(0, 9))
def test_the_manifest_keeps_any_file_name(
    tmp_path_factory: pytest.TempPathFactory, source: str, reason: str, width: int
) -> None:
    item = Item(source, "g", "s", width, 7, reason=reason)
    rows = [Row.of(item, None if reason else 0), Row.of(Item("plain.jpg", landmarks=np.ones((9, 2))), 1)]
    file = tmp_path_factory.getbasetemp() / "manifest.csv"
    write_manifest(file, rows)
    assert list(read_manifest(file)) == rows


@pytest.mark.security
@given(
    st.lists(st.sampled_from(["=", "+", "-", "@", "'", "\t", "\r", ";", " ", "1", "a", "\uff1d"]), max_size=6).map(
        "".join
    )
)
def test_the_manifest_holds_no_formula_and_gives_back_the_name(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    row = Row(0, f"={name}", "", "", "train", True, name, 4, 4, "-0.50 1.00")
    write_manifest(path := tmp_path_factory.getbasetemp() / "formulas.csv", [row])
    with path.open(newline="") as file:
        cells = next(csv.DictReader(file))
    assert cells["source"].startswith("'=")
    assert not cells["reason"].startswith(("=", "@", "\t", "\r", "-a", "+a"))
    assert cells["landmarks"] == "-0.50 1.00"
    assert list(read_manifest(path)) == [row]


@pytest.mark.security
def test_images_have_their_room_before_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To write into a hole of a mapped file on a full disk ends the process, without a word."""
    asked: list[tuple[int, int]] = []

    def full(_: int, start: int, length: int) -> None:
        asked.append((start, length))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as caught:
        create_images(tmp_path, 7, 16)
    assert caught.value.filename == str(tmp_path / IMAGES)
    assert asked == [(0, (tmp_path / IMAGES).stat().st_size)]
    assert asked[0][1] >= 7 * 16 * 16 * 3


def deeply_nested(file: Path) -> None:
    file.write_text("[" * 100_000)


def endless_number(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n": 0}).replace('"n": 0', '"n": 1e400'))


def nested_header(file: Path) -> None:
    header = (b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"1,)}").ljust(9990) + b"\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


@pytest.mark.security
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (CARD, deeply_nested),
        (CARD, endless_number),
        (CARD, lambda file: file.write_text(re.sub('"n": [0-9]+', '"n": NaN', file.read_text()))),
        (CARD, lambda file: file.write_bytes(b"\xff\xfe")),
        (MANIFEST, lambda file: file.write_text(f"index,copy\n{'9' * 5000},1\n")),
        (MANIFEST, lambda file: file.write_text("a" * 1_000_000)),
        (IMAGES, nested_header),
    ],
)
def test_a_set_that_cannot_be_read_is_named_and_in_nobodys_way(
    built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], object]
) -> None:
    digest = ReadySet.open(built).digest
    shutil.copytree(built, bad := built.with_name("a-bad-one"))
    damage(bad / name)
    with pytest.raises(DataError, match=r"Expected a complete ready set .*a-bad-one"):
        ReadySet.open(bad)
    found = find_ready_set(digest, [built.parent])
    assert found is not None
    assert found.path == built
    assert f"{bad} is passed over: " in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 1706])
def test_at_most_a_hundred_are_picked_from_first_to_last(n: int) -> None:
    chosen = pick(n)
    assert len(chosen) == min(n, 100)
    assert chosen[0] == 0
    assert chosen[-1] == n - 1
    assert (np.diff(chosen) > 0).all()


def test_images_stand_in_rows_on_white() -> None:
    images = np.stack([np.full((4, 6, 3), value, dtype=np.uint8) for value in (10, 20, 30)])
    sheet = contact_sheet(images, columns=2, gap=1)
    assert sheet.shape == (2 * 5 + 1, 2 * 7 + 1, 3)
    assert (sheet[1:5, 1:7] == 10).all()
    assert (sheet[1:5, 8:14] == 20).all()
    assert (sheet[6:10, 1:7] == 30).all()
    assert (sheet[6:10, 8:14] == 255).all()
    assert (sheet[0] == 255).all()


def test_a_single_image_gets_a_sheet_of_its_own_size() -> None:
    assert contact_sheet(np.zeros((1, 4, 4, 3), dtype=np.uint8)).shape == (8, 8, 3)


labels = st.lists(st.integers(0, 60).map(str), min_size=1, max_size=120)
fractions = st.floats(0, 0.95)


@given(groups=labels, fraction=fractions)
def test_no_group_is_divided(groups: list[str], fraction: float) -> None:
    splits = split(groups, fraction)
    assert len(splits) == len(groups)
    assert not {g for g, s in zip(groups, splits, strict=True) if s == TRAIN} & {
        g for g, s in zip(groups, splits, strict=True) if s == VAL
    }


@given(groups=labels, fraction=fractions, data=st.data())
def test_the_order_does_not_matter(groups: list[str], fraction: float, data: st.DataObject) -> None:
    before = dict(zip(groups, split(groups, fraction), strict=True))
    shuffled = data.draw(st.permutations(groups))
    assert dict(zip(shuffled, split(shuffled, fraction), strict=True)) == before


@given(groups=st.lists(st.text(), min_size=2, max_size=200, unique=True), fraction=fractions)
def test_of_different_photos_exactly_the_fraction_is_held_out(groups: list[str], fraction: float) -> None:
    held = split(groups, fraction).count(VAL)
    wanted = round(fraction * len(groups))
    if fraction == 0:
        assert held == 0
    else:
        assert held == min(max(wanted, 1), len(groups) - 1)


@given(groups=labels, fraction=st.floats(0.001, 0.95))
def test_with_two_groups_neither_split_is_empty(groups: list[str], fraction: float) -> None:
    splits = split(groups, fraction)
    assert TRAIN in splits
    assert (VAL in splits) == (len(set(groups)) > 1)


@given(sizes=st.lists(st.integers(1, 5), min_size=10, max_size=60), fraction=st.floats(0.2, 0.5))
def test_copies_do_not_carry_the_fraction_far_off(sizes: list[int], fraction: float) -> None:
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    held = split(groups, fraction).count(VAL)
    assert round(fraction * len(groups)) - 5 < held <= round(fraction * len(groups))


def test_a_photo_more_moves_few_others() -> None:
    groups = [str(number) for number in range(1000)]
    before, after = split(groups, 0.1), split([*groups, "new"], 0.1)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 2
