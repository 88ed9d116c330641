import pytest
import torch
from torch import Tensor, nn

from catsweep.export import graphs


class Tiny(nn.Module):
    """Draws and reconstructs; dropout shows whether it is compared in evaluation mode."""

    latent_size = 4
    image_size = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.dropout = nn.Linear(4, 12), nn.Dropout(0.5)

    def decode(self, latents: Tensor) -> Tensor:
        return self.dropout(self.linear(latents)).sigmoid().view(-1, 3, 2, 2)

    def reconstruct(self, photos: Tensor) -> Tensor:
        return photos * 0.5


def shifted(by: float):
    return lambda latents: (Tiny().eval().decode(latents) + by).detach()


@pytest.mark.parametrize("by", [0.0, 2e-4, -2e-4])
def test_largest_difference_of_what_is_drawn(by) -> None:
    assert graphs.drawing_difference(Tiny().train(), shifted(by)) == pytest.approx(abs(by), abs=1e-6)


def test_one_value_of_one_image_is_enough() -> None:
    def other(latents: Tensor) -> Tensor:
        images = shifted(0.0)(latents)
        images[-1, 2, 1, 1] += 0.25
        return images

    assert graphs.drawing_difference(Tiny(), other) == pytest.approx(0.25, abs=1e-6)


def test_largest_difference_of_reconstructions_over_photos_of_all_kinds() -> None:
    seen = []

    def other(photos: Tensor) -> Tensor:
        seen.append(photos)
        return photos * 0.5 + 0.125

    assert graphs.reconstructing_difference(Tiny(), other, batches=(1, 50)) == pytest.approx(0.125, abs=1e-6)
    assert [len(photos) for photos in seen] == [1, 50]
    assert 0 <= seen[1].min() < seen[1].max() <= 1
    assert seen[1].std() > 0.1


@pytest.mark.parametrize(
    "wrong", [lambda x: shifted(0)(x)[:, :1], lambda x: shifted(float("nan"))(x)], ids=["shape", "nan"]
)
def test_wrong_shape_or_no_number(wrong) -> None:
    assert graphs.drawing_difference(Tiny(), wrong) > 1e30
