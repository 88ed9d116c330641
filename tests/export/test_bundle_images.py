from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from catsweep.export import bundle_images
from catsweep.images import to_uint8
from catsweep.models.generator import draw_latents, interpolate

SIDE = 16


class Painter:
    """Draws one colour per cat, the first three of its latents."""

    latent_size = 3
    image_size = SIDE

    def decode(self, latents: Tensor) -> Tensor:
        return latents.sigmoid()[:, :, None, None].expand(-1, 3, SIDE, SIDE)


def colours(images: Tensor) -> Tensor:
    return images[:, 0, 0].float()


def scorer(photos: np.ndarray, held_out: int = 4):
    """The parts of a scorer that are looked at; the features of an image are its colour."""
    count = len(photos)
    images = torch.from_numpy(photos)
    return SimpleNamespace(
        extractor=type("Colours", (), {"name": "colours", "__call__": lambda self, images: colours(images)})(),
        batch_size=10,
        reference=SimpleNamespace(features=colours(images)),
        train_rows=np.arange(count - held_out),
        val_rows=np.arange(count - held_out, count),
        photos=np.arange(count),
        ready=SimpleNamespace(images=photos),
    )


def painted(n: int, seed: int) -> np.ndarray:
    return to_uint8(Painter().decode(draw_latents(n, 3, seed))).numpy()


def test_samples_are_enlarged_and_in_order() -> None:
    page = bundle_images.samples(Painter())
    assert page.shape == (8 * 130 + 2, 8 * 130 + 2, 3)
    expected = painted(64, seed=0)
    assert np.array_equal(page[2::130, 2::130][:8, :8].reshape(64, 3), expected[:, 0, 0])


def test_rows_walk_along_great_circles() -> None:
    page = bundle_images.interpolation(Painter())
    assert page.shape == (6 * 130 + 2, 8 * 130 + 2, 3)
    start, end = draw_latents(12, 3, seed=0)[2:4]
    expected = to_uint8(Painter().decode(interpolate(start, end, 8))).numpy()
    assert np.array_equal(page[132, 2::130][:8], expected[:, 0, 0])


def test_copies_are_found_and_come_first() -> None:
    photos = painted(40, seed=1)
    photos[7] = painted(64, seed=0)[30]
    found = bundle_images.neighbours(Painter(), scorer(photos))
    assert found.ratios[0] == 0
    assert np.array_equal(found.drawn[0], found.photos[0])
    assert np.array_equal(found.photos[0], photos[7])
    assert (np.diff(found.ratios) >= 0).all()
    assert found.copies == int((found.ratios < found.threshold).sum()) >= 1


def test_held_out_photos_are_never_shown_and_set_the_unit() -> None:
    photos = painted(40, seed=1)
    photos[36:] = photos[:4]
    photos[36:, ..., 0] += 10  # unseen photos lie 10 levels from their nearest
    found = bundle_images.neighbours(Painter(), scorer(photos))
    distances = torch.cdist(colours(torch.from_numpy(painted(64, 0))), colours(torch.from_numpy(photos[:36]))).amin(1)
    assert found.ratios == pytest.approx(np.sort(distances.numpy()) / 10, rel=1e-5)
    shown = {tuple(colour) for colour in found.photos[:, 0, 0]}
    assert shown <= {tuple(colour) for colour in photos[:36, 0, 0]}


@pytest.mark.parametrize("count", [1, 2, 30])
def test_without_held_out_photos_training_photos_set_the_unit(count) -> None:
    found = bundle_images.neighbours(Painter(), scorer(painted(count, seed=1), held_out=0))
    assert np.isfinite(found.ratios).all()


def test_page_of_neighbours_shows_pairs_and_marks_copies() -> None:
    photos = painted(40, seed=1)
    photos[7] = painted(64, seed=0)[30]
    found = bundle_images.neighbours(Painter(), scorer(photos))
    page = bundle_images.neighbour_page(found)
    tile = found.drawn[0][0, 0]
    assert ((page == tile).all(-1).sum()) >= 2 * 128 * 128  # the drawn one and its copy, enlarged
    assert (page == bundle_images.ALARM).all(-1).any()
    honest = bundle_images.neighbour_page(
        bundle_images.Neighbours(found.drawn, found.photos, found.ratios + 1, found.threshold, found.extractor)
    )
    assert not (honest == bundle_images.ALARM).all(-1).any()
