import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.decoded import decode_bytes

from catsweep.data import landmarks
from catsweep.data.decode import MAX_BYTES, decoding
from catsweep.data.files import Files
from catsweep.data.sources import DemoCats, Photos
from catsweep.errors import DataError
from catsweep.prepare.image_files import read_image
from catsweep.prepare.manifest import Record
from catsweep.prepare.pipeline import rows
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages import original
from catsweep.prepare.stages.original import Original, identity

POINTS = "9 " + " ".join(str(value) for value in range(10, 46, 2))


def ingest(files: Files, root: Path, **options: Any) -> StageOutput:
    stage = Original(files, **options)
    return build(stage, root / "0.original", root, stage.inputs())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "stages").mkdir()
    return tmp_path / "stages"


def save(path: Path, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    draws = np.random.default_rng(seed)
    pixels = np.kron(draws.integers(30, 225, (4, 4, 3), dtype=np.uint8), np.ones((64, 64, 1), np.uint8))[
        :height, :width
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=97, subsampling=0)
    return pixels


def test_each_photo_is_saved_clean_with_all_that_is_known_of_it(tmp_path: Path, place: Path) -> None:
    pixels = save(tmp_path / "in" / "sub" / "My Cat (1).JPG", 60, 80)
    data = (tmp_path / "in" / "sub" / "My Cat (1).JPG").read_bytes()
    done = ingest(Photos(tmp_path / "in").files, place)
    (record,) = done.records
    sha256 = hashlib.sha256(data).hexdigest()
    assert record == Record(
        "original", record.id, "sub/My Cat (1).JPG", sha256, sha256, operation="decode", bytes=len(data),
        parameters={"width": 80, "height": 60}, width=80, height=60, file=f"{record.id}.jpg", digest=record.digest,
        mark=record.mark,
    )  # fmt: skip
    assert record.id.startswith("My-Cat-1-")
    assert np.abs(read_image(done.folder / record.file).astype(int) - pixels).mean() < 3
    assert hashlib.sha256((done.folder / record.file).read_bytes()).hexdigest() == record.digest


def test_large_photos_are_shrunk_and_their_landmarks_with_them(tmp_path: Path, place: Path) -> None:
    save(tmp_path / "in" / "x.jpg", 128, 256)
    (tmp_path / "in" / "x.jpg.cat").write_text(POINTS)
    (record,) = ingest(Photos(tmp_path / "in").files, place, max_side=64).records
    assert (record.width, record.height) == (64, 32)
    assert record.parameters == {"width": 256, "height": 128}
    assert record.points is not None
    np.testing.assert_allclose(record.points, (np.arange(10, 46, 2).reshape(9, 2) + 0.5) / 4 - 0.5, atol=0.006)


def test_landmarks_that_cannot_be_read_cost_no_photo(tmp_path: Path, place: Path) -> None:
    save(tmp_path / "in" / "x.jpg", 60, 80)
    (tmp_path / "in" / "x.jpg.cat").write_text("meow")
    (record,) = ingest(Photos(tmp_path / "in").files, place).records
    assert record.kept
    assert record.landmarks is None
    assert record.parameters["landmarks"].startswith("malformed landmarks: ")


def test_what_was_assumed_of_a_photo_goes_into_both_manifests(tmp_path: Path, place: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((60, 80), 2000, np.uint16)).save(tmp_path / "in" / "deep.tif")
    Image.new("RGB", (80, 60), (200, 40, 40)).save(tmp_path / "in" / "plain.png", icc_profile=b"cat food")
    save(tmp_path / "in" / "x.jpg", 60, 80)
    done = ingest(Photos(tmp_path / "in").files, place)
    deep, plain, other = ("; ".join(record.parameters.get("notes", ())) for record in done.records)
    assert deep == "levels by their range: the largest is 2,000, so 4,095 is white"
    assert plain.startswith("colour profile ignored: ")
    assert other == ""
    assert [row.notes for row in rows([done, done])] == [deep, plain, other]


@pytest.mark.parametrize(
    ("height", "width", "reason"),
    [
        (31, 80, "photo too small: 80 x 31 pixels, at least 32 are needed"),
        (40, 250, "photo too narrow: 250 x 40 pixels, and its longer side is to be 128"),
    ],
)
def test_what_is_too_small_is_refused(tmp_path: Path, place: Path, height: int, width: int, reason: str) -> None:
    save(tmp_path / "in" / "x.jpg", height, width)
    save(tmp_path / "in" / "y.jpg", 60, 80)
    small, _ = ingest(Photos(tmp_path / "in").files, place, max_side=128).records
    assert (small.kept, small.reason, small.file) == (False, reason, "")
    assert small.sha256


def test_an_empty_folder_is_an_error(tmp_path: Path, place: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="Expected images to be left"):
        ingest(Photos(tmp_path / "in").files, place)


def test_it_is_made_again_exactly_if_a_file_changed(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"{number}.jpg", 60, 80, seed=number)
    (tmp_path / "in" / "0.jpg.cat").write_text(POINTS)
    decoded: list[int] = []
    real = decoding

    def counted(data: bytes) -> Any:
        decoded.append(len(data))
        return real(data)

    monkeypatch.setattr(original, "decoding", counted)

    def runs() -> int:
        decoded.clear()
        ingest(Photos(tmp_path / "in").files, place)
        return len(decoded)

    assert runs() == 3
    assert runs() == 0
    save(tmp_path / "in" / "1.jpg", 60, 80, seed=9)
    assert runs() == 1
    (tmp_path / "in" / "0.jpg.cat").write_text(POINTS + " ")
    assert runs() == 1
    (tmp_path / "in" / "2.jpg").rename(tmp_path / "in" / "3.jpg")
    assert runs() == 1
    (tmp_path / "in" / "0.jpg.cat").unlink()
    assert runs() == 1
    (tmp_path / "in" / "notes.txt").write_text("not a photo")
    assert runs() == 0


def test_installing_what_reads_more_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Original(Photos(tmp_path).files)
    assert stage.parameters()["heif"] is True
    monkeypatch.setattr(original, "heif_is_there", lambda: False)
    assert stage.parameters()["heif"] is False


def test_demo_cats_pass_through_with_their_landmarks(place: Path) -> None:
    cats = DemoCats(3, seed=5).files
    done = ingest(cats, place)
    assert [record.source for record in done.kept] == ["cat-000000.png", "cat-000001.png", "cat-000002.png"]
    for record in done.kept:
        assert (record.width, record.height) == (256, 256)
        assert record.points is not None
        np.testing.assert_allclose(record.points, landmarks.read(cats, record.source), atol=0.011)
        picture = decode_bytes(cats.read(record.source))
        assert np.abs(read_image(done.folder / record.file).astype(int) - picture).mean() < 3


# --- names ---------------------------------------------------------------------------------------------------------

ALIKE = [
    "a.jpg", "A.jpg", "a.JPG", "a.png", "b/a.jpg", "a .jpg", " a.jpg", "a-.jpg", "ä.jpg",
    unicodedata.normalize("NFD", "ä.jpg"), "con.jpg", "x" * 250 + "1.jpg", "x" * 250 + "2.jpg", "猫.jpg",
    "犬.jpg", ".jpg",
]  # fmt: skip


def test_names_that_a_file_system_may_take_for_one_stay_apart() -> None:
    assert len({identity(name).lower() for name in ALIKE}) == len(ALIKE)
    assert identity("cats/Tom 1.jpg") == identity("cats/Tom 1.jpg") != identity("dogs/Tom 1.jpg")


@given(name=st.one_of(st.text(min_size=1), st.binary(min_size=1).map(lambda raw: raw.decode(errors="surrogateescape"))))
def test_any_name_becomes_one_that_any_file_system_takes(name: str) -> None:
    short = identity(name)
    assert 12 <= len(short) <= 53
    assert short.isascii()
    assert short.replace("-", "").isalnum()


def test_many_names_without_letters_stay_apart() -> None:
    assert len({identity(f"{'猫' * (number % 7)}{chr(0x4E00 + number)}.jpg") for number in range(20_000)}) == 20_000


@pytest.mark.photos
def test_real_photos_are_all_kept(photos: Path, place: Path) -> None:
    class Some(Files):
        """Each fortieth, for the whole folder takes a minute."""

        def __init__(self, files: Files) -> None:
            self.files = files

        def __iter__(self) -> Iterator[str]:
            return iter(list(self.files)[::40])

        def __contains__(self, name: object) -> bool:
            return name in self.files

        def size(self, name: str) -> int:
            return self.files.size(name)

        def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
            return self.files.read(name, limit)

        def digest(self, name: str) -> str:
            return self.files.digest(name)

    done = ingest(Some(Photos(photos / "cats").files), place)
    assert len(done.kept) == len(done.records) == 43
    assert all(record.landmarks is not None for record in done.kept)
