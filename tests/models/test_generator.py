from functools import partial

import pytest
import torch
from torch import nn

from catsweep.images import to_uint8
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating, generate

LATENTS = draw_latents(7, 4, seed=0)


class Painter(nn.Module):
    """A generator whose output shows its mode, its precision and its batch."""

    latent_size, image_size = 4, 8

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 3 * 8 * 8)
        self.norm = nn.BatchNorm1d(3 * 8 * 8)
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def decode(self, latents):
        self.seen.append((len(latents), self.training, torch.is_grad_enabled()))
        return self.dropout(self.norm(self.project(latents))).sigmoid().unflatten(1, (3, 8, 8))


@pytest.fixture
def painter():
    torch.manual_seed(0)
    return Painter()


def test_a_generator_is_known_by_what_it_can_do(painter):
    class Copier(Painter):
        def reconstruct(self, images):
            return images

    assert isinstance(painter, Generator)
    assert not isinstance(painter, Reconstructor)
    assert isinstance(Copier(), Reconstructor)
    assert not isinstance(nn.Identity(), Generator)


def test_evaluating_restores_the_mode_of_every_submodule(painter):
    painter.train()
    painter.norm.eval()
    modes = [module.training for module in painter.modules()]
    assert True in modes
    assert False in modes
    with evaluating(painter):
        assert not any(module.training for module in painter.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in painter.modules()] == modes
    assert torch.is_grad_enabled()


def test_evaluating_restores_the_modes_after_an_error(painter):
    painter.train()
    with pytest.raises(KeyError), evaluating(painter):
        raise KeyError
    assert all(module.training for module in painter.modules())


def test_generate_draws_uint8_images_in_batches_in_evaluation_mode_without_gradients(painter):
    images = generate(painter.train(), LATENTS, batch_size=3)
    assert images.shape == (7, 8, 8, 3)
    assert images.dtype == torch.uint8
    assert painter.seen == [(3, False, False), (3, False, False), (1, False, False)]


def test_generate_draws_what_decode_draws(painter):
    images = generate(painter.eval(), LATENTS)
    assert torch.equal(images, to_uint8(painter.decode(LATENTS)))


def test_generate_does_not_depend_on_the_batch_size(painter):
    whole = generate(painter, LATENTS)
    for batch_size in (1, 2, 7):
        # A level of difference: sums of floats depend on how many are done at once.
        assert (generate(painter, LATENTS, batch_size).int() - whole.int()).abs().max() <= 1


def test_generate_leaves_the_model_and_the_random_state_as_they_were(painter):
    painter.train()
    weights = {key: value.clone() for key, value in painter.state_dict().items()}
    state = torch.get_rng_state()
    images = generate(painter, LATENTS)
    assert painter.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in painter.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in painter.parameters())
    assert torch.equal(generate(painter, LATENTS), images)


def test_generate_works_in_full_precision_within_a_bf16_training_loop(painter):
    precisions = []
    painter.project.register_forward_hook(lambda *call: precisions.append(call[-1].dtype))
    outside = generate(painter, LATENTS)
    with torch.autocast("cpu", torch.bfloat16):
        inside = generate(painter, LATENTS)
        assert painter.project(LATENTS).dtype == torch.bfloat16  # autocast is on again
    assert precisions[:2] == [torch.float32, torch.float32]
    assert torch.equal(inside, outside)


def test_a_generator_need_not_be_a_module():
    class Constant:
        latent_size, image_size = 4, 2

        def decode(self, latents):
            return latents[:, :1, None, None].sigmoid().expand(-1, 3, 2, 2)

    expected = to_uint8(Constant().decode(LATENTS))
    assert torch.equal(generate(Constant(), LATENTS, batch_size=2), expected)


def test_a_module_without_parameters_draws_too():
    class Constant(nn.Module):
        latent_size, image_size = 4, 2
        decode = staticmethod(partial(torch.Tensor.new_full, size=(1, 3, 2, 2), fill_value=1.0))

    assert (generate(Constant(), LATENTS[:1]) == 255).all()
