"""Paths through the latents."""

import torch

from catsweep.generate import interpolation
from catsweep.models.generator import draw_latents

STOPS = draw_latents(4, 6, seed=1)


def test_loop_passes_every_stop_and_closes_smoothly() -> None:
    path = interpolation.loop(STOPS, 8)
    assert path.shape == (32, 6)
    assert torch.equal(path[::8], STOPS)
    cosines = torch.nn.functional.cosine_similarity(path.double(), path.double().roll(-1, 0)).view(4, 8)
    assert torch.allclose(cosines, cosines[:, :1].expand(4, 8), atol=1e-6)  # also the last, back to the first
    assert (cosines < 0.999).all()


def test_loop_keeps_the_norm_of_latents() -> None:
    norms = interpolation.loop(STOPS, 8).norm(dim=1)
    ends = STOPS.norm(dim=1)
    assert ends.min() - 1e-4 <= norms.min()
    assert norms.max() <= ends.max() + 1e-4


def test_neighbours_close_the_circle_but_for_two() -> None:
    assert torch.equal(interpolation.neighbours(STOPS)[3], STOPS[[3, 0]])
    assert torch.equal(interpolation.neighbours(STOPS[:2]), STOPS[:2].unsqueeze(0))


def test_along_goes_equally_far_either_way() -> None:
    direction = torch.eye(6)[2]
    moved = interpolation.along(STOPS, direction, 3.0, 5)
    assert torch.equal(moved[:, 2], STOPS)
    assert torch.allclose(moved[:, :, 2] - STOPS[:, 2:3], torch.tensor([-3, -1.5, 0, 1.5, 3]).expand(4, 5))
    assert torch.equal(moved[..., 3], STOPS[:, 3:4].expand(4, 5))
