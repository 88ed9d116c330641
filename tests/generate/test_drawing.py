"""From the configuration to the file, with the toy; and the command line with a bundle."""

import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

import catsweep.runs
from catsweep.errors import ConfigError, DataError
from catsweep.generate import drawing
from catsweep.models.generator import draw_latents, interpolate

Config = Callable[..., DictConfig]
Cells = Callable[[Path], np.ndarray]


@pytest.fixture
def draw(monkeypatch, tmp_path, toy, config: Config, cells: Cells):
    """Draws with the toy as a run; returns the colours of the page's cells, shape (rows, columns, 3)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catsweep.runs, "load_run", lambda run, name: (toy, None))
    return lambda **changes: cells(drawing.run(config(run="run", overwrite=True, **changes)))


def test_page_shows_the_cats_of_the_seed(draw, painted) -> None:
    page = draw(n=6, seed=7, columns=3)
    assert page.shape == (2, 3, 3)
    assert np.array_equal(page.reshape(6, 3), painted(draw_latents(6, 5, seed=7)))


def test_more_cats_begin_with_the_same_ones(draw) -> None:
    few, many = (draw(n=n, columns=1) for n in (3, 5))
    assert np.array_equal(few, many[:3])


def test_page_is_as_square_as_possible(draw) -> None:
    assert draw(n=64).shape == (8, 8, 3)


def test_truncation_pulls_towards_the_mean(draw, painted) -> None:
    page = draw(n=4, columns=4, truncation=0.25)
    assert np.array_equal(page[0], painted(0.25 * draw_latents(4, 5, seed=0)))


def test_each_row_walks_from_one_cat_to_another(draw, painted) -> None:
    page = draw(n=16, interpolate=5, seed=3, columns=2)
    ends = painted(draw_latents(6, 5, seed=3))
    assert page.shape == (3, 5, 3)  # three whole rows fit into 16
    assert np.array_equal(page[:, 0], ends[0::2])
    assert np.array_equal(page[:, -1], ends[1::2])
    assert not np.array_equal(page[:, 1], page[:, 0])


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animation_walks_through_the_cats_and_back(draw, painted, config, suffix) -> None:
    out = drawing.run(config(run="run", n=12, interpolate=4, seed=3, fps=10, out=f"walk{suffix}"))
    stops = draw_latents(3, 5, seed=3)
    legs = [interpolate(stops[a], stops[b], 5)[:4] for a, b in ((0, 1), (1, 2), (2, 0))]
    expected = np.concatenate([painted(leg) for leg in legs])
    with Image.open(out) as image:
        assert image.n_frames == 12
        assert image.info["loop"] == 0
        seen = []
        for number in range(12):
            image.seek(number)
            image.load()
            assert image.info["duration"] == 100
            seen.append(np.asarray(image.convert("RGB"))[1, 1])
    assert np.abs(np.array(seen).astype(int) - expected).max() <= 6  # neither format is lossless


def test_folder_has_one_png_per_cat(draw, painted, config) -> None:
    out = drawing.run(config(run="run", n=3, seed=5, out="cats"))
    assert sorted(path.name for path in out.iterdir()) == [f"cat_5_000{number}.png" for number in range(3)]
    with Image.open(out / "cat_5_0002.png") as image:
        assert image.size == (4, 4)
        assert image.getpixel((0, 0)) == tuple(painted(draw_latents(3, 5, seed=5))[2])


def test_images_are_enlarged(draw, config) -> None:
    with Image.open(drawing.run(config(run="run", n=4, scale=5))) as image:
        assert image.size == (2 * 22 + 2, 2 * 22 + 2)


# Own photos.


def test_reconstructions_stand_below_the_photos(draw, photos) -> None:
    page = draw(photos=str(photos("own", 30, 60, 90, 120, 150)), columns=3)
    assert page.shape == (4, 3, 3)
    assert page[..., 0].tolist() == [[30, 60, 90], [30, 60, 90], [120, 150, 255], [120, 150, 255]]  # 255: no photo


def test_a_single_photo_is_enough(draw, photos) -> None:
    assert draw(photos=str(photos("own", 30) / "0.png"))[..., 0].tolist() == [[30], [30]]


def test_photos_beyond_n_are_told(draw, photos, capsys) -> None:
    assert draw(photos=str(photos("own", 30, 60, 90)), n=2).shape == (2, 2, 3)
    assert "The first 2 of 3 photos" in capsys.readouterr().err


def test_photos_into_a_folder_are_pairs_with_their_names(draw, photos, config) -> None:
    out = drawing.run(config(run="run", photos=str(photos("own", 30, 60)), out="pairs"))
    assert sorted(path.name for path in out.iterdir()) == ["0000_0.png", "0001_1.png"]
    with Image.open(out / "0001_1.png") as image:
        assert image.size == (2 * 6 + 2, 6 + 2)


def test_a_walk_goes_through_own_photos(draw, photos) -> None:
    page = draw(photos=str(photos("own", 30, 60, 90)), interpolate=3, n=9)
    assert page[:, [0, 2], 0].tolist() == [[30, 60], [60, 90], [90, 30]]


def test_a_walk_through_two_photos_is_one_row(draw, photos) -> None:
    assert draw(photos=str(photos("own", 30, 60)), interpolate=3, n=9).shape == (1, 3, 3)


def test_a_walk_needs_two_photos(draw, photos) -> None:
    with pytest.raises(ConfigError, match="at least 2 photos"):
        draw(photos=str(photos("own", 30)), interpolate=3)


def test_photos_that_cannot_be_read_are_told_and_left_out(draw, photos, capsys) -> None:
    folder = photos("own", 30)
    (folder / "broken.jpg").write_bytes(b"no photo")
    assert draw(photos=str(folder)).shape == (2, 1, 3)
    assert "Left out of photos: broken.jpg (" in capsys.readouterr().err


# Attributes.


def test_a_measured_attribute_grows_from_left_to_right(draw, capsys, painted) -> None:
    page = draw(attribute_measure="brightness", n=10, attribute_steps=5, seed=2, attribute_draws=256)
    assert page.shape == (2, 5, 3)
    assert (np.diff(page.mean(2)) > 0).all()
    assert np.array_equal(page[:, 2], painted(draw_latents(2, 5, seed=2)))
    assert "brightness: 0." in capsys.readouterr().err


def test_photos_sorted_by_hand_are_an_attribute(draw, photos, capsys, painted) -> None:
    having, lacking = photos("light", 180, 200, 220), photos("dark", 40, 60, 80)
    page = draw(attribute_with=str(having), attribute_without=str(lacking), n=3, attribute_steps=3)
    base = draw_latents(1, 5, seed=0)
    step = 2 / 3**0.5  # grey photos differ in three numbers alike
    moved = base + torch.tensor([[-step], [0], [step]]) * torch.tensor([1, 1, 1, 0, 0])
    assert np.abs(page[0] - painted(moved)).max() <= 1
    assert "light: 6 of 6 photos lie on its side" in capsys.readouterr().err


def test_own_photos_move_along_an_attribute(draw, photos) -> None:
    page = draw(attribute_measure="brightness", photos=str(photos("own", 100, 140)), n=6, attribute_steps=3)
    assert page.shape == (2, 4, 3)  # the photo, then three steps
    assert page[:, 0, 0].tolist() == page[:, 2, 0].tolist() == [100, 140]
    assert (page[:, 1] < page[:, 2]).all()
    assert (page[:, 2] < page[:, 3]).all()


def test_what_all_cats_share_is_no_attribute(draw) -> None:
    with pytest.raises(ConfigError, match="All cats have the same contrast"):
        draw(attribute_measure="contrast")


def test_the_same_photos_with_and_without_are_no_attribute(draw, photos) -> None:
    folder = str(photos("own", 30, 60))
    with pytest.raises(DataError, match="same latents on average"):
        draw(attribute_with=folder, attribute_without=folder)


# A model that cannot take in a photo.


@pytest.mark.parametrize("keys", [("photos",), ("attribute_with", "attribute_without")])
def test_photos_of_a_generator_without_encoder(monkeypatch, config, photos, blind, bundle, keys) -> None:
    folder = str(photos("own", 30, 60))
    monkeypatch.setattr(catsweep.runs, "load_run", lambda run, name: (blind, None))
    for source in ({"run": "run"}, {"bundle": str(bundle(reconstructs=False))}):
        with pytest.raises(ConfigError, match=r"no encoder, like every DCGAN\. Take a VAE .* attribute\.measure works"):
            drawing.run(config(**source, **dict.fromkeys(keys, folder)))


# Where to.


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "generated_0.png"),
        ({"seed": 4}, "generated_4.png"),
        ({"interpolate": 2}, "interpolation_0.png"),
        ({"attribute_measure": "warmth", "attribute_steps": 2}, "attribute_warmth_0.png"),
    ],
)
def test_page_goes_to_the_run_folder_and_is_printed(draw, tmp_path, capsys, changes, name) -> None:
    draw(n=4, **changes)
    assert capsys.readouterr().out == f"{Path('run') / name}\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_nothing_is_added_to_a_bundle(monkeypatch, tmp_path, config, bundle) -> None:
    monkeypatch.chdir(tmp_path)
    folder = bundle()
    before = sorted(folder.iterdir())
    assert drawing.run(config(bundle=str(folder), n=1)) == Path("outputs/generated/toy-1/generated_0.png")
    assert sorted(folder.iterdir()) == before


def test_what_is_replaced_is_told(draw, config, capsys, tmp_path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "mine.txt").touch()
    assert capsys.readouterr().err == ""
    drawing.run(config(run="run", n=1, out="cats", overwrite=True))
    assert "and left others, in cats" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "cats").iterdir()) == ["cat_0_0000.png", "mine.txt"]
    for told in ("", "Replaced what was there: cats.png\n"):
        drawing.run(config(run="run", n=1, out="cats.png", overwrite=True))
        assert capsys.readouterr().err == told


def test_bundle_draws_the_cats_of_the_seed(config, cells, painted, bundle, tmp_path) -> None:
    page = cells(drawing.run(config(bundle=str(bundle()), n=3, columns=3, out=str(tmp_path / "new" / "cats.PNG"))))
    assert np.array_equal(page[0], painted(draw_latents(3, 5, seed=0)))


def test_bundle_draws_photos_again_without_torch_weights(config, cells, bundle, photos, tmp_path) -> None:
    own = str(photos("own", 30, 60))
    page = cells(drawing.run(config(bundle=str(bundle()), photos=own, out=str(tmp_path / "own.png"))))
    assert page[..., 0].tolist() == [[30, 60], [30, 60]]


def test_latents_of_photos_come_from_the_torch_model_of_a_bundle(
    monkeypatch, config, cells, bundle, photos, tmp_path, toy
) -> None:
    import catsweep.export.weights

    folder = bundle()
    monkeypatch.setattr(catsweep.export.weights, "load", lambda given: toy if given == folder else None)
    keys = {"photos": str(photos("own", 30, 60)), "interpolate": 3, "out": str(tmp_path / "own.png")}
    assert cells(drawing.run(config(bundle=str(folder), **keys)))[0, :, 0].tolist()[::2] == [30, 60]


def test_command_line_draws_without_lightning_and_leaves_only_the_page(root, bundle, tmp_path) -> None:
    command_line = [sys.executable, "-X", "importtime", str(root / "src" / "generate.py"), f"bundle={bundle()}", "n=4"]
    (tmp_path / "here").mkdir()
    result = subprocess.run(
        [*command_line, "out=cats.png"], cwd=tmp_path / "here", capture_output=True, text=True, check=True
    )
    assert result.stdout == "cats.png\n"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["cats.png"]
    assert " torch\n" in result.stderr
    assert " pytorch_lightning\n" not in result.stderr


@pytest.mark.security
def test_files_that_are_named_after_photos_have_plain_names(draw, config, tmp_path) -> None:
    """In an archive a photo may be called anything."""
    (photo := io.BytesIO(), Image.new("RGB", (40, 40)).save(photo, "PNG"))
    names = ["a\\b.png", "line\nbreak.png", "x" * 250 + ".png", "deep/con.png", "\u202egnp.png"]
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name in names:
            archive.writestr(name, photo.getvalue())
    out = drawing.run(config(run="run", photos=str(tmp_path / "own.zip"), out="pairs"))
    made = sorted(path.name for path in out.iterdir())
    assert len(made) == len(names)
    assert all(re.fullmatch(r"000\d_[\w-]{1,60}\.png", name) for name in made)
