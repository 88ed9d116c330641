import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catsweep.errors import DataError
from catsweep.prepare.manifest import DROP, KEEP, UNDECIDED, Record
from catsweep.prepare.stages.verify import TABLE, Decisions, to_decide


def sha(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()


def photo(name: str, *doubts: str) -> Record:
    return Record("zoom", name, f"{name}.jpg", sha(name), doubts=doubts, file=f"{name}.png")


PHOTOS = [photo("ann"), photo("bob", "no face: found none"), photo("cid"), photo("dan", "small face: 20 pixels")]


def written(path: Path, decisions: dict[str, str], photos: Sequence[Record] = PHOTOS) -> Path:
    Decisions(path).write(to_decide(photos), "3.zoomed", {sha(name): decision for name, decision in decisions.items()})
    return path


def rows(path: Path) -> list[dict[str, str]]:
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_doubtful_photos_come_first_then_by_name() -> None:
    assert [record.id for record in to_decide(reversed(PHOTOS))] == ["bob", "dan", "ann", "cid"]


def test_several_images_of_a_photo_are_decided_together() -> None:
    first, second = photo("ann", "one", "two"), photo("ann", "two", "three")
    (only,) = to_decide([first, second])
    assert only.doubts == ("one", "two", "three")
    assert only.file == first.file


def test_the_table_says_what_a_person_has_to_know(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"bob": DROP})
    assert rows(path)[0] == {
        "decision": "drop", "doubts": "no face: found none", "source": "bob.jpg", "image": "3.zoomed/bob.png",
        "sha256": sha("bob"),
    }  # fmt: skip
    assert [(row["source"], row["decision"]) for row in rows(path)[1:]] == [
        ("dan.jpg", ""),
        ("ann.jpg", ""),
        ("cid.jpg", ""),
    ]


def test_what_is_decided_can_be_read_again(tmp_path: Path) -> None:
    table = Decisions(written(tmp_path / TABLE, {"bob": DROP, "ann": KEEP}))
    assert [table.of(sha(name)) for name in ("ann", "bob", "cid", "nobody")] == [KEEP, DROP, UNDECIDED, UNDECIDED]


def test_no_table_means_no_decisions(tmp_path: Path) -> None:
    assert Decisions(tmp_path / TABLE).of(sha("ann")) == UNDECIDED
    assert not (tmp_path / TABLE).exists()


def test_an_unchanged_table_is_not_written_again(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"bob": DROP})
    before = path.stat()
    written(path, {})
    assert path.stat().st_ino == before.st_ino


DELIMITERS = st.sampled_from([",", ";", "\t"])
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=25)
@given(
    decisions=st.dictionaries(NAMES, st.sampled_from([KEEP, DROP]), min_size=1, max_size=8),
    delimiter=DELIMITERS,
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    shape=st.randoms(use_true_random=False),
)
def test_a_table_is_understood_however_a_spreadsheet_saves_it(
    tmp_path_factory: pytest.TempPathFactory, decisions, delimiter, end, encoding, shape
) -> None:
    path = tmp_path_factory.mktemp("table") / TABLE
    saved = rows(written(path, decisions, [photo(name, *["doubt: it"] * (len(name) % 2)) for name in decisions]))
    shape.shuffle(saved)
    columns = [*saved[0], "my notes"]
    shape.shuffle(columns)
    text = io.StringIO(newline="")
    table = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    table.writerow([column if column == "my notes" else shape.choice([column, column.upper()]) for column in columns])
    for row in saved:
        spelt = {KEEP: [" Keep", "KEEP", "keep "], DROP: ["Drop", "drop"]}[row["decision"]]
        row |= {"my notes": "seen, twice", "decision": shape.choice(spelt)}
        table.writerow([row[column] for column in columns])
        table.writerow([""] * len(columns))
    path.write_bytes(text.getvalue().encode(encoding))
    read = Decisions(path)
    assert {name: read.of(sha(name)) for name in decisions} == decisions
    read.write([], "3.zoomed")
    again = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), delimiter=delimiter)
    assert {(row["sha256"], row["my notes"]) for row in again} == {(sha(name), "seen, twice") for name in decisions}


def test_decisions_about_photos_that_are_gone_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"bob": DROP, "ann": KEEP})
    written(path, {}, [PHOTOS[2]])
    assert [(row["source"], row["decision"]) for row in rows(path)] == [
        ("cid.jpg", ""),
        ("ann.jpg", "keep"),
        ("bob.jpg", "drop"),
    ]
    written(path, {}, PHOTOS)
    assert {row["source"]: row["decision"] for row in rows(path)} == {
        "ann.jpg": "keep",
        "bob.jpg": "drop",
        "cid.jpg": "",
        "dan.jpg": "",
    }


def test_a_renamed_photo_keeps_its_decision(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"ann": DROP})
    moved = Record("zoom", "zoe-1", "new/zoe.jpg", sha("ann"), file="zoe-1.png")
    written(path, {}, [moved])
    assert [(row["source"], row["decision"]) for row in rows(path)] == [("new/zoe.jpg", "drop")]


def test_a_decision_can_be_taken_back(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"ann": DROP})
    written(path, {"ann": UNDECIDED})
    assert Decisions(path).of(sha("ann")) == UNDECIDED


def test_notes_of_photos_that_are_gone_are_kept_even_if_undecided(tmp_path: Path) -> None:
    path = tmp_path / TABLE
    path.write_text(f"sha256,decision,,note\n{sha('ann')},,,ask mum,more\n{sha('bob')},,\n")
    written(path, {}, [])
    assert path.read_text("utf-8-sig").splitlines() == [
        "decision,doubts,source,image,sha256,,note,",
        f",,,,{sha('ann')},,ask mum,more",
    ]


def test_two_lines_about_a_photo_are_one_if_they_agree(tmp_path: Path) -> None:
    path = tmp_path / TABLE
    path.write_text(f"decision,sha256,note\nkeep,{sha('ann')},one\n,{sha('ann')},two\nkeep,{sha('ann').upper()},one\n")
    table = Decisions(path)
    assert table.of(sha("ann")) == KEEP
    table.write([], "3.zoomed")
    assert path.read_text("utf-8-sig").splitlines()[1:] == [f"keep,,,,{sha('ann')},one two one"]


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("decision,sha256\nkeep,{ann}\nmabye,{bob}\n", 3, "keep, drop or nothing as the decision, got 'mabye'"),
        ("decision;sha256\nkeep;{ann}\n\n;;\nyes;{bob}\n", 5, "got 'yes'"),
        ('source,decision,sha256\n"two\nlines",keep,{ann}\nx,never,{bob}\n', 4, "got 'never'"),
        ("decision,sha256\nkeep,1.2E+63\n", 2, "64 hexadecimal digits of a photo as sha256, got '1.2e+63'"),
        ("decision,sha256\nkeep\n", 2, "64 hexadecimal digits of a photo as sha256, got ''"),
        ("decision,sha256\nkeep,{ann}\ndrop,{ann}\n", 3, "an earlier line says keep and this one drop"),
        ("decision,source\nkeep,ann.jpg\n", 1, "among them decision and sha256 once each, got 'decision,source'"),
        ("decision,sha256,decision\n", 1, "once each"),
        ("<html>", 1, "names of columns"),
        ("\x00\x01\x02", 1, "names of columns"),
        ('decision,sha256\nkeep,"{ann}\nkeep,{bob}\n', 3, "a row of a CSV file"),
    ],
)
def test_nonsense_is_refused_with_its_line_and_nothing_is_lost(tmp_path: Path, text: str, line: int, told: str) -> None:
    path = tmp_path / TABLE
    path.write_text(text.format(ann=sha("ann"), bob=sha("bob")))
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"line {line}") as caught:
        Decisions(path)
    assert told in str(caught.value)
    assert path.read_bytes() == before


def test_a_table_that_cannot_be_opened_is_no_empty_table(tmp_path: Path) -> None:
    (tmp_path / TABLE).mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        Decisions(tmp_path / TABLE)


def test_what_somebody_else_writes_meanwhile_is_taken_over(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"ann": DROP})
    ours = Decisions(path)
    ours.write(to_decide(PHOTOS), "3.zoomed", {sha("bob"): KEEP})
    written(path, {"bob": DROP, "cid": DROP, "ann": KEEP})
    ours.write(to_decide(PHOTOS), "3.zoomed", {sha("dan"): KEEP})
    expected = {"ann.jpg": "keep", "bob.jpg": "keep", "cid.jpg": "drop", "dan.jpg": "keep"}
    assert {row["source"]: row["decision"] for row in rows(path)} == expected
    assert [ours.of(sha(name)) for name in ("ann", "bob", "cid", "dan")] == list(expected.values())


def test_what_somebody_else_spoils_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, {"ann": DROP})
    ours = Decisions(path)
    path.write_text("decision,sha256\nkeep,half a line")
    with pytest.raises(DataError, match="line 2"):
        ours.write(to_decide(PHOTOS), "3.zoomed", {sha("bob"): KEEP})
    assert path.read_text() == "decision,sha256\nkeep,half a line"
    assert ours.of(sha("bob")) == UNDECIDED


@pytest.mark.security
@pytest.mark.parametrize("name", ["=cmd|'calc'!A0", "+1", "-1", "@sum", "a\udcffb", "a\rb", 'quo"te,;\n', "  ", "ünï"])
def test_any_file_name_survives_and_none_is_a_formula(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / TABLE, {name: KEEP}, [photo(name)])
    cell = rows(path)[0]["source"]
    assert cell.removeprefix("'") == f"{name}.jpg"
    assert not cell.startswith(("=", "+", "-", "@"))
    assert Decisions(path).of(sha(name)) == KEEP
    written(path, {}, [])
    first = path.read_bytes()
    written(path, {}, [])
    assert path.read_bytes() == first
