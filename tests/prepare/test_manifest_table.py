import csv
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catsweep.errors import ConfigError
from catsweep.prepare.manifest import MANIFEST, Record, check_kind, read_manifest, write_manifest, write_table
from catsweep.prepare.stage import StageOutput
from steady.printing import readable_name

Made = Callable[[Sequence[Record]], list[StageOutput]]

CAFE = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
RECORDS = [
    Record(
        "original", "cat-1", "a/cat.jpg", "ab" * 32, "g1", "train", True, "", "decode", {"width": 4, "a": "é"}, 0.5,
        ("blurred: 3", "dark: 1"), 4, 5, 6, tuple((float(i), i / 4) for i in range(9)), "cat-1.jpg", 7, "d", "m",
    ),
    Record("original", "caf-2", CAFE, kept=False, reason=f"copy: of {CAFE}", doubts=(f"like: {CAFE}",)),
]  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two stages that share some records between them."""
    (tmp_path / "table").mkdir()

    def stages(records: Sequence[Record]) -> list[StageOutput]:
        halves = []
        for number, half in enumerate((records[:1], records[1:])):
            folder = tmp_path / f"stage-{number}"
            folder.mkdir(exist_ok=True)
            write_manifest(folder / MANIFEST, half)
            halves.append(StageOutput(folder, tuple(half), {}))
        return halves

    return stages


def test_a_table_of_csv_has_every_record_as_it_is(tmp_path: Path, made: Made) -> None:
    path = write_table(tmp_path / "table", made(RECORDS), "csv")
    assert path == tmp_path / "table" / "manifest.csv"
    assert list(read_manifest(path)) == RECORDS


def test_a_table_of_parquet_has_the_same_columns_typed(tmp_path: Path, made: Made) -> None:
    table = pq.read_table(write_table(tmp_path / "table", made(RECORDS), "parquet"))
    assert table.column_names == [column.name for column in fields(Record)]
    first, second = table.to_pylist()
    assert json.loads(first.pop("parameters")) == {"width": 4, "a": "é"}
    expected: dict[str, Any] = {name: getattr(RECORDS[0], name) for name in first}
    points = [[float(i), i / 4] for i in range(9)]
    assert first == expected | {"doubts": ["blurred: 3", "dark: 1"], "landmarks": points}
    assert (second["kept"], second["confidence"], second["landmarks"], second["index"]) == (False, None, None, None)
    assert table.schema.field("confidence").type == "double"
    assert table.schema.field("width").type == "int64"


def test_a_name_that_is_not_utf_8_is_spelled_out_in_parquet(tmp_path: Path, made: Made) -> None:
    row = pq.read_table(write_table(tmp_path / "table", made(RECORDS), "parquet")).to_pylist()[1]
    assert row["source"] == r"caf\xe9.jpg"
    assert row["reason"] == r"copy: of caf\xe9.jpg"
    assert row["doubts"] == [r"like: caf\xe9.jpg"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_same_records_give_the_same_bytes(kind: str, tmp_path: Path, made: Made) -> None:
    first = write_table(tmp_path / "table", made(RECORDS), kind).read_bytes()
    assert write_table(tmp_path / "table", made(RECORDS), kind).read_bytes() == first
    assert write_table(tmp_path / "table", made(RECORDS[::-1]), kind).read_bytes() != first


@pytest.mark.parametrize(("kind", "other"), [("csv", "parquet"), ("parquet", "csv")])
def test_only_one_table_is_left(kind: str, other: str, tmp_path: Path, made: Made) -> None:
    write_table(tmp_path / "table", made(RECORDS), other)
    write_table(tmp_path / "table", made(RECORDS), kind)
    assert [file.name for file in (tmp_path / "table").iterdir()] == [f"manifest.{kind}"]


def test_a_table_without_records_has_its_columns(tmp_path: Path, made: Made) -> None:
    names = [column.name for column in fields(Record)]
    assert pq.read_table(write_table(tmp_path / "table", made([]), "parquet")).column_names == names
    with write_table(tmp_path / "table", made([]), "csv").open(newline="") as file:
        assert list(csv.reader(file)) == [names]


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_kind("parquet")
    monkeypatch.setattr("catsweep.prepare.manifest.find_spec", lambda name: None)
    check_kind("csv")
    with pytest.raises(ConfigError, match=r"manifest=parquet needs .* pip install pyarrow"):
        check_kind("parquet")


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=[])),
        st.binary().map(lambda name: name.decode("utf-8", "surrogateescape")),
    )
)
def test_any_name_can_be_read(name: str) -> None:
    text = readable_name(name)
    assert all(char.isprintable() or unicodedata.category(char) in ("Zs", "Cf") for char in text)
    assert not set(text) & set("\n\r\t\x1b\u202e\u200b")
    assert text.encode().decode() == text
    assert readable_name(text) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("süß 猫.jpg", "süß 猫.jpg"),
        (CAFE, r"caf\xe9.jpg"),
        ("two\nlines.jpg", r"two\nlines.jpg"),
        ("tac\u202egpj.exe", r"tac\u202egpj.exe"),
        ("nothing\x00", r"nothing\x00"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(name: str, text: str) -> None:
    assert readable_name(name) == text
