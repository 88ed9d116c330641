import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from catsweep.prepare import preparation_report
from catsweep.prepare.manifest import Record
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stage_cache import by_count, summary


def stage(name: str, records: Iterable[Record], **keeping: str) -> StageOutput:
    words = {kind.replace("_", " "): word for kind, word in keeping.items()}
    return StageOutput(Path(name), tuple(records), {"stage": name, "keeping": words})


def record(name: str, number: int, reason: str = "", *doubts: str) -> Record:
    photo = Record(name, f"{number}", f"{number}.jpg", doubts=doubts)
    return photo.refuse(reason) if reason else photo


@pytest.fixture
def done() -> list[StageOutput]:
    """Ten photos: one is empty, one small, three are in doubt for one or two reasons."""
    small, wrong = "photo too small: 9 x 9", "empty file"
    cut, lost, near = "cut off: 50 %", "no face found: the middle", "near-duplicate: of 3.jpg"
    first = [record("original", n, {0: wrong, 1: small}.get(n, "")) for n in range(10)]
    doubtful = {2: (cut, near), 3: (cut, lost), 4: (lost,), 5: ("odd: a stage of one's own",)}
    verified = [
        record("verify", n, f"in doubt: {'; '.join(word for word in doubtful[n] if word != near)}", *doubtful[n])
        if n in doubtful else record("verify", n) for n in range(2, 10)
    ]  # fmt: skip
    return [
        stage("original", first, photo_too_small="original.min_side=1"),
        stage("zoom", [record("zoom", n) for n in range(2, 10)], cut_off="zoom.whole=always"),
        stage("verify", verified),
    ]


def test_each_reason_is_counted_with_what_keeps_such_photos(done: list[StageOutput]) -> None:
    left = preparation_report.count_exclusions(done)
    assert (left.found, left.used) == (10, 4)
    assert [(loss.stage, loss.kind, loss.count, loss.keeping) for loss in left.losses] == [
        ("verify", "cut off", 2, "zoom.whole=always"),
        ("verify", "no face found", 2, "'verification.tolerate=[near-duplicate,no face found]'"),
        ("original", "empty file", 1, ""),
        ("verify", "odd", 1, "'verification.tolerate=[near-duplicate,odd]'"),
        ("original", "photo too small", 1, "original.min_side=1"),
    ]


def test_the_log_names_them(done: list[StageOutput]) -> None:
    first, *table, _ = preparation_report.exclusion_lines(preparation_report.count_exclusions(done))
    assert "4 OF 10 PHOTOS (40.0 %)" in first
    assert table[0].split() == ["2", "verify:", "cut", "off", "zoom.whole=always"]
    assert table[2].split() == ["1", "original:", "empty", "file", "nothing"]


def test_links_pipes_and_texts_are_no_photos(done: list[StageOutput]) -> None:
    before = preparation_report.count_exclusions(done)
    other = [record("original", 10, "not an image: none of JPEG"), record("original", 11, "not a regular file: a pipe")]
    more = [replace(done[0], records=(*done[0].records, *other)), *done[1:]]
    assert (preparation_report.count_exclusions(more).found, preparation_report.count_exclusions(more).share) == (
        10,
        "40.0 %",
    )
    assert preparation_report.exclusion_lines(
        preparation_report.count_exclusions(more)
    ) == preparation_report.exclusion_lines(before)


@pytest.mark.parametrize(
    ("used", "few", "many"),
    [(10, False, False), (8, False, False), (7, False, True), (5, False, True), (4, True, True)],
)
def test_few_and_much(used: int, few: bool, many: bool) -> None:
    left = preparation_report.Exclusions(10, used, ())
    assert (left.few, left.many) == (few, many)


def test_copies_of_a_photo_are_one_photo() -> None:
    copies = [Record("augment", f"{n}", "0.jpg") for n in range(5)]
    left = preparation_report.count_exclusions(
        [stage("original", [record("original", n) for n in range(3)]), stage("augment", copies)]
    )
    assert (left.found, left.used, left.few) == (3, 1, True)


def test_one_image_is_no_images() -> None:
    card = {"stage": "x", "counts": {"records": 1, "kept": 1, "doubtful": 0, "refused": {}}}
    assert summary(StageOutput(Path(), (), card)) == "x: 1 image, 1 kept"


def test_reasons_are_in_the_same_order_when_they_are_read_again() -> None:
    refused = {"b": 1, "empty file": 3, "a": 1, "z": 7}
    card = {"stage": "x", "counts": {"records": 12, "kept": 0, "doubtful": 0, "refused": refused}}
    again = json.loads(json.dumps(card, sort_keys=True))
    assert summary(StageOutput(Path(), (), card)) == summary(StageOutput(Path(), (), again))
    assert "(7 z, 3 empty file, 1 a, 1 b)" in summary(StageOutput(Path(), (), again))
    assert by_count({}) == []
