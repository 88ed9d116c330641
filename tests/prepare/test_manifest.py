import csv
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catsweep.prepare.manifest import Record, read_manifest, rounded, write_manifest

# What Python makes of any file name, and any text.
TEXT = st.one_of(st.text(max_size=12), st.binary(max_size=12).map(os.fsdecode))
NAMED = ("id", "file")  # are part of paths
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
LANDMARKS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=9, max_size=9).map(tuple)
RECORDS = st.builds(
    Record,
    **{column.name: TEXT for column in fields(Record) if column.type is str and column.name not in ("mark", *NAMED)},
    **dict.fromkeys(NAMED, st.text("abc-_é猫0", max_size=12)),
    mark=st.text("0123456789abcdef"),
    kept=st.booleans(),
    parameters=st.dictionaries(TEXT, JSON, max_size=3),
    confidence=st.none() | NUMBERS,
    doubts=st.lists(TEXT, max_size=3).map(tuple),
    width=st.integers(0),
    height=st.integers(0),
    bytes=st.integers(0),
    landmarks=st.none() | LANDMARKS,
    index=st.none() | st.integers(0),
)
ODD = Record(
    "zoom",
    "a-1",
    'caf\udce9\r\n"cat", again\r.jpg',
    reason="not an image: \x00\x85\u2028;",
    doubts=("two\nlines: 1", "", "no face: \r", '["'),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RECORDS, max_size=4))
@example([ODD, replace(ODD, index=0, confidence=0.0), Record("", "", "")])
def test_a_manifest_gives_back_what_was_written(tmp_path: Path, records: list[Record]) -> None:
    write_manifest(tmp_path / "manifest.csv", records)
    assert list(read_manifest(tmp_path / "manifest.csv")) == records
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.csv"]


@pytest.mark.security
@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-A1", "@SUM(1)", "\t=1", "\uff1d1", "'=1", ' "=1'])
def test_no_text_is_a_formula_for_a_spreadsheet_and_none_is_lost(tmp_path: Path, name: str) -> None:
    record = Record("zoom", "a", name, reason=name, operation=name, doubts=(name,), confidence=-0.5)
    write_manifest(path := tmp_path / "manifest.csv", [record])
    with path.open(newline="") as file:
        row = next(csv.DictReader(file))
    for column in ("source", "reason", "operation"):
        assert row[column].lstrip(' \t"').startswith("'")
    assert row["confidence"] == "-0.5"
    assert list(read_manifest(path)) == [record]


@settings(max_examples=50)
@given(RECORDS)
@example(ODD)
def test_a_line_gives_back_what_was_written(record: Record) -> None:
    line = record.to_json()
    assert line.isascii()
    assert "\n" not in line
    assert Record.from_json(line) == record


def test_names_that_are_not_utf_8_keep_their_bytes(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.csv", [replace(ODD, source=os.fsdecode(b"caf\xe9.jpg"))])
    assert b"caf\xe9.jpg" in (tmp_path / "manifest.csv").read_bytes()


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> Iterator[Record]:
        yield ODD
        raise ZeroDivisionError

    write_manifest(tmp_path / "manifest.csv", [ODD])
    with pytest.raises(ZeroDivisionError):
        write_manifest(tmp_path / "manifest.csv", broken())
    assert list(read_manifest(tmp_path / "manifest.csv")) == [ODD]


def test_a_row_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(path, [Record("zoom", "a", "a.jpg", digest="d", mark="m")])
    path.write_bytes(path.read_bytes().removesuffix(b",m\r\n"))
    with pytest.raises(ValueError, match="cut off"):
        list(read_manifest(path))


def test_refusing_and_doubting_leave_the_rest_as_it_is() -> None:
    record = Record("zoom", "a", "a.jpg", doubts=("blurred: 3",), width=7)
    assert record.refuse("no face: none found") == replace(record, kept=False, reason="no face: none found")
    assert record.doubt("dark: 1", "small: 2").doubts == ("blurred: 3", "dark: 1", "small: 2")
    assert record.kept
    assert record.doubts == ("blurred: 3",)


def test_landmarks_are_kept_to_the_hundredth_of_a_pixel() -> None:
    points = np.array([[1.004, -2.006]] * 9)
    record = Record("", "a", "a.jpg", landmarks=rounded(points))
    assert record.landmarks == ((1.0, -2.01),) * 9
    assert record.points is not None
    np.testing.assert_array_equal(record.points, [[1.0, -2.01]] * 9)
    assert Record("", "a", "a.jpg").points is None


@pytest.mark.security
@pytest.mark.parametrize("column", NAMED)
@pytest.mark.parametrize("name", ["../../victim", "/etc/passwd", "..", "a\\b", "a\0b"])
def test_a_record_that_names_a_file_elsewhere_is_damaged(tmp_path: Path, column: str, name: str) -> None:
    """Else what a stage takes over from an earlier build could be any file, and be linked over any other."""
    record = replace(Record("zoom", "a-1", "a.jpg"), **{column: name})
    write_manifest(tmp_path / "manifest.csv", [record])
    with pytest.raises(ValueError, match="is no name"):
        list(read_manifest(tmp_path / "manifest.csv"))
    with pytest.raises(ValueError, match="is no name"):
        Record.from_json(record.to_json())
