import pytest
import torch
from torch import nn

from catsweep.errors import ConfigError
from catsweep.losses.adversarial import Hinge, RelativisticAverage, WassersteinGradientPenalty
from catsweep.losses.reconstruction import mse
from catsweep.models.adversarial_term import dissimilarity
from catsweep.models.diffaugment import DiffAugment
from catsweep.models.discriminator import Discriminator


class Linear(Discriminator):
    """Sees twice the pixels, and judges by a sum; notes what it is given."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))
        self.seen, self.judged = [], []

    def see(self, images):
        self.seen.append(images)
        return [2 * images]

    def judge(self, seen):
        self.judged.append(seen[0])
        return self.slope * seen[0].flatten(1).sum(1, keepdim=True)


def batch(seed=0, n=3, draws=5):
    generator = torch.Generator().manual_seed(seed)
    photos = torch.rand(n, 3, 16, 16, generator=generator)
    return photos, torch.rand(n + draws, 3, 16, 16, generator=generator)


def step(term, photos, drawn, learn=lambda loss: None):
    return term.step(photos, drawn, mse, learn)


def test_reconstructions_take_the_gradient_of_the_reconstruction_alone(make_term):
    photos, drawn = batch()
    gradient, values = step(make_term(similarity=0.0, weight=2.0), photos, drawn)
    torch.testing.assert_close(gradient[:3], 2 * (drawn[:3] - photos) / 3)
    torch.testing.assert_close(values["reconstruction"], mse(drawn[:3], photos))


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_draws_take_the_adversarial_gradient_of_the_weights_length(make_term, weight):
    photos, drawn = batch()
    gradient, values = step(make_term(discriminator=Linear, weight=weight), photos, drawn)
    assert gradient[3:].norm() == pytest.approx((weight * gradient[:3].norm()).item())
    assert (gradient[3:] < 0).all(), "more is more real to this discriminator, and a step goes against the gradient"
    assert values["generator_loss"].item() == pytest.approx(-2 * drawn[3:].sum().item() / 5)


def test_the_discriminator_learns_to_tell_draws_from_photos_and_gets_no_reconstructions(make_term):
    photos, drawn = batch()
    term, losses = make_term(discriminator=Linear), list[torch.Tensor]()
    _, values = step(term, photos, drawn, losses.append)
    assert losses == [values["discriminator_loss"]]
    judged = term.discriminator.judged
    assert [len(maps) for maps in judged] == [3, 5, 5]
    torch.testing.assert_close(judged[1], 2 * drawn[3:])
    expected = Hinge().discriminator(2 * photos.flatten(1).sum(1), 2 * drawn[3:].flatten(1).sum(1))
    torch.testing.assert_close(losses[0], expected)
    losses[0].backward()
    assert term.discriminator.slope.grad != 0


def test_each_image_is_seen_once(make_term):
    photos, drawn = batch()
    term = make_term(discriminator=Linear, loss=RelativisticAverage())
    step(term, photos, drawn)
    assert [len(images) for images in term.discriminator.seen] == [3, 8]


def test_without_draws_nothing_is_judged(make_term):
    photos, drawn = batch(draws=0)
    term = make_term(discriminator=Linear)
    gradient, values = step(term, photos, drawn, lambda loss: pytest.fail("it does not play yet"))
    assert gradient.shape == drawn.shape
    assert not term.discriminator.judged
    assert values["discriminator_loss"] == values["generator_loss"] == 0


def test_photos_and_their_reconstructions_are_augmented_alike_and_draws_for_themselves(make_term):
    photos = batch(n=8)[0]
    term = make_term(discriminator=Linear, augment=DiffAugment(["color", "translation", "cutout"]))
    step(term, photos, torch.cat([photos, photos]))
    seen_photos, seen = term.discriminator.seen
    torch.testing.assert_close(seen[:8], seen_photos)
    assert not torch.allclose(seen[8:], seen_photos)


def test_similarity_is_the_share_of_what_the_discriminator_sees(make_term):
    photos, drawn = batch(draws=0)
    pixels, both, features = (
        step(make_term(discriminator=Linear, similarity=share), photos, drawn)[1]["reconstruction"]
        for share in (0.0, 0.25, 1.0)
    )
    torch.testing.assert_close(both, 0.75 * pixels + 0.25 * features)
    torch.testing.assert_close(features, pixels)  # it sees the pixels, whatever their scale


def test_the_dissimilarity_of_levels_is_in_the_currency_of_mse():
    photos, drawn = batch(draws=0)
    levels = [[1e3 * images, 1e-3 * images.mean(1, keepdim=True)] for images in (drawn, photos)]
    one, other = (dissimilarity([a], [b], photos) for a, b in zip(*levels, strict=True))
    torch.testing.assert_close(one, mse(drawn, photos))
    torch.testing.assert_close(dissimilarity(levels[0], levels[1], photos), (one + other) / 2)
    assert dissimilarity(levels[1], levels[1], photos) == 0


def test_without_a_weight_there_is_nothing_to_learn(make_term):
    term = make_term(weight=0.0, discriminator=lambda: pytest.fail("it must not be built"))
    assert not list(term.parameters())
    assert not term.state_dict()


def test_a_loss_that_needs_a_gradient_penalty_is_refused(make_term):
    with pytest.raises(ConfigError, match="without which WassersteinGradientPenalty learns nothing"):
        make_term(loss=WassersteinGradientPenalty())
