import builtins
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catsweep.data import files
from catsweep.errors import DataError, TakenError
from catsweep.ownership import MARKER
from catsweep.prepare import stage as module
from catsweep.prepare import stage_cache
from catsweep.prepare.image_files import Pixels, encode, on_white, read_image, thumbnail
from catsweep.prepare.manifest import MANIFEST, Record, write_manifest
from catsweep.prepare.stage import CARD, JOURNAL, SHEET, Stage, StageBuilder, StageOutput  # fmt: skip
from catsweep.prepare.stage_cache import build, is_current, summary

N = 3


class Brighten(Stage):
    """Adds to each image; what is called `bad` is refused, `odd` is doubted, `same` goes on as it is."""

    name, folder, code = "brighten", "brightened", ()

    def __init__(self, by: int = 10) -> None:
        self.by = by
        self.worked: list[str] = []
        self.runs = 0

    def parameters(self) -> dict[str, Any]:
        return {"by": self.by}

    def run(self, build: StageBuilder) -> Iterable[Record]:
        self.runs += 1
        return build.each(lambda record: self.work(record, build.read(record)))

    def work(self, record: Record, image: Pixels) -> tuple[Record, Pixels | None]:
        self.worked.append(record.source)
        if "bad" in record.source:
            return record.refuse("bad: by its name"), None
        if "odd" in record.source:
            record = record.doubt("odd: by its name")
        if "same" in record.source:
            return record, None
        return replace(record, operation="brighten", parameters={"by": self.by}), image + np.uint8(self.by)


def image(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 200, (6, 8, 3), dtype=np.uint8)


def inputs(folder: Path, sources: Sequence[str] = ("a", "odd", "bad", "same"), seed: int = 0) -> tuple[Record, ...]:
    """Records as a stage before left them, and its files."""
    folder.mkdir(parents=True, exist_ok=True)
    desk = StageBuilder(Brighten(), folder, folder, ())
    records = [Record("before", f"id-{source}", f"{source}.jpg", f"{n:064x}") for n, source in enumerate(sources)]
    return tuple(desk.write(record, image(seed + number)) for number, record in enumerate(records))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, tuple[Record, ...]]:
    return tmp_path / "0.before", inputs(tmp_path / "0.before")


@pytest.fixture
def made(tmp_path: Path, before: tuple[Path, tuple[Record, ...]]) -> Callable[..., StageOutput]:
    """Makes stage `brighten`."""

    def made(stage: Stage | None = None, folder: Path = tmp_path / "1.brightened", records: Any = None) -> StageOutput:
        return build(stage or Brighten(), folder, before[0], before[1] if records is None else records)

    return made


def test_a_folder_holds_images_manifest_sheet_and_card(made: Callable[..., StageOutput], before: Any) -> None:
    done = made()
    assert sorted(content(done.folder)) == [MARKER, CARD, SHEET, "id-a.png", "id-odd.png", "id-same.png", MANIFEST]
    assert [record.source for record in done.records] == ["a.jpg", "odd.jpg", "bad.jpg", "same.jpg"]
    a, odd, bad, same = done.records
    np.testing.assert_array_equal(read_image(done.folder / a.file), image(0) + 10)
    assert (a.stage, a.operation, a.parameters, a.width, a.height) == ("brighten", "brighten", {"by": 10}, 8, 6)
    assert odd.doubts == ("odd: by its name",)
    assert (bad.kept, bad.reason) == (False, "bad: by its name")
    assert (done.folder / same.file).samefile(before[0] / same.file)
    assert done.kept == (a, odd, same)
    assert summary(done) == "brighten: 4 images, 3 kept, 1 left out (1 bad), 1 doubtful"
    assert cv2.imread(str(done.folder / SHEET)).shape == (2 + 98, 2 + 3 * 98, 3)
    assert not list(done.folder.parent.glob(".*"))


def test_a_stage_is_made_again_only_if_something_changed(made: Callable[..., StageOutput], before: Any) -> None:
    made()
    same = Brighten()
    assert is_current(same, made(same), before[1])
    assert same.runs == 0
    other = Brighten(11)
    assert not is_current(other, made(same), before[1])
    made(other)
    assert len(other.worked) == 4
    np.testing.assert_array_equal(read_image(made(other).folder / "id-a.png"), image(0) + 11)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "other"}, {"doubts": ("new: 1",)}, {"group": "g"}, {"landmarks": ((1.0, 2.0),) * 9},
        {"source": "b.jpg"}, {"parameters": {"hash": "7"}}, {"bytes": 3},
    ],
)  # fmt: skip
def test_a_changed_input_is_worked_on_again_and_no_other(
    made: Callable[..., StageOutput], before: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    made()
    changed = (replace(before[1][0], **change), *before[1][1:])
    stage = Brighten()
    done = made(stage, records=changed)
    assert stage.worked == [changed[0].source]
    fresh = made(Brighten(), tmp_path / "fresh", changed)
    assert content(done.folder) == content(fresh.folder)


def test_the_mark_of_an_input_does_not_matter(made: Callable[..., StageOutput], before: Any) -> None:
    made()
    stage = Brighten()
    made(stage, records=tuple(replace(record, mark="other") for record in before[1]))
    assert stage.worked == []


def test_photos_may_come_and_go(made: Callable[..., StageOutput], before: Any, tmp_path: Path) -> None:
    made()
    stage = Brighten()
    fewer = before[1][:2]
    assert sorted(content(made(stage, records=fewer).folder)) == [
        MARKER,
        CARD,
        SHEET,
        "id-a.png",
        "id-odd.png",
        MANIFEST,
    ]
    assert stage.worked == []
    assert content(made(stage).folder) == content(made(Brighten(), tmp_path / "fresh").folder)
    assert sorted(stage.worked) == ["bad.jpg", "same.jpg"]


def test_the_code_that_a_stage_names_is_part_of_its_key(
    made: Callable[..., StageOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    shutil.copytree(files.SOURCE, code, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(files, "SOURCE", code)
    monkeypatch.setattr(Brighten, "code", ("data/threads.py",))
    made()
    for changes, times in (
        ("prepare/stages/zoom.py", 0),
        ("data/threads.py", 4),
        ("prepare/stage.py", 4),
        ("prepare/manifest.py", 4),
    ):
        (code / changes).write_text("# other\n")
        stage = Brighten()
        made(stage)
        assert len(stage.worked) == times


def test_a_part_of_the_method_may_be_all_that_an_image_depends_on(made: Callable[..., StageOutput]) -> None:
    class Part(Brighten):
        def run(self, build: StageBuilder) -> Iterable[Record]:
            return build.each(lambda record: self.work(record, build.read(record)), method={"own": 1})

    made(Part(1))
    stage = Part(2)
    made(stage)
    assert stage.worked == []


def test_an_error_in_the_middle_loses_no_image_that_was_finished(
    made: Callable[..., StageOutput], tmp_path: Path
) -> None:
    class Failing(Brighten):
        def work(self, record: Record, image: Pixels) -> tuple[Record, Pixels | None]:
            if "bad" in record.source:
                raise ZeroDivisionError
            return super().work(record, image)

    failing = Failing()
    with pytest.raises(ZeroDivisionError):
        made(failing)
    stage = Brighten()
    done = made(stage)
    assert "bad.jpg" in stage.worked
    assert len(stage.worked) == 4 - len(failing.worked)
    assert content(done.folder) == content(made(Brighten(), tmp_path / "fresh").folder)


def test_nothing_left_is_an_error_that_says_why(made: Callable[..., StageOutput], tmp_path: Path) -> None:
    records = inputs(tmp_path / "0.before", ["bad-1", "bad-2"])
    with pytest.raises(DataError, match=r"left after stage brighten, but all were left out: 2 bad\. Loosen"):
        made(records=records)
    with pytest.raises(DataError, match="there were none"):
        made(records=())
    assert not (tmp_path / "1.brightened").exists()


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda folder: (folder / "id-a.png").unlink(), ["a.jpg"]),
        (lambda folder: (folder / CARD).unlink(), ["a.jpg", "bad.jpg", "odd.jpg", "same.jpg"]),
        (lambda folder: (folder / CARD).write_text((folder / CARD).read_text()[:-9]), 4),
        (lambda folder: (folder / CARD).write_text("[]"), 4),
        (lambda folder: (folder / MANIFEST).unlink(), 4),
        (lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-30]), 4),
        (lambda folder: write_manifest(folder / MANIFEST, [Record("brighten", "a", "a.jpg")] * 4), 4),
        (shutil.rmtree, 4),
    ],
)
def test_a_damaged_folder_is_made_again(
    made: Callable[..., StageOutput], tmp_path: Path, damage: Callable[[Path], None], again: list[str] | int
) -> None:
    done = made()
    whole = content(done.folder)
    damage(done.folder)
    stage = Brighten()
    assert content(made(stage).folder) == whole
    assert (sorted(stage.worked) if isinstance(again, list) else len(stage.worked)) == again


def test_an_image_that_was_changed_since_is_not_taken_over(
    made: Callable[..., StageOutput], before: Any, tmp_path: Path
) -> None:
    done = made()
    shutil.copy(done.folder / "id-odd.png", done.folder / "id-a.png")
    records = before[1][:3]
    stage = Brighten()
    assert content(made(stage, records=records).folder) == content(
        made(folder=tmp_path / "new", records=records).folder
    )
    assert stage.worked == ["a.jpg"]


# Killed: at each operation on files in turn, as if the machine stopped there.


class Killed(BaseException):
    """Nothing may stop it."""


class Power:
    """Goes out after so many operations on files; a write is then half done."""

    def __init__(self, patch: pytest.MonkeyPatch, operations: int) -> None:
        self.left = operations
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # one thread, so that moments are the same
        for name in ("replace", "rename", "link", "unlink", "mkdir", "rmdir"):
            patch.setattr(os, name, self._until_it_goes_out(getattr(os, name)))
        opened = self._until_it_goes_out(io.open)
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        written = Path.write_bytes
        patch.setattr(Path, "write_bytes", lambda path, data: self._written(written, path, data))

    def _until_it_goes_out(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._use()
            return operation(*args, **kwargs)

        return guarded

    def _written(self, write: Callable[[Path, bytes], int], path: Path, data: bytes) -> int:
        try:
            self._use()
        except Killed:
            if self.left == -1:
                self.left = 1  # for the opening
                write(path, data[: len(data) // 2])
                self.left = -2
            raise
        return write(path, data)

    def _use(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def run_until(operations: int, root: Path, by: int, records: tuple[Record, ...]) -> bool:
    """Make the stage; whether it came to its end."""
    with pytest.MonkeyPatch.context() as patch:
        Power(patch, operations)
        try:
            build(Brighten(by), root / "1.brightened", root / "0.before", records)
        except Killed:
            return False
    return True


@pytest.fixture
def workshop(tmp_path: Path) -> Callable[[], Path]:
    """Gives an empty folder for stages."""
    return lambda: Path(tempfile.mkdtemp(dir=tmp_path))


def test_killed_at_any_operation_and_started_again_it_comes_to_the_same(
    workshop: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CORE", ())  # to read the code is no moment at which anything can be lost
    fresh = workshop()
    build(Brighten(), fresh / "1.brightened", fresh / "0.before", inputs(fresh / "0.before"))
    whole = content(fresh)
    saved, operations, ended = 0, 0, False
    while not ended:
        root = workshop()
        records = inputs(root / "0.before")
        ended = run_until(operations, root, 10, records)
        stage = Brighten()
        build(stage, root / "1.brightened", root / "0.before", records)
        assert content(root) == whole, f"killed after {operations} operations"
        saved += 4 - len(stage.worked)
        operations += 1
    assert operations > 25
    assert saved > 2 * operations  # of four


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    return content(build(Brighten(), root / "1.brightened", root / "0.before", inputs(root / "0.before")).folder)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([10, 20]), st.integers(0, 4), st.integers(0, 45)), max_size=4))
def test_killed_many_times_while_parameters_and_photos_change_it_comes_to_the_same(
    workshop: Callable[[], Path], undisturbed: dict[str, bytes], tries: list[tuple[int, int, int]]
) -> None:
    """Builds with one parameter are begun, killed, and begun with another; nothing of one gets into the other."""
    root = workshop()
    records = inputs(root / "0.before")
    for by, without, operations in tries:
        run_until(operations, root, by, records[:without] + records[without + 1 :])
    assert content(build(Brighten(), root / "1.brightened", root / "0.before", records).folder) == undisturbed


def killed_at(step: str, work: Callable[[], object]) -> None:
    """Do the work until it comes to `write_manifest`, when all images are written, or `adopt`, before the renaming."""

    def kill(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_cache, step, kill)
        with pytest.raises(Killed):
            work()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 2000),
    rubbish=st.sampled_from([b"", b"{", b'{"stage": 1}\n', b"[1]\nnull\n3\n", b"\xff\xfe\0", b'"text"\n', b"\n\n"]),
)
def test_a_torn_journal_costs_only_what_it_lost(
    workshop: Callable[[], Path], undisturbed: dict[str, bytes], cut: int, rubbish: bytes
) -> None:
    root = workshop()
    records = inputs(root / "0.before")
    killed_at("write_manifest", lambda: build(Brighten(), root / "1.brightened", root / "0.before", records))
    (journal,) = root.glob(f".*/{JOURNAL}")
    text = journal.read_bytes()
    left = text[: max(0, len(text) - cut)]
    journal.write_bytes(left + rubbish)
    again = Brighten()
    assert content(build(again, root / "1.brightened", root / "0.before", records).folder) == undisturbed
    lost = 4 - left.count(b"}\n")
    assert lost - 1 <= len(again.worked) <= lost  # one: of which only the end of the line is missing


def test_what_follows_a_torn_line_is_not_lost(made: Callable[..., StageOutput], tmp_path: Path) -> None:
    killed_at("write_manifest", made)
    (journal,) = tmp_path.glob(f".*/{JOURNAL}")
    journal.write_bytes(journal.read_bytes()[:-40])
    killed_at("write_manifest", made)
    stage = Brighten()
    made(stage)
    assert stage.worked == []


def test_what_is_left_of_other_builds_goes_when_one_is_complete(
    made: Callable[..., StageOutput], tmp_path: Path
) -> None:
    for by in (20, 30):
        killed_at("adopt", partial(made, Brighten(by)))
    assert len(list(tmp_path.glob(".*.partial"))) == 2
    made()
    assert not list(tmp_path.glob(".*.partial"))


def test_a_complete_build_that_was_not_renamed_is_not_done_again(made: Callable[..., StageOutput]) -> None:
    killed_at("adopt", made)
    stage = Brighten()
    made(stage)
    assert stage.runs == 0
    killed_at("adopt", lambda: made(Brighten(20)))
    made()  # as it was before
    other = Brighten(20)
    made(other)
    assert other.runs == 0


SIGKILLED = """
import json, os, random, signal, sys, time
from pathlib import Path

sys.path[:0] = json.loads(sys.argv[1])
from test_stage import Brighten, build, inputs

class Slow(Brighten):
    def work(self, record, image):
        time.sleep(0.001)
        return super().work(record, image)

names = [f"{number}-{kind}" for number in range(8) for kind in ("a", "bad", "same")]
draws = random.Random(7)

def begin(root):
    records = inputs(root / "0.before", names)
    child = os.fork()
    if child == 0:
        build(Slow(), root / "1.brightened", root / "0.before", records)
        os._exit(0)
    return child

started = time.perf_counter()
os.waitpid(begin(Path("undisturbed")), 0)
took = time.perf_counter() - started
killed = 0
while killed < 8:
    child = begin(Path("disturbed"))
    time.sleep(draws.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        killed += 1
    else:  # it came to its end before
        import shutil
        shutil.rmtree("disturbed")
assert os.waitpid(begin(Path("disturbed")), 0)[1] == 0
"""


def test_killed_for_good_at_random_moments_it_comes_to_the_same(tmp_path: Path, root: Path) -> None:
    paths = json.dumps([str(root / "src"), str(Path(__file__).parent)])
    subprocess.run([sys.executable, "-c", SIGKILLED, paths], cwd=tmp_path, check=True, timeout=120)
    assert content(tmp_path / "disturbed") == content(tmp_path / "undisturbed")
    assert len(list((tmp_path / "disturbed" / "1.brightened").glob("*.png"))) == 16 + 1


# Images and files.


def test_png_is_lossless_with_and_without_transparency(tmp_path: Path) -> None:
    for channels in (3, 4):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
        (tmp_path / "x.png").write_bytes(encode(pixels, ".png"))
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), pixels)


def test_jpeg_is_nearly_so(tmp_path: Path) -> None:
    pixels = np.asarray(cv2.resize(image(0), (64, 48), interpolation=cv2.INTER_CUBIC), np.uint8)
    (tmp_path / "x.jpg").write_bytes(encode(pixels, ".jpg"))
    assert np.abs(read_image(tmp_path / "x.jpg").astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
@pytest.mark.parametrize("data", [b"", b"not an image"])
def test_a_damaged_image_is_an_error_that_says_what_to_do(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "2.zoomed").mkdir()
    (tmp_path / "2.zoomed" / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"Delete all files called {name} in {tmp_path}"):
        read_image(tmp_path / "2.zoomed" / name)


def test_what_shows_through_is_white() -> None:
    pixels = np.full((2, 2, 4), 100, np.uint8)
    pixels[..., 3] = [[0, 255], [51, 204]]
    assert on_white(pixels)[..., 0].tolist() == [[255, 100], [224, 131]]
    assert on_white(pixels[..., :3]) is not None
    np.testing.assert_array_equal(on_white(pixels[..., :3]), pixels[..., :3])


@pytest.mark.parametrize(
    ("shape", "inside"), [((10, 40), (4, 16)), ((40, 10), (16, 4)), ((2, 2), (16, 16)), ((1, 99), (1, 16))]
)
def test_a_thumbnail_holds_the_whole_image(shape: tuple[int, int], inside: tuple[int, int]) -> None:
    small = thumbnail(np.zeros((*shape, 3), np.uint8), 16)
    assert small.shape == (16, 16, 3)
    dark = small[..., 0] == 0
    assert (dark.any(axis=1).sum(), dark.any(axis=0).sum()) == inside


def test_where_there_are_no_links_files_are_copied(
    made: Callable[..., StageOutput], before: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refused)
    done = made()
    copy, original = done.folder / "id-same.png", before[0] / "id-same.png"
    assert copy.read_bytes() == original.read_bytes()
    assert not copy.samefile(original)


@pytest.mark.security
@pytest.mark.parametrize("is_made", [True, False])
def test_a_folder_of_the_user_is_not_replaced(made: Callable[..., StageOutput], tmp_path: Path, is_made: bool) -> None:
    folder = made().folder if is_made else tmp_path / "1.brightened"
    folder.mkdir(exist_ok=True)
    (folder / "holiday.jpg").write_text("mine")
    (other := tmp_path / ".1.brightened.my.partial").mkdir()
    with pytest.raises(TakenError, match=r"catsweep did not make holiday\.jpg in it"):
        made(Brighten(20))
    assert (folder / "holiday.jpg").read_text() == "mine"
    (folder / "holiday.jpg").unlink()
    made(Brighten(20))
    assert other.is_dir()
