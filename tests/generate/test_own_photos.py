"""A person's own photos: cut as data=photos cuts them; what is no photo is an error or is told."""

import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catsweep.data.sources import Photos
from catsweep.errors import ConfigError, DataError
from catsweep.generate.own_photos import OwnPhotos, list_reasons


@pytest.fixture
def noisy(tmp_path):
    folder = tmp_path / "noisy"
    (folder / "deep").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), np.uint8)
    Image.fromarray(noise[0]).save(folder / "a.png")
    Image.fromarray(noise[1]).save(folder / "deep" / "b.jpg")
    return folder


def test_photos_are_cut_as_for_training(noisy) -> None:
    own = OwnPhotos(str(noisy), "photos").read(16)
    trained: list[Any] = [item.image for item in Photos(noisy).items(16)]
    assert np.array_equal(own.images, trained)
    assert (own.names, own.left_out, own.found) == (["a.png", "deep/b.jpg"], {}, 2)


def test_archives_single_photos_and_links_are_read(noisy, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(noisy / "a.png", "a.png")
    (tmp_path / "link.png").symlink_to(noisy / "a.png")
    expected = OwnPhotos(str(noisy), "photos").read(16, most=1).images
    for path in (tmp_path / "photos.zip", noisy / "a.png", tmp_path / "link.png"):
        own = OwnPhotos(str(path), "photos")
        assert len(own.photos) == 1
        assert np.array_equal(own.read(16).images, expected)


def test_what_holds_no_photo_is_refused_at_once(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    for path, wrong in (
        (tmp_path, "holds no photo. Expected at least one image file, but: 1 other file passed over"),
        (tmp_path / "notes.txt", "is neither a photo nor a whole zip or tar"),
        (tmp_path / "nowhere", "is not there. Expected a photo, or a folder, zip or tar"),
    ):
        with pytest.raises(ConfigError, match=f"attribute.with={path} {wrong}"):
            OwnPhotos(str(path), "attribute.with")


def test_a_photo_under_any_name_is_one_and_what_is_passed_over_is_known(noisy) -> None:
    expected = OwnPhotos(str(noisy), "photos").read(16, most=1).images
    (noisy / "a.png").rename(noisy / "a")
    (noisy / "notes.txt").write_text("no photo")
    assert np.array_equal(OwnPhotos(str(noisy / "a"), "photos").read(16).images, expected)
    assert OwnPhotos(str(noisy / "a"), "photos").passed_over() == {}
    assert OwnPhotos(str(noisy), "photos").photos == ["a", "deep/b.jpg"]
    assert OwnPhotos(str(noisy), "photos").passed_over() == {"notes.txt": "not an image: .txt"}


def test_photos_of_which_none_can_be_read(tmp_path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"No photo of photos=.* can be used: 0\.jpg \(.*\); .*; and 2 more\."):
        OwnPhotos(str(tmp_path), "photos").read(16)


def test_broken_photos_do_not_count(noisy) -> None:
    (noisy / "0.jpg").write_bytes(b"broken")
    own = OwnPhotos(str(noisy), "photos").read(16, most=1)
    assert (own.names, list(own.left_out), own.found) == (["a.png"], ["0.jpg"], 3)


def test_a_few_reasons_are_said() -> None:
    assert list_reasons({"a": "x", "b": "y"}) == "a (x); b (y)"
    assert list_reasons(dict.fromkeys("abcd", "x")) == "a (x); b (x); c (x); and 1 more"
