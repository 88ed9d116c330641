from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist
from numpy.typing import NDArray
from tests.decoded import decode

from catsweep.errors import ConfigError, DataError
from catsweep.instantiation import instantiate
from catsweep.prepare.image_files import encode, read_image
from catsweep.prepare.manifest import Record, rounded
from catsweep.prepare.removers.onnx_remover import Onnx
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.background import Background

POINTS = rounded(np.linspace(3, 20, 18).reshape(9, 2))


class Left:
    """Takes the left part of each photo for the cat; counts, remembers, and can be told to fail."""

    reliability = 0.5

    def __init__(self, share: float = 0.5, edge: float = 0.0, fail_at: int | None = None, version: int = 1) -> None:
        self.share, self.edge, self.fail_at, self.version = share, edge, fail_at, version
        self.seen: list[NDArray[np.float64] | None] = []

    def parameters(self) -> dict[str, Any]:
        return {"name": "left", "version": self.version}

    def __call__(self, photo: NDArray[np.uint8], points: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(points)
        alpha = np.zeros(photo.shape[:2], np.uint8)
        alpha[:, : round(self.share * photo.shape[1])] = 255
        alpha[:, : round(self.edge * photo.shape[1])] = 128
        return alpha


def photos(folder: Path, n: int = 4) -> tuple[Record, ...]:
    """What stage 1 leaves: n photos of 40 x 24, the first with landmarks."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(n):
        image = np.full((24, 40, 3), 10 * number, np.uint8)
        image[:, 20:] = [0, 90, 10 * number]
        (folder / f"p{number}.jpg").write_bytes(encode(image, ".jpg"))
        records.append(
            Record("duplicates", f"p{number}", f"p{number}.jpg", sha256=str(number), file=f"p{number}.jpg", width=40,
                   height=24, doubts=("copy: of another",) if number == 1 else (),
                   landmarks=POINTS if number == 0 else None)
        )  # fmt: skip
    return tuple(records)


def made(stage: Background, root: Path, n: int = 4) -> StageOutput:
    return build(stage, root / "2.no_background", root / "1", photos(root / "1", n))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def doubts(remover: Left, root: Path, **given: Any) -> Iterable[str]:
    done = made(Background(remover, **given), root, n=1)
    return done.records[0].doubts


@pytest.mark.parametrize(("fill", "behind"), [("white", [255, 255, 255]), ("black", [0, 0, 0]), ("mean", [0, 90, 30])])
def test_the_cat_stays_and_the_fill_takes_the_place_of_the_rest(fill: str, behind: list[int], tmp_path: Path) -> None:
    done = made(Background(Left(), fill), tmp_path)
    image = read_image(done.folder / "p3.jpg")
    np.testing.assert_allclose(image[:, :18], 30, atol=3)
    np.testing.assert_allclose(image[:, 22:], np.broadcast_to(behind, (24, 18, 3)), atol=4)


def test_transparent_cut_outs_are_png_with_an_alpha(tmp_path: Path) -> None:
    done = made(Background(Left(), "transparent"), tmp_path)
    assert [record.file for record in done.records] == ["p0.png", "p1.png", "p2.png", "p3.png"]
    image = read_image(done.folder / "p3.png")
    np.testing.assert_array_equal(image[..., 3], np.repeat([[255] * 20 + [0] * 20], 24, axis=0))
    np.testing.assert_allclose(image[..., :3], 30, atol=4)  # also where it is hidden
    assert (done.folder / "contact_sheet.png").is_file()


def test_records_go_on_with_what_was_done_and_landmarks_where_they_were(tmp_path: Path) -> None:
    remover = Left(edge=0.05)
    before = photos(tmp_path / "1")
    done = made(Background(remover, "blur"), tmp_path)
    assert [point is not None for point in remover.seen].count(True) == 1
    for record, old in zip(done.records, before, strict=True):
        assert (record.id, record.landmarks, record.sha256, record.kept) == (old.id, old.landmarks, old.sha256, True)
        assert (record.stage, record.operation) == ("background", "remove background: blur")
        assert (record.width, record.height) == (40, 24)
        assert record.parameters == {"foreground": pytest.approx(0.45 + 0.05 * 128 / 255, abs=1e-4), "unsure": 0.1}
        assert record.confidence == 0.45  # 0.5 of the remover, and a tenth of it is unsure
        assert record.doubts == old.doubts


def test_odd_masks_are_for_a_person_to_look_at(tmp_path: Path) -> None:
    assert doubts(Left(0.5), tmp_path / "a") == ()
    assert doubts(Left(0.025), tmp_path / "b") == ("little foreground: 2.5% of the photo, at least 5% are expected",)
    assert doubts(Left(0), tmp_path / "c") == ("little foreground: 0.0% of the photo, at least 5% are expected",)
    assert doubts(Left(0.95), tmp_path / "d") == ("much foreground: 95.0% of the photo, at most 90% are expected",)
    (unsure,) = doubts(Left(0.5, edge=0.2), tmp_path / "e")
    assert unsure == "unsure mask: 40% of the foreground is half-transparent, 25% may be"
    assert doubts(Left(0.5, edge=0.2), tmp_path / "f", max_unsure=0.5) == ()
    assert doubts(Left(0.025), tmp_path / "g", min_foreground=0.02) == ()
    assert doubts(Left(0.95), tmp_path / "h", max_foreground=0.96) == ()
    done = made(Background(Left(0)), tmp_path / "i")
    assert done.records[1].doubts[0] == "copy: of another"  # those of earlier stages stay
    assert len(done.kept) == len(done.records)


def test_a_build_that_was_killed_goes_on_where_it_was_to_the_same_bytes(tmp_path: Path) -> None:
    undisturbed = files(made(Background(Left()), tmp_path / "a", n=12).folder)
    with pytest.raises(KeyboardInterrupt):
        made(Background(Left(fail_at=7)), tmp_path / "b", n=12)
    remover = Left()
    assert files(made(Background(remover), tmp_path / "b", n=12).folder) == undisturbed
    assert len(remover.seen) == 5
    again = Left()
    made(Background(again), tmp_path / "b", n=12)
    assert again.seen == []


@pytest.mark.parametrize(
    "other",
    [
        Background(Left(version=2)),
        Background(Left(), "black"),
        Background(Left(), min_foreground=0.1),
        Background(Left(), max_foreground=0.8),
        Background(Left(), max_unsure=0.1),
    ],
)
def test_another_remover_fill_or_bound_makes_it_again(other: Background, tmp_path: Path) -> None:
    first = made(Background(Left()), tmp_path)
    assert isinstance(other.remover, Left)
    other.remover.seen.clear()
    assert made(other, tmp_path).card["key"] != first.card["key"]
    assert len(other.remover.seen) == 4


def test_all_code_that_decides_masks_is_in_the_key() -> None:
    source = Path(__file__).parents[3] / "src" / "catsweep"
    written = {str(file.relative_to(source)) for file in (source / "prepare" / "removers").glob("*.py")}
    without_influence = {f"prepare/removers/{name}.py" for name in ("__init__", "isnet")}
    assert {*Background.code} == written - without_influence | {"prepare/stages/background.py"}


class Wrong(Left):
    def __init__(self, mask: Any) -> None:
        super().__init__()
        self.mask = mask

    def __call__(self, photo: NDArray[np.uint8], points: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        mask: NDArray[np.uint8] = self.mask
        return mask


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.ones((24, 40)), r"returned float64 \(24, 40\)"),
        (np.ones((40, 24), np.uint8), r"returned uint8 \(40, 24\)"),
        (np.ones((24, 40, 1), np.uint8), r"returned uint8 \(24, 40, 1\)"),
        (None, "returned NoneType"),
    ],
)
def test_a_remover_that_returns_no_mask_is_named(mask: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"Expected a mask, uint8 \(24, 40\), of Wrong, but it {said}"):
        made(Background(Wrong(mask)), tmp_path, n=1)


def test_a_cut_out_can_be_cut_out_again(tmp_path: Path) -> None:
    first = made(Background(Left(), "transparent"), tmp_path)
    second = build(Background(Left()), tmp_path / "again", first.folder, first.kept)
    np.testing.assert_array_equal(read_image(second.folder / "p2.jpg")[:, 24:], 255)


def stage_of(root: Path, *overrides: str) -> Background:
    with initialize_config_dir(str(root / "conf")):
        cfg = compose("prepare", list(overrides))
    with execution_whitelist(list(cfg.trust)):
        stage = instantiate(cfg.pipeline[2])
    assert isinstance(stage, Background)
    return stage


def test_the_groups_choose_remover_and_fill(root: Path, tmp_path: Path) -> None:
    assert not stage_of(root).active
    fallback = stage_of(root, "background=remove").parameters()
    assert fallback["remover"]["name"] == "grabcut"
    assert fallback["fill"] == "white"
    file = tmp_path / "isnet.onnx"
    file.write_bytes(b"weights")
    chosen = ["background=remove", "background/remover=onnx", "background.fill=blur"]
    onnx = stage_of(root, *chosen, f"background.remover.file={file}")
    assert onnx.active
    assert onnx.parameters()["remover"]["name"] == "onnx"
    assert onnx.parameters()["fill"] == "blur"
    default = stage_of(root, *chosen, "root=elsewhere").remover
    assert isinstance(default, Onnx)
    assert default.file == Path("elsewhere/models/isnet.onnx")
    rembg = stage_of(root, "background=remove", "background/remover=rembg", "background.remover.model=u2net").remover
    assert rembg is not None
    assert vars(rembg)["model"] == "u2net"
    with pytest.raises(ConfigError, match=r"background\.remover\.model="):
        stage_of(root, "background=remove", "background/remover=rembg")


def test_a_remover_of_ones_own_is_named_and_trusted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mylab_removers.py").write_text(
        "class Half:\n    reliability = 1.0\n    def parameters(self): return {'name': 'half'}\n"
        "    def __call__(self, photo, points):\n        alpha = photo[..., 0].copy()\n        alpha[:] = 0\n"
        "        alpha[:, :20] = 255\n        return alpha\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = ["background=remove", "~background/remover", "+background.remover._target_=mylab_removers.Half"]
    with pytest.raises(ConfigError, match="trust"):
        stage_of(root, *named)
    done = made(stage_of(root, *named, "trust=[mylab_removers.*]"), tmp_path)
    assert [record.parameters["foreground"] for record in done.records] == [0.5] * 4


@pytest.mark.photos
def test_the_network_that_make_fetches_finds_real_cats(root: Path, photos: Path) -> None:
    file = root / "data" / "models" / "isnet.onnx"
    if not file.is_file():
        pytest.skip("make background-model was not called")
    remove = Onnx(file)
    for name in ("001", "040"):
        alpha = remove(decode(photos / "masked" / f"{name}.jpg"), None)
        truth = cv2.imread(str(photos / "masked" / f"{name}.mask.png"), cv2.IMREAD_GRAYSCALE)
        assert truth is not None
        front = alpha >= 128
        assert (front & (truth > 127)).sum() / (front | (truth > 127)).sum() > 0.8
