import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catsweep.data.archives import open_files
from catsweep.errors import DataError
from catsweep.prepare.manifest import DROP, KEEP, Record
from catsweep.prepare.pipeline import make
from catsweep.prepare.stage import Stage, StageBuilder, StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.original import Original
from catsweep.prepare.stages.verify import TABLE, Decisions, Verify, to_decide


def decide(before: StageOutput, decisions: dict[int, str]) -> Path:
    """Write decisions, by the photos' numbers, as a person would."""
    table = Decisions(before.folder.parent / TABLE)
    wanted = {f"{number:064x}": decision for number, decision in decisions.items()}
    table.write(to_decide(before.kept), before.folder.name, wanted)
    return table.path


def verify(before: StageOutput, mode: str = "auto", val_fraction: float = 0.0) -> StageOutput:
    root = before.folder.parent
    stage = Verify(mode, val_fraction)
    assert stage.begin(root, before) is None
    return build(stage, root / "4.verified", before.folder, before.kept)


def test_undecided_photos_are_kept_unless_they_are_in_doubt(zoomed: Callable[..., StageOutput]) -> None:
    done = verify(zoomed())
    assert [record.kept for record in done.records] == [True, False, True, False]
    assert done.records[3].reason == "in doubt: small face: 20 pixels; tilted: 30"
    assert [record.operation for record in done.records] == ["automatic: keep", "automatic: drop"] * 2
    assert done.card["counts"]["refused"] == {"in doubt": 2}


def test_doubts_that_are_tolerated_leave_nothing_out(zoomed: Callable[..., StageOutput]) -> None:
    before = zoomed([("near-duplicate: of 2.jpg",), ("near-duplicate: of 3.jpg", "tilted: 30"), ("tilted: 4",)])
    stage = Verify("csv", tolerate=["near-duplicate"])
    assert str(stage.begin(before.folder.parent, before)).startswith("2 of 2 photos in doubt are undecided.")
    done = build(stage, before.folder.parent / "4.verified", before.folder, before.kept)
    assert [record.reason for record in done.records] == ["", "in doubt: tilted: 30", "in doubt: tilted: 4"]
    assert done.records[0].doubts == ("near-duplicate: of 2.jpg",)
    assert stage.parameters() != Verify("csv").parameters()


def test_a_stage_that_may_not_run_asks_nobody(zoomed: Callable[..., StageOutput], tmp_path: Path) -> None:
    before = zoomed()
    assert Verify("csv").begin(tmp_path, before, may_run=False) is None
    assert not (tmp_path / TABLE).exists()
    assert Verify("serve").begin(tmp_path, before, may_run=False) is None  # or it would wait for ever


@pytest.mark.parametrize("mode", ["auto", "csv"])
def test_decisions_win_in_every_mode(zoomed: Callable[..., StageOutput], mode: str) -> None:
    before = zoomed()
    decide(before, {0: DROP, 1: KEEP, 3: DROP})
    done = verify(before, mode)
    assert [record.kept for record in done.records] == [False, True, True, False]
    assert {done.records[0].reason, done.records[3].reason} == {"dropped by hand: in verify.csv"}
    assert done.records[1].operation == "decision: keep"
    assert done.records[1].doubts == ()


def test_files_go_on_as_they_are(zoomed: Callable[..., StageOutput]) -> None:
    before = zoomed()
    done = verify(before)
    for record in done.kept:
        assert (done.folder / record.file).samefile(before.folder / record.file)
    assert {path.name for path in done.folder.glob("cat-*")} == {record.file for record in done.kept}


def test_auto_leaves_the_table_alone_and_says_what_could_be_done(
    zoomed: Callable[..., StageOutput], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        verify(zoomed())
    assert not (tmp_path / TABLE).exists()
    assert [message.split(".")[0] for message in caplog.messages] == [
        "2 photos are in doubt and undecided, and are left out"
    ]


def test_csv_writes_a_table_and_waits_until_all_in_doubt_is_decided(
    zoomed: Callable[..., StageOutput], tmp_path: Path
) -> None:
    before = zoomed()
    word = Verify("csv").begin(tmp_path, before)
    assert word is not None
    assert word.startswith("2 of 2 photos in doubt are undecided.")
    assert str(tmp_path / TABLE) in word
    text = (tmp_path / TABLE).read_text("utf-8-sig")
    assert text.splitlines()[1].startswith(",no face: none was found,cats/1.jpg,3.zoomed/cat-1.png,")
    (tmp_path / TABLE).write_text(text.replace(",no face", "keep,no face"))
    assert str(Verify("csv").begin(tmp_path, before)).startswith("1 of 2 photos")
    (tmp_path / TABLE).write_text((tmp_path / TABLE).read_text("utf-8-sig").replace(",small face", "drop,small face"))
    assert [record.kept for record in verify(before, "csv").records] == [True, True, True, False]


def test_a_half_decided_table_counts_without_csv(zoomed: Callable[..., StageOutput], tmp_path: Path) -> None:
    before = zoomed()
    decide(before, {1: KEEP})
    assert Verify("csv").begin(tmp_path, before) is not None
    assert [record.kept for record in verify(before).records] == [True, True, True, False]


def test_with_nothing_in_doubt_csv_goes_on(zoomed: Callable[..., StageOutput], tmp_path: Path) -> None:
    assert len(verify(zoomed([(), ()]), "csv").kept) == 2
    assert (tmp_path / TABLE).exists()


def test_the_stage_is_made_again_for_other_decisions_and_for_nothing_else(zoomed: Callable[..., StageOutput]) -> None:
    before = zoomed()

    def parameters(mode: str = "auto") -> dict[str, Any]:
        stage = Verify(mode)
        stage.begin(before.folder.parent, before)
        return stage.parameters()

    none = parameters()
    path = decide(before, {1: KEEP, 3: DROP})
    some = parameters()
    assert some == parameters("csv") != none
    assert some["decisions"] == {"keep": 1, "drop": 1, "digest": some["decisions"]["digest"]}
    decide(before, {99: DROP})  # a photo that is not there
    header, *lines = path.read_text("utf-8-sig").splitlines()
    path.write_text("\n".join([header, *reversed(lines)]))
    assert parameters() == some
    decide(before, {1: DROP, 3: KEEP})
    assert parameters()["decisions"]["digest"] != some["decisions"]["digest"]


def test_a_table_that_cannot_be_understood_stops_everything(zoomed: Callable[..., StageOutput]) -> None:
    before = zoomed()
    path = decide(before, {1: KEEP})
    path.write_text(path.read_text().replace("keep", "kepp"))
    for mode in ("auto", "csv", "serve"):
        with pytest.raises(DataError, match=r"line 2.*got 'kepp'"):
            verify(before, mode)
    assert "kepp" in path.read_text()


@settings(max_examples=60)
@given(
    photos=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(["", KEEP, DROP])), max_size=12),
    val_fraction=st.floats(0, 0.9),
)
def test_no_group_of_a_held_out_photo_is_trained_on(photos: list[tuple[int, bool, str]], val_fraction: float) -> None:
    stage = Verify("auto", val_fraction)
    inputs = tuple(
        Record("zoom", str(n), str(n), f"{n:064x}", f"g{group}" if group else "", doubts=("x: y",) * doubtful)
        for n, (group, doubtful, _) in enumerate(photos)
    )
    with TemporaryDirectory() as root:
        before = StageOutput(Path(root, "3.zoomed"), inputs, {})
        decide(before, {n: decision for n, (*_, decision) in enumerate(photos)})
        assert stage.begin(Path(root), before) is None
    records = list(stage.run(SimpleNamespace(inputs=inputs, link=lambda record: record)))  # type: ignore[arg-type]
    kept = [record for record in records if record.kept]
    trained, held = ({r.group or r.sha256 for r in kept if r.split == split} for split in ("train", "val"))
    assert not trained & held
    assert len(trained) + len(held) == len({record.group or record.sha256 for record in kept})
    assert bool(held) == (val_fraction > 0 and len(trained | held) > 1)
    assert bool(trained) == bool(kept)
    assert {record.split for record in records if not record.kept} <= {""}
    assert [record.id for record in records] == [record.id for record in inputs]


class Doubting(Stage):
    """Doubts everything."""

    name, folder, code = "doubting", "doubted", ()

    def __init__(self, why: str) -> None:
        self.why = why

    def parameters(self) -> dict[str, Any]:
        return {"why": self.why}

    def run(self, build: StageBuilder) -> Iterable[Record]:
        return build.each(lambda record: (record.doubt(self.why), None))


def test_decisions_outlive_rebuilt_stages_other_names_and_photos_that_come_and_go(tmp_path: Path) -> None:
    source, root = tmp_path / "photos", tmp_path / "stages"
    source.mkdir()
    root.mkdir()
    for number in range(3):
        image = np.full((40, 40, 3), 60 * number, np.uint8)
        Image.fromarray(image).save(source / f"{number}.png")

    def run(mode: str = "auto", max_side: int = 40, why: str = "odd: very") -> dict[str, bool]:
        original = Original(open_files(source, {".png"}), max_side=max_side)
        done = make([original, Doubting(why), Verify(mode, 0.0)], root, None)
        return {record.source: record.kept for record in done[-1].records} if len(done) == 3 else {}

    assert run("csv") == {}
    path = root / TABLE
    path.write_text(path.read_text("utf-8-sig").replace(",odd", "keep,odd"))
    assert run() == {"0.png": True, "1.png": True, "2.png": True}
    path.write_text(path.read_text("utf-8-sig").replace("keep,odd: very,1", "drop,odd: very,1"))
    assert run() == {"0.png": True, "1.png": False, "2.png": True}
    assert run("csv", max_side=36, why="blurred: much") == {"0.png": True, "1.png": False, "2.png": True}
    content = (source / "1.png").read_bytes()
    (source / "1.png").unlink()
    (source / "2.png").rename(source / "moved.png")
    assert run("csv") == {"0.png": True, "moved.png": True}
    (source / "back again.png").write_bytes(content)
    assert run() == {"0.png": True, "back again.png": False, "moved.png": True}


def test_it_can_be_made_anew_over_a_half_made_one(zoomed: Callable[..., StageOutput], tmp_path: Path) -> None:
    before = zoomed()
    first = verify(before)
    kept = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    os.unlink(first.folder / "card.json")
    second = verify(before)
    assert {path.name: path.read_bytes() for path in second.folder.iterdir()} == kept
