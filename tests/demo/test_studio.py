"""What the demo draws, without a browser: the pixels of `python src/generate.py`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from catsweep.demo.studio import Studio
from catsweep.errors import CatsweepError, ConfigError
from catsweep.generation import attributes, command
from catsweep.generation.sources import Source
from catsweep.models.generator import draw_latents


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def studio(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Source(bundle), tmp_path_factory.mktemp("studio"))


def test_cats_are_those_of_the_command_line(studio: Studio, bundle: Path, root: Path, tmp_path: Path) -> None:
    keys = OmegaConf.load(root / "conf" / "generate.yaml")
    cfg = OmegaConf.create({key: keys[key] for key in keys if key not in ("defaults", "hydra")})
    drawn = {"bundle": str(bundle), "n": 10, "seed": 7, "truncation": 0.7, "out": str(tmp_path / "cats.png")}
    page = studio.cats(10, 7, 0.7, dict.fromkeys(studio.attributes, 0.0))
    assert page.read_bytes() == command.run(OmegaConf.merge(cfg, drawn)).read_bytes()
    assert page.name == "cats_7.png"


def test_attributes_do_what_they_are_called(studio: Studio) -> None:
    assert list(studio.attributes) == list(attributes.MEASURES)
    for name in ("brightness", "warmth"):
        less, more = (pixels(studio.cats(16, 0, 0.8, {name: strength}))[None] for strength in (-2.0, 2.0))
        assert attributes.MEASURES[name](less) < attributes.MEASURES[name](more)


def test_the_same_picture_has_the_same_address_and_another_has_another(studio: Studio) -> None:
    one, two = studio.cats(4, 0, 1.0, {}), studio.cats(4, 0, 0.9, {})
    assert one == studio.cats(4, 0, 1.0, {})
    assert one.parent != two.parent


def test_a_walk_goes_from_cat_to_cat_and_back(studio: Studio) -> None:
    ends = torch.cat([draw_latents(1, studio.model.latent_size, seed) for seed in (3, 4)])
    colours = studio.model.decode(ends).mean((2, 3)).numpy() * 255
    for suffix in (".webp", ".gif"):
        path = studio.walk(3, 4, 5, 1.0, suffix)
        assert path.name == f"walk_3_4{suffix}"
        with Image.open(path) as image:
            assert (image.n_frames, image.size, image.info["loop"]) == (10, (256, 256), 0)
            for frame, colour in zip((0, 5), colours, strict=True):
                image.seek(frame)
                assert np.asarray(image.convert("RGB")).mean((0, 1)) == pytest.approx(colour, abs=4)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.full((40, 60, 3), (200, 100, 50), np.uint8)).save(tmp_path / "mine.png")
    return tmp_path / "mine.png"


def test_a_photo_stands_beside_its_reconstruction(studio: Studio, photo: Path) -> None:
    page = pixels(studio.photo(str(photo), {}))
    assert page.shape == (32 + 4, 2 * 34 + 2, 3)
    assert page[15, 15].tolist() == [200, 100, 50]
    assert page[15, 50].tolist() == [100, 50, 25]


def test_a_photo_moves_by_its_latents(studio: Studio, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy:
        latent_size, image_size = studio.model.latent_size, studio.model.image_size
        decode, reconstruct = studio.model.decode, None

        def latents_of(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), self.latent_size)

    monkeypatch.setattr(Source, "encoder", property(lambda self: Toy()))
    page = pixels(studio.photo(str(photo), {"warmth": 2.5}))
    drawn = studio.model.decode(2.5 * studio.attributes["warmth"][None])[0].permute(1, 2, 0) * 255
    assert np.array_equal(page[2:34, 36:68], drawn.round().numpy())
    assert page[15, 15].tolist() == [200, 100, 50]


def test_what_is_no_photo_is_an_error(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"no photo")
    with pytest.raises(CatsweepError, match=r"^mine\.jpg cannot be used: .*\. Take another photo\."):
        studio.photo(str(tmp_path / "mine.jpg"), {})


def test_a_generator_without_encoder_takes_no_photo(
    blind_bundle: Path, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes.measured, "__defaults__", (64,))
    studio = Studio(Source(blind_bundle), tmp_path)
    assert not studio.source.reconstructs
    assert studio.cats(1, 0, 1.0, {"brightness": 1.0}).exists()
    with pytest.raises(ConfigError, match="no encoder"):
        studio.photo(str(photo), {"brightness": 1.0})
