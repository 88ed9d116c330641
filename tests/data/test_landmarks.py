from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from catsweep.data import landmarks
from catsweep.data.decode import Unreadable
from catsweep.data.files import Folder

FACE = [[40, 50], [80, 50], [60, 85], [20, 30], [25, 0], [45, 20], [75, 20], [95, 0], [100, 30]]


def face(**moved: tuple[float, float]) -> NDArray[np.float64]:
    points = np.array(FACE, dtype=np.float64)
    for name, place in moved.items():
        points[["left", "right", "mouth"].index(name)] = place
    return points


def test_a_file_of_the_kaggle_set_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg.cat"
    file.write_text(
        "9 " + " ".join(str(value) for point in FACE for value in point) + " "
    )  # ends in a blank, as theirs
    np.testing.assert_array_equal(landmarks.read(Folder(tmp_path, ()), "x.jpg"), FACE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty file"),
        ("9 1 2 3", "got 4 words '9 1 2 3"),
        ("8" + " 1" * 18, "expected 9 and 18"),
        ("9" + " 1" * 19, "got 20 words"),
        ("9 eyes", "expected numbers"),
        ("9" + " 1" * 17 + " nan", "finite"),
        ("9" + " 1" * 17 + " inf", "finite"),
        ("9" + " 1" * 17 + " 1e300", "finite"),
        ("9 1" + " " * 5000, "at most 4,096"),
        ("9 é", "expected numbers"),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "x.jpg.cat"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Unreadable, match="malformed landmarks") as caught:
        landmarks.read(Folder(tmp_path, ()), "x.jpg")
    assert reason in caught.value.reason


def test_a_missing_file_is_refused_by_name_and_a_link_is_not_followed(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"no landmarks: x\.jpg\.cat is missing"):
        landmarks.read(Folder(tmp_path, ()), "x.jpg")
    (tmp_path / "y.jpg.cat").symlink_to("nowhere")
    with pytest.raises(Unreadable, match="malformed landmarks: not a regular file"):
        landmarks.read(Folder(tmp_path, ()), "y.jpg")


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (face(right=(40, 50)), "face too small: eyes 0.0 pixels"),
        (face(left=(60, 50), right=(64, 50)), "eyes 4.0 pixels apart, at least 8"),
        (face(left=(80, 50), right=(40, 50)), "left and right are exchanged"),
        (face(mouth=(60, 50)), "implausible landmarks: mouth at (0.50, 0.00)"),
        (face(mouth=(60, 53)), "implausible"),
        (face(mouth=(60, 140)), "implausible"),
        (face(mouth=(150, 85)), "implausible"),
        (face(mouth=(-40, 85)), "implausible"),
        (np.zeros((9, 2)), "face too small"),
    ],
)
def test_degenerate_landmarks_are_refused(points: NDArray[np.float64], reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        landmarks.check(points, min_eye_distance=8)
    assert reason in caught.value.reason


@given(angle=st.floats(-np.pi, np.pi), scale=st.floats(0.25, 50), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_a_face_is_a_face_wherever_it_is_and_however_it_is_turned(
    angle: float, scale: float, x: float, y: float
) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks.check(face() @ turn.T + [x, y], min_eye_distance=8)
    mirrored = face() * [-1, 1]
    with pytest.raises(Unreadable, match="exchanged"):
        landmarks.check(mirrored @ turn.T, min_eye_distance=8)
