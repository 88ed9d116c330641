"""Photos through a model: in batches, without gradients, in evaluation mode, and back to the mode it had."""

import numpy as np
import torch

from catsweep.generate import own_photos
from catsweep.images import to_float

PHOTOS = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)


def test_batches_change_nothing_and_training_goes_on(toy, monkeypatch) -> None:
    monkeypatch.setattr(own_photos, "BATCH", 2)
    modes = []
    toy.register_module("watch", torch.nn.Identity())
    toy.watch.register_forward_hook(lambda *_: modes.append((toy.training, torch.is_grad_enabled())))
    plain = toy.latents_of
    monkeypatch.setattr(toy, "latents_of", lambda images: plain(toy.watch(images)))
    latents = own_photos.latents_of(toy, PHOTOS)
    assert modes == [(False, False)] * 3
    assert torch.allclose(latents, plain(to_float(torch.from_numpy(PHOTOS))))
    assert toy.training


def test_reconstructions_are_stored_images(toy) -> None:
    drawn = own_photos.reconstructions(toy, PHOTOS)
    assert (drawn.shape, drawn.dtype) == (PHOTOS.shape, np.uint8)
    assert np.abs(drawn[:, 0, 0].astype(float) - PHOTOS.mean((1, 2))).max() <= 0.51
