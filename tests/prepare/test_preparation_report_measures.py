import cv2
import numpy as np
import pytest

from catsweep.data.align import similarity
from catsweep.prepare import preparation_report
from catsweep.prepare.manifest import Record


def zoomed(left: tuple[float, float], right: tuple[float, float], method: str = "landmarks") -> Record:
    """As stage `zoom` leaves a photo with these eyes."""
    matrix = similarity(np.array([left, right]), np.array([(130.0, 150.0), (230.0, 150.0)]))
    return Record("zoom", "x", "x.jpg", operation=f"zoom: {method}", parameters={"matrix": matrix.tolist()})


def test_brightness_runs_from_black_to_white_and_weighs_green_most() -> None:
    def plain(*colour: int) -> np.ndarray:
        return np.full((4, 6, 3), colour, np.uint8)

    assert preparation_report.brightness(plain(0, 0, 0)) == 0
    assert preparation_report.brightness(plain(255, 255, 255)) == 255
    red, green, blue = (preparation_report.brightness(plain(*colour)) for colour in np.eye(3, dtype=int) * 200)
    assert green > red > blue


def test_sharpness_falls_when_an_image_is_blurred() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sharp, soft, softer = (
        preparation_report.sharpness(cv2.GaussianBlur(image, (0, 0), s) if s else image) for s in (0, 1, 3)
    )
    assert sharp > soft > softer
    assert preparation_report.sharpness(np.full((8, 8, 3), 90, np.uint8)) == 0


@pytest.mark.parametrize(("right", "degrees"), [((100, 50), 0), ((100, 100), 45), ((50, 100), 90), ((100, 0), -45)])
def test_a_head_tilted_clockwise_has_its_right_eye_lower(right: tuple[float, float], degrees: float) -> None:
    assert preparation_report.head_tilts([zoomed((50, 50), right)]) == [pytest.approx(degrees)]


def test_only_faces_have_a_tilt() -> None:
    records = [zoomed((0, 0), (9, 9), "centre"), Record("resize", "x", "x.jpg"), zoomed((0, 0), (9, 9), "cascade")]
    assert preparation_report.head_tilts(records) == [pytest.approx(45)]


def test_enlargements_are_those_of_the_stage_that_enlarges() -> None:
    records = [Record("zoom", "x", "x.jpg", parameters={"enlarged": 1.5}), Record("resize", "x", "x.jpg")]
    assert preparation_report.face_enlargements(records) == [1.5]


def test_the_method_is_the_second_part_of_the_operation() -> None:
    assert (
        preparation_report.method_of(Record("zoom", "x", "x.jpg", operation="zoom: cascade rotated"))
        == "cascade rotated"
    )
    assert preparation_report.method_of(Record("resize", "x", "x.jpg", operation="resize")) == "resize"
