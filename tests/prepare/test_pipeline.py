import logging
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from catsweep.data.decode import MAX_BYTES, Unreadable
from catsweep.data.files import Files
from catsweep.data.ready import ReadySet
from catsweep.errors import ConfigError, DataError, PlaceError
from catsweep.instantiation import instantiate
from catsweep.prepare.image_files import encode
from catsweep.prepare.manifest import Record, read_manifest
from catsweep.prepare.pipeline import make, run
from catsweep.prepare.stage import Stage, StageBuilder, StageOutput
from catsweep.prepare.stages.original import Original


class Photos(dict[str, bytes], Files):
    """Files that are nowhere but in memory."""

    def size(self, name: str) -> int:
        return len(self.get(name, b""))

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        if name not in self:
            raise Unreadable("cannot be opened: No such file or directory")
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))


class Pass(Stage):
    """Lets photos through, but for those it is told to drop; `ran` counts."""

    code = ()

    def __init__(self, name: str, drop: str = "-", active: bool = True, word: str | None = None) -> None:
        self.name = name  # type: ignore[misc]  # of the object, so that one class makes several stages
        self.folder = f"{name}ed"  # type: ignore[misc]
        self.drop, self.active, self.word = drop, active, word
        self.ran, self.began, self.asked = 0, list[tuple[Path, str]](), list[bool]()

    def parameters(self) -> dict[str, Any]:
        return {"drop": self.drop}

    def begin(self, root: Path, before: StageOutput, may_run: bool = True) -> str | None:
        self.began.append((root, before.folder.name))
        self.asked.append(may_run)
        return self.word

    def run(self, build: StageBuilder) -> Iterable[Record]:
        self.ran += 1
        for record in build.inputs:
            yield record.refuse("dropped: by name") if self.drop in record.source else build.link(record)


def photo(seed: int) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8), ".png")


@pytest.fixture
def photos() -> Photos:
    return Photos({f"{seed}.png": photo(seed) for seed in range(3)})


def line(photos: Photos, **changes: Pass) -> list[Stage]:
    """A pipeline of four stages."""
    return [Original(photos), *(changes.get(name, Pass(name)) for name in ("sift", "turn", "halve"))]


def ran(stages: list[Stage]) -> list[int]:
    return [stage.ran for stage in stages if isinstance(stage, Pass)]


def test_stages_come_one_after_the_other(photos: Photos, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stages = line(photos, turn=Pass("turn", drop="1"))
    done = make(stages, tmp_path, None)
    assert [stage.folder.name for stage in done] == ["0.original", "1.sifted", "2.turned", "3.halveed"]
    assert [len(stage.records) for stage in done] == [3, 3, 3, 2]
    assert [stage.began for stage in stages[1:] if isinstance(stage, Pass)] == [
        [(tmp_path, "0.original")], [(tmp_path, "1.sifted")], [(tmp_path, "2.turned")],
    ]  # fmt: skip
    assert [record.message for record in caplog.records] == [
        "original: 3 images, 3 kept",
        "sift: 3 images, 3 kept",
        "turn: 3 images, 2 kept, 1 left out (1 dropped)",
        "halve: 2 images, 2 kept",
    ]


def test_only_what_has_to_run_runs(photos: Photos, tmp_path: Path) -> None:
    make(line(photos), tmp_path, None)
    again = line(photos)
    make(again, tmp_path, None)
    assert ran(again) == [0, 0, 0]
    changed = line(photos, turn=Pass("turn", drop="1"))
    assert len(make(changed, tmp_path, None)[-1].records) == 2
    assert ran(changed) == [0, 1, 1]
    same_result = line(photos, turn=Pass("turn", drop="1.png"))
    make(same_result, tmp_path, None)
    assert ran(same_result) == [0, 1, 0]  # what comes after it starts from the same images


def test_a_photo_more_or_less_is_noticed(photos: Photos, tmp_path: Path) -> None:
    make(line(photos), tmp_path, None)
    photos["new.png"] = photo(7)
    assert [len(stage.kept) for stage in make(line(photos), tmp_path, None)] == [4, 4, 4, 4]
    del photos["0.png"]
    assert [len(stage.kept) for stage in make(line(photos), tmp_path, None)] == [3, 3, 3, 3]


def test_a_stage_that_has_nothing_to_do_is_passed_over(photos: Photos, tmp_path: Path) -> None:
    stages = line(photos, sift=Pass("sift", active=False, word="never asked"))
    done = make(stages, tmp_path, None)
    assert [stage.folder.name for stage in done] == ["0.original", "2.turned", "3.halveed"]
    assert ran(stages) == [0, 1, 1]


def test_a_person_may_be_asked_to_come_back(photos: Photos, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stages = line(photos, turn=Pass("turn", word="Write your decisions into the table."))
    assert [stage.folder.name for stage in make(stages, tmp_path, None)] == ["0.original", "1.sifted"]
    assert ran(stages) == [1, 0, 0]
    assert caplog.records[-1].message == "Write your decisions into the table."


def test_chosen_stages_run_and_those_before_them_come_from_the_cache(photos: Photos, tmp_path: Path) -> None:
    make(line(photos), tmp_path, None)
    stages = line(photos, turn=Pass("turn", drop="1"), halve=Pass("halve", drop="2"))
    assert len(make(stages, tmp_path, ["turn"])) == 3  # and nothing after them
    assert ran(stages) == [0, 1, 0]
    stages = line(photos, turn=Pass("turn", drop="1"), halve=Pass("halve", drop="2"))
    assert [record.source for record in make(stages, tmp_path, ["sift", "halve"])[-1].kept] == ["0.png"]
    assert ran(stages) == [0, 0, 1]


def test_a_stage_that_was_never_made_is_not_taken_from_the_cache(photos: Photos, tmp_path: Path) -> None:
    make(line(photos), tmp_path, ["original"])
    with pytest.raises(DataError, match=r"Expected stage sift in .*1\.sifted, but it was never made"):
        make(line(photos), tmp_path, ["turn"])
    make(line(photos), tmp_path, ["sift", "turn"])


@pytest.mark.parametrize("stale", ["parameters", "photos"])
def test_a_stale_stage_is_not_taken_from_the_cache(photos: Photos, tmp_path: Path, stale: str) -> None:
    make(line(photos), tmp_path, None)
    stages = line(photos)
    if stale == "parameters":
        stages = line(photos, sift=Pass("sift", drop="0"))
    else:
        photos["0.png"] = photo(7)
    with pytest.raises(DataError, match="was made of other images, or with other parameters"):
        make(stages, tmp_path, ["turn"])
    assert ran(stages) == [0, 0, 0]


@pytest.mark.parametrize(
    ("chosen", "got"),
    [(["zoom"], r"\['zoom'\]"), (["sift", "zoom"], r"\['sift', 'zoom'\]"), ([], r"\[\]"), ("sift", "sift")],
)
def test_stages_that_do_not_exist_are_refused(photos: Photos, tmp_path: Path, chosen: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=rf"a list of some of original, sift, turn, halve, .*; got {got}"):
        make(line(photos), tmp_path, chosen)
    assert not list(tmp_path.iterdir())


def test_nobody_is_asked_in_a_stage_that_was_not_chosen(photos: Photos, tmp_path: Path) -> None:
    make(line(photos), tmp_path, None)
    stages = line(photos)
    make(stages, tmp_path, ["turn", "halve"])
    assert [stage.asked for stage in stages[1:] if isinstance(stage, Pass)] == [[False], [True], [True]]


def test_a_chosen_stage_may_have_nothing_to_do(photos: Photos, tmp_path: Path) -> None:
    stages = line(photos, turn=Pass("turn", active=False))
    done = make(stages, tmp_path, ["original", "sift", "turn"])
    assert [stage.folder.name for stage in done] == ["0.original", "1.sifted"]


# The whole way, with the stages there are.


def scene(seed: int) -> np.ndarray:
    """A picture with as much in it as a photo."""
    cells = np.random.default_rng(seed).integers(0, 256, (13, 13, 3), dtype=np.uint8)
    return cv2.resize(cells, (320, 320), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos with landmarks, one of them twice, one that is smaller than it may be, and one that is none."""
    folder = tmp_path_factory.mktemp("source") / "My cats"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.jpg").write_bytes(encode(scene(seed), ".jpg"))
    (folder / "0-again.jpg").write_bytes(encode(scene(0)[3:-3, 3:-3], ".jpg"))
    (folder / "small.jpg").write_bytes(encode(scene(10)[:20], ".jpg"))
    for photo in folder.glob("*.jpg"):
        ears = "105 100 90 50 130 90 190 90 230 50 215 100"
        photo.with_name(f"{photo.name}.cat").write_text(f"9 120 130 200 130 160 195 {ears}")
    (folder / "none.jpg").write_bytes(b"a text")
    (folder / "5.jpg").rename(folder / "5.jpg_large")
    (folder / "5.jpg.cat").rename(folder / "5.jpg_large.cat")
    (folder / "notes.txt").write_bytes(b"a text")
    return folder


@pytest.fixture
def configured(root: Path, source: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes conf/prepare.yaml for these photos; a folder `data` of this test."""
    always = ["data=kaggle_cats", f"data.source='{source}'", f"root={tmp_path / 'data'}", "size=16"]

    def configured(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(root / "conf")):
            return hydra.compose("prepare", overrides=[*always, *overrides])

    return configured


def test_a_folder_of_photos_becomes_a_ready_set(
    configured: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(configured("augment.copies=3"))
    passed_over = "1 other file passed over: 1 not an image: .txt (notes.txt)"
    assert f"{passed_over}; passed_over.csv names them" in caplog.text
    stages = tmp_path / "data" / "stages" / "my-cats"
    folders = ["0.original", "1.no_duplicates", "3.zoomed", "4.verified", "5.augmented", "6.resized"]
    assert sorted(file.name for file in stages.iterdir()) == [".lock", *folders, "manifest.csv", "passed_over.csv"]
    assert (stages / "passed_over.csv").read_text() == "source,reason\nnotes.txt,not an image: .txt\n"
    refused = {record.source: record.reason for record in read_manifest(stages / "manifest.csv") if record.reason}
    assert refused["0-again.jpg"].startswith("duplicate: of 0.jpg")
    assert refused["small.jpg"].startswith("photo too small")
    assert refused["none.jpg"].startswith("not an image")
    ready = ReadySet.open(tmp_path / "data" / "ready" / "my-cats-16")
    ready.verify()
    assert len(ready) == 6 + 2 * 5  # one is held out
    assert f"Not taken for photos: {passed_over}." in (ready.path / "report.html").read_text()
    before = content(tmp_path)
    caplog.clear()
    run(configured("augment.copies=3"))
    assert content(tmp_path) == before
    run(configured("augment.copies=3", "stages=[duplicates]", "duplicates.threshold=0.7"))
    assert sum(record.message.startswith("zoom") for record in caplog.records) == 1  # only in the run before
    assert content(tmp_path / "data" / "ready") == content_of(before, "data/ready")


def test_it_never_ends_quietly_with_less_than_half(
    configured: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        (photos / f"{seed}.jpg").write_bytes(encode(scene(seed), ".jpg"))
    for name in "abc":
        (photos / f"{name}.jpg").touch()
    caplog.set_level(logging.INFO)
    cfg = configured(f"data.source='{photos}'", "zoom.cascades=false", "name=few")
    for chosen in (None, ["original"]):
        cfg.stages = chosen
        run(cfg)
        last = caplog.records[-1]
        assert last.levelno == logging.WARNING
        assert last.message.startswith("ONLY 2 OF 5 PHOTOS")
        assert "3  original: empty file  nothing" in last.message
    page = (tmp_path / "data" / "ready" / "few-16" / "report.html").read_text()
    assert page.index("Only 2 of 5 photos") < page.index("Stage by stage")


def test_who_has_one_photo_is_not_sent_to_train(
    configured: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(encode(scene(0), ".jpg"))
    caplog.set_level(logging.INFO)
    cfg = configured(f"data.source='{photos}'", "zoom.cascades=false", "augment.copies=3")
    run(cfg)
    assert "training needs at least 2" in caplog.text
    assert "Train on it" not in caplog.text
    (photos / "b.jpg").write_bytes(encode(scene(1), ".jpg"))
    run(cfg)
    assert "Train on it" in caplog.text


def test_what_keeps_photos_can_be_given_to_the_command(configured: Callable[..., DictConfig]) -> None:
    """Also a doubt of a stage of one's own, with spaces in it."""
    cfg = configured("verification.tolerate=[near-duplicate,no face found]", "zoom.whole=always")
    assert list(cfg.verification.tolerate) == ["near-duplicate", "no face found"]
    for node in cfg.pipeline[1:]:
        for word in instantiate(node).keeping.values():
            for changed in configured("background=remove", word).pipeline[1:]:
                instantiate(changed)  # it is a value that the stage takes


def fill(folder: Path, kind: str) -> Path:
    """A folder, or a file, in which there is no photo."""
    folder.mkdir()
    if kind == "hidden":
        (folder / ".secret").mkdir()
        (folder / ".secret" / "a.jpg").write_bytes(encode(scene(0), ".jpg"))
    if kind in ("texts", "zip"):
        (folder / "notes.txt").write_text("no photo")
    if kind == "folders":
        (folder / "a" / "b").mkdir(parents=True)
    if kind == "zip":
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            archive.write(folder / "notes.txt", "notes.txt")
        return folder.with_suffix(".zip")
    return folder


@pytest.mark.security
@pytest.mark.parametrize("kind", ["empty", "hidden", "texts", "folders", "zip"])
def test_no_photos_are_refused_before_anything_is_made(
    configured: Callable[..., DictConfig], tmp_path: Path, kind: str
) -> None:
    photos = fill(tmp_path / "photos", kind)
    with pytest.raises(DataError, match=r"no usable photo is there: none found.*data\.source=DIR") as caught:
        run(configured("data=photos", f"data.source='{photos}'"))
    assert "Loosen" not in str(caught.value)
    assert ("notes.txt" in str(caught.value)) is (kind in ("texts", "zip"))
    assert not (tmp_path / "data").exists()


@pytest.mark.security
def test_what_left_nothing_is_said_with_what_keeps_it(configured: Callable[..., DictConfig], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        (photos / f"{seed}.jpg").write_bytes(encode(scene(seed)[:20], ".jpg"))
    (photos / "text.jpg").write_bytes(b"a text")
    words = ("data=photos", f"data.source='{photos}'", "zoom.cascades=false")
    with pytest.raises(DataError, match="stage original, but all were left out: 2 photo too small, 1 not") as caught:
        run(configured(*words))
    said = str(caught.value)
    assert "To keep them: original.min_side=1 (photo too small). What cannot be read cannot be kept: give other" in said
    run(configured(*words, "original.min_side=1"))  # as it says


@pytest.mark.security
def test_what_stages_before_it_left_out_is_said_too(photos: Photos, tmp_path: Path) -> None:
    photos["text.jpg"] = b"a text"
    with pytest.raises(DataError, match="after stage halve, but all were left out: 1 dropped") as caught:
        make(
            line(photos, sift=Pass("sift", drop="1"), turn=Pass("turn", drop="2"), halve=Pass("halve", drop="0")),
            tmp_path,
            None,
        )
    said = str(caught.value)
    assert "Loosen its parameters. Before it, original: 4 images, 3 kept, 1 left out (1 not an image). " in said
    assert "Before it, sift: 3 images, 2 kept" in said
    assert said.endswith("Before it, turn: 2 images, 1 kept, 1 left out (1 dropped).")


@pytest.mark.security
def test_a_place_one_cannot_write_to_names_its_own_key(configured: Callable[..., DictConfig], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    for deeper in ("", "/x"):
        place = f"{tmp_path / 'data'}{deeper}"
        with pytest.raises(PlaceError, match=r"data cannot be used: .* is .*: root=DIR\.$"):
            run(configured(f"root={place}", f"data.root={place}/ready"))
    assert (tmp_path / "data").read_text() == "mine"


def test_what_is_prepared_already_is_refused(root: Path) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = hydra.compose("prepare", overrides=["data=ready", "data.source=x"])
    with pytest.raises(ConfigError, match=r"data=ready is prepared already\..*data=photos"):
        run(cfg)


def test_drawn_cats_are_not_taken_for_the_photos_that_were_named(root: Path, tmp_path: Path) -> None:
    with initialize_config_dir(str(root / "conf")):
        cfg = hydra.compose("prepare", overrides=["data.source=my_cats", f"root={tmp_path}"])
    with pytest.raises(ConfigError, match=r"draws its cats, and would not read data\.source=my_cats\. Add data=photos"):
        run(cfg)
    assert not list(tmp_path.iterdir())


def test_two_at_a_time_in_one_folder_are_refused(configured: Callable[..., DictConfig], tmp_path: Path) -> None:
    stages = tmp_path / "data" / "stages" / "my-cats"
    stages.mkdir(parents=True)
    other = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1); sys.stdin.read()"
    command = [sys.executable, "-u", "-c", other, str(stages / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        with pytest.raises(DataError, match="another prepare works in it"):
            run(configured())
        process.kill()
    run(configured())  # whoever was killed holds nothing


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path

conf, source, *paths = sys.argv[1:]
sys.path[:0] = paths
import hydra
from hydra import initialize_config_dir
from hydra.utils import get_class
from catsweep.data import sources
from catsweep.prepare import pipeline

with initialize_config_dir(conf):
    words = [f"data.source='{source}'", "data=kaggle_cats", "size=16", "augment.copies=3"]
    cfg = hydra.compose("prepare", overrides=words)
for stage in cfg.pipeline:
    get_class(stage._target_)  # imported once, so that no child is killed while it still imports

def begin(folder):
    Path(folder).mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        pipeline.run(cfg)
        os._exit(0)
    return child

started = time.perf_counter()
assert os.waitpid(begin("undisturbed"), 0)[1] == 0
took = time.perf_counter() - started
draws = random.Random(3)
killed = 0
while killed < 10:
    child = begin("disturbed")
    time.sleep(took * draws.uniform(0, 1))
    os.kill(child, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        killed += 1
    else:  # it came to its end before
        shutil.rmtree("disturbed")
assert os.waitpid(begin("disturbed"), 0)[1] == 0
"""


def test_killed_at_ten_random_moments_it_comes_to_the_same(root: Path, source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(root / "conf"), str(source), str(root / "src")]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    disturbed, undisturbed = content(tmp_path / "disturbed"), content(tmp_path / "undisturbed")
    assert sorted(disturbed) == sorted(undisturbed)
    assert [name for name in disturbed if disturbed[name] != undisturbed[name]] == []
    assert len(disturbed) > 40


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def content_of(files: dict[str, bytes], part: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{part}/"): data for name, data in files.items() if name.startswith(f"{part}/")}
