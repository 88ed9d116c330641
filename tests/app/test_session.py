"""What the demo draws, without a browser: the pixels of `python src/generate.py`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from catsweep.app.session import Session
from catsweep.errors import CatsweepError, ConfigError
from catsweep.generate import drawing, interpolation
from catsweep.generate.model_source import Source
from catsweep.models.generator import draw_latents


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def session(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(Source(bundle), tmp_path_factory.mktemp("session"))


def test_cats_are_those_of_the_command_line(session: Session, bundle: Path, root: Path, tmp_path: Path) -> None:
    keys = OmegaConf.load(root / "conf" / "generate.yaml")
    cfg = OmegaConf.create({key: keys[key] for key in keys if key not in ("defaults", "hydra")})
    drawn = {"bundle": str(bundle), "n": 10, "seed": 7, "truncation": 0.7, "out": str(tmp_path / "cats.png")}
    page = session.cats(10, 7, 0.7, dict.fromkeys(session.attributes, 0.0))
    assert page.read_bytes() == drawing.run(OmegaConf.merge(cfg, drawn)).read_bytes()
    assert page.name == "cats_7.png"


def test_attributes_do_what_they_are_called(session: Session) -> None:
    assert list(session.attributes) == list(interpolation.MEASURES)
    for name in ("brightness", "warmth"):
        less, more = (pixels(session.cats(16, 0, 0.8, {name: strength}))[None] for strength in (-2.0, 2.0))
        assert interpolation.MEASURES[name](less) < interpolation.MEASURES[name](more)


def test_the_same_picture_has_the_same_address_and_another_has_another(session: Session) -> None:
    one, two = session.cats(4, 0, 1.0, {}), session.cats(4, 0, 0.9, {})
    assert one == session.cats(4, 0, 1.0, {})
    assert one.parent != two.parent


def test_a_walk_goes_from_cat_to_cat_and_back(session: Session) -> None:
    ends = torch.cat([draw_latents(1, session.model.latent_size, seed) for seed in (3, 4)])
    colours = session.model.decode(ends).mean((2, 3)).numpy() * 255
    for suffix in (".webp", ".gif"):
        path = session.walk(3, 4, 5, 1.0, suffix)
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


def test_a_photo_stands_beside_its_reconstruction(session: Session, photo: Path) -> None:
    page = pixels(session.photo(str(photo), {}))
    assert page.shape == (32 + 4, 2 * 34 + 2, 3)
    assert page[15, 15].tolist() == [200, 100, 50]
    assert page[15, 50].tolist() == [100, 50, 25]


def test_a_photo_moves_by_its_latents(session: Session, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy:
        latent_size, image_size = session.model.latent_size, session.model.image_size
        decode, reconstruct = session.model.decode, None

        def latents_of(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), self.latent_size)

    monkeypatch.setattr(Source, "encoder", property(lambda self: Toy()))
    page = pixels(session.photo(str(photo), {"warmth": 2.5}))
    drawn = session.model.decode(2.5 * session.attributes["warmth"][None])[0].permute(1, 2, 0) * 255
    assert np.array_equal(page[2:34, 36:68], drawn.round().numpy())
    assert page[15, 15].tolist() == [200, 100, 50]


def test_what_is_no_photo_is_an_error(session: Session, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"no photo")
    with pytest.raises(CatsweepError, match=r"^mine\.jpg cannot be used: .*\. Take another photo\."):
        session.photo(str(tmp_path / "mine.jpg"), {})


def test_a_generator_without_encoder_takes_no_photo(
    blind_bundle: Path, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpolation.measured, "__defaults__", (64,))
    session = Session(Source(blind_bundle), tmp_path)
    assert not session.source.reconstructs
    assert session.cats(1, 0, 1.0, {"brightness": 1.0}).exists()
    with pytest.raises(ConfigError, match="no encoder"):
        session.photo(str(photo), {"brightness": 1.0})
