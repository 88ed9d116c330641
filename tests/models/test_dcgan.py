from dataclasses import dataclass
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from catsweep.errors import ConfigError
from catsweep.images import to_float
from catsweep.losses.adversarial import (
    AdversarialLoss,
    BinaryCrossEntropy,
    Hinge,
    RelativisticAverage,
    RelativisticPairs,
    WassersteinGradientPenalty,
    r1_penalty,
)
from catsweep.losses.frozen_features import FrozenFeatures
from catsweep.models import dcgan, optimization
from catsweep.models.blocks import ResidualDown, ResidualOutput, ResidualUp
from catsweep.models.discriminator import Discriminator, ProjectedDiscriminator
from catsweep.models.generator import Generator, Reconstructor, draw_latents, generate

SGD = partial(torch.optim.SGD, lr=0.0)
RESIDUAL = {"down": ResidualDown, "up": ResidualUp, "output": ResidualOutput}


@dataclass(frozen=True)
class Indifferent(AdversarialLoss):
    """Zero, whatever the logits: what is left of the discriminator's loss are its penalties."""

    def discriminator(self, real_logits, fake_logits):
        return 0 * (real_logits.sum() + fake_logits.sum())

    def generator(self, real_logits, fake_logits):
        return 0 * fake_logits.sum()


class Slope(Discriminator):
    """A discriminator whose gradient has the squared norm `slope`² everywhere."""

    def __init__(self, slope):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3 * 16 * 16, 1), slope / (3 * 16 * 16) ** 0.5))

    def judge(self, seen):
        return seen[0].flatten(1) @ self.weight


class Marker(nn.Module):
    """An augmentation that keeps what it is given, and answers with grey."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, images):
        self.given.append(images)
        return 0 * images + 0.5


class EachStep(pl.Callback):
    """Keep what a function makes of the model after each batch."""

    def __init__(self, look):
        self.look, self.kept = look, []

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.kept.append(self.look(model))


def copy_of(module):
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def equal(before, now):
    return all(torch.equal(value, now[key]) for key, value in before.items())


# The protocol


def test_it_is_a_generator_that_does_not_reconstruct(make_dcgan):
    assert isinstance(make_dcgan(), Generator)
    assert not isinstance(make_dcgan(), Reconstructor)


def test_an_impossible_depth_is_refused(make_dcgan):
    with pytest.raises(ConfigError, match="cannot be halved 5 times"):
        make_dcgan(halvings=5)


def test_images_are_drawn_by_the_averaged_generator(make_dcgan):
    model, latents = make_dcgan().eval(), torch.randn(2, 6)
    assert torch.equal(model.decode(latents), model.generator(latents))
    for parameter in model.averaged.parameters():
        nn.init.zeros_(parameter)
    assert (model.decode(latents) == 0.5).all()
    assert (model.generator(latents) != 0.5).any()


def test_without_an_average_images_are_drawn_by_the_generator(make_dcgan):
    model, latents = make_dcgan(ema_decay=0.0).eval(), torch.randn(2, 6)
    assert model.averaged is None
    assert torch.equal(model.decode(latents), model.generator(latents))


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_state_dict_round_trip(make_dcgan, spectral_norm):
    model, copy = make_dcgan(spectral_norm=spectral_norm), make_dcgan(spectral_norm=spectral_norm)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.generator(torch.randn(4, 6))  # moves the running statistics
    model.averaged.update_parameters(model.generator)
    copy.load_state_dict(model.state_dict())
    latents, images = torch.randn(2, 6), torch.rand(2, 3, 16, 16)
    assert torch.equal(copy.eval().decode(latents), model.eval().decode(latents))
    assert torch.equal(copy.discriminator(images), model.discriminator(images))
    assert copy.averaged.n_averaged == 1


def test_generate_depends_on_the_weights_alone(make_dcgan):
    model, latents = make_dcgan(spectral_norm=True), draw_latents(5, 6, seed=0)
    for parameter in model.generator.parameters():
        nn.init.normal_(parameter)
    model.generator(torch.randn(4, 6))
    model.averaged.update_parameters(model.generator)
    state, chance = copy_of(model), torch.get_rng_state()
    images = generate(model, latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generate(model, latents), images)
    assert (generate(model, latents, batch_size=2).int() - images.int()).abs().max() <= 1
    assert images.float().std() > 1
    assert equal(state, copy_of(model))
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(module.training for module in model.modules())


# Its weights


def test_weights_begin_as_in_the_paper(make_dcgan):
    model = make_dcgan(channels=16, max_channels=64)
    kernels = [p for p in (*model.generator.parameters(), *model.discriminator.parameters()) if p.ndim > 1]
    norms: list[torch.Tensor] = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for kernel in kernels:
        assert kernel.std().item() == pytest.approx(0.02, rel=0.2)
        assert abs(kernel.mean().item()) < 0.005
    assert torch.cat(norms).std().item() == pytest.approx(0.02, rel=0.3)
    assert torch.cat(norms).mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("block", [None, RESIDUAL])
@pytest.mark.trains
def test_spectral_normalisation_bounds_every_layer_of_the_discriminator(make_dcgan, batches, fit, block):
    blocks = {"block": block} if block else {}
    model = make_dcgan(spectral_norm=True, discriminator_normalization=nn.Identity, discriminator_lr=0.02, **blocks)
    fit(model, batches(5))
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == (7 if block else 3)
    norms = torch.stack([torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2) for layer in layers])
    assert (norms < 1.1).all()  # one power iteration a step lags behind a little
    assert (norms > 0.8).all()


@pytest.mark.trains
def test_each_side_s_step_estimates_the_spectral_norm_of_a_layer_once(make_dcgan, batches, fit):
    model, estimated = make_dcgan(spectral_norm=True, r1_gamma=1.0), []
    for name, module in model.discriminator.named_modules():
        if name.endswith("parametrizations.weight.0"):
            module.register_forward_hook(lambda *_, name=name: estimated.append(name))
    fit(model, batches(2))
    assert len(set(estimated)) == 3
    assert len(estimated) == 2 * 2 * 3


def test_without_spectral_normalisation_weights_are_plain(make_dcgan):
    assert not any("parametrizations" in key for key in make_dcgan().state_dict())
    generator = make_dcgan(spectral_norm=True).generator
    assert not any("parametrizations" in key for key in generator.state_dict())


@pytest.mark.trains
def test_the_average_follows_weights_and_statistics_of_the_generator(make_dcgan, batches, fit):
    model, steps = make_dcgan(ema_decay=0.3, generator_lr=0.05), EachStep(lambda m: copy_of(m.generator))
    fit(model, batches(6), callbacks=[steps])
    expected = steps.kept[0]  # the first weights count for nothing
    for count, now in enumerate(steps.kept[1:], start=1):
        decay = min(0.3, (1 + count) / (10 + count))
        expected = {
            k: torch.lerp(e, now[k], 1 - decay) if e.is_floating_point() else now[k] for k, e in expected.items()
        }
    averaged = copy_of(model.averaged.module)
    for key, value in expected.items():
        torch.testing.assert_close(averaged[key], value)
    assert not torch.equal(averaged["project.0.weight"], model.generator.project[0].weight)
    assert averaged["project.1.num_batches_tracked"] > 0


# Its training


class Gradients(pl.Callback):
    """At each optimizer step: which kernels have a gradient, and the discriminator's gradients in full."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, model, optimizer):
        present = {
            name: [p.grad is not None and bool(p.grad.any()) for p in getattr(model, name).parameters() if p.ndim > 1]
            for name in ("generator", "discriminator", "averaged")
        }
        self.seen.append((present, [p.grad.clone() for p in model.discriminator.parameters()]))


@pytest.mark.trains
@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), RelativisticAverage()])
def test_each_side_learns_from_its_own_step_only(make_dcgan, batches, fit, loss):
    model, gradients = make_dcgan(adversarial_loss=loss), Gradients()
    fit(model, batches(1), callbacks=[gradients])
    (after_discriminator, kept), (after_generator, now) = gradients.seen
    assert all(after_discriminator["discriminator"])
    assert not any(after_discriminator["generator"])
    assert all(after_generator["generator"])
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    assert not any(after_generator["averaged"])
    assert all(p.requires_grad for p in (*model.discriminator.parameters(), *model.generator.parameters()))
    assert not any(p.requires_grad for p in model.averaged.parameters())


@pytest.mark.trains
def test_the_discriminator_can_learn_again_after_a_generator_step_that_failed(make_dcgan, batches, fit):
    class Broken(BinaryCrossEntropy):
        def generator(self, real_logits, fake_logits):
            raise ArithmeticError

    model = make_dcgan(adversarial_loss=Broken())
    with pytest.raises(ArithmeticError):
        fit(model, batches(1))
    assert all(parameter.requires_grad for parameter in model.discriminator.parameters())


@pytest.mark.trains
@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_each_learning_rate_reaches_its_own_side(make_dcgan, batches, fit, side):
    model = make_dcgan(optimizer=SGD, **{"generator_lr": 0.0, "discriminator_lr": 0.0, f"{side}_lr": 0.1})
    before = {name: [p.clone() for p in getattr(model, name).parameters()] for name in ("generator", "discriminator")}
    fit(model, batches(2))
    for name, parameters in before.items():
        moved = [not torch.equal(a, b) for a, b in zip(parameters, getattr(model, name).parameters(), strict=True)]
        assert all(moved) if name == side else not any(moved)


@pytest.mark.trains
def test_both_schedules_go_with_the_batches_to_the_end_of_the_run(make_dcgan, batches, fit):
    falling = EachStep(lambda m: [o.param_groups[0]["lr"] for o in m.optimizers()])
    model = make_dcgan(
        optimizer=SGD, generator_lr=0.4, discriminator_lr=0.8, schedule=lambda step, total: 1 - step / total
    )
    fit(model, batches(2), callbacks=[falling], max_epochs=2)
    expected = [[0.6, 0.3], [0.4, 0.2], [0.2, 0.1], [0.0, 0.0]]
    assert falling.kept == [pytest.approx(rates) for rates in expected]


@pytest.mark.trains
def test_the_losses_are_those_of_the_adversarial_loss(make_dcgan, batches, fit):
    judged = []

    class Spy(Hinge):
        def discriminator(self, real_logits, fake_logits):
            judged.append((real_logits, fake_logits))
            return super().discriminator(real_logits, fake_logits)

        def generator(self, real_logits, fake_logits):
            judged.append((real_logits, fake_logits))
            return super().generator(real_logits, fake_logits)

    trainer = fit(make_dcgan(adversarial_loss=Spy()), batches(1))
    (real, fake), (no_real, fake_again) = judged
    assert real.shape == fake.shape == fake_again.shape == (4, 1)
    assert no_real is None
    metrics = trainer.callback_metrics
    torch.testing.assert_close(metrics["train/discriminator_loss"], Hinge().discriminator(real, fake).detach())
    torch.testing.assert_close(metrics["train/generator_loss"], Hinge().generator(None, fake_again).detach())


@pytest.mark.trains
def test_the_discriminator_learns_to_tell_real_from_drawn(make_dcgan, batches, fit):
    model = make_dcgan(generator_lr=0.0, discriminator_lr=0.01, ema_decay=0.0)
    photos = batches(4)
    fit(model, photos * 5)
    real = model.train().discriminator(to_float(torch.cat(photos)))
    fake = model.discriminator(model.generator(torch.randn(16, 6)))
    assert real.min() > fake.max()


# Penalties


@pytest.mark.trains
def test_r1_is_charged_every_so_many_steps_and_then_that_much_more(make_dcgan, batches, fit):
    model = make_dcgan(adversarial_loss=Indifferent(), r1_gamma=10.0, r1_every=2, optimizer=SGD)
    model.discriminator, model.discriminator_lr, model.generator_lr = Slope(2.0), 0.0, 0.0
    losses = []
    model.note = lambda values: losses.append(values["train/discriminator_loss"])
    fit(model, batches(3), max_epochs=2)
    once = 2 * 10.0 / 2 * 2.0**2
    assert [loss.item() for loss in losses] == pytest.approx([once, 0, once, 0, once, 0])


@pytest.mark.trains
def test_r1_is_measured_at_real_images_and_teaches_the_discriminator(make_dcgan, batches, fit, monkeypatch):
    measured = []
    penalty = r1_penalty
    monkeypatch.setattr(dcgan, "r1_penalty", lambda images, logits: measured.append(images) or penalty(images, logits))
    model = make_dcgan(adversarial_loss=Indifferent(), r1_gamma=1.0, optimizer=SGD, discriminator_lr=0.1)
    model.discriminator = Slope(1.0)
    photos = batches(2)
    fit(model, photos)
    assert torch.equal(torch.cat(measured), to_float(torch.cat(photos)))
    # d/dw of |w|² / 2 is w: a step at rate 0.1 takes off a tenth.
    few = 32 * torch.finfo(torch.float32).eps  # of its roundings are in two steps
    assert model.discriminator.weight.norm().item() == pytest.approx(0.9**2, rel=few)


@pytest.mark.trains
def test_a_penalty_is_of_the_mean_of_an_image_s_logits_however_many_there_are(make_dcgan, batches, fit):
    class Thrice(Slope):
        def judge(self, seen):
            return super().judge(seen).expand(-1, 3)

    model = make_dcgan(adversarial_loss=Indifferent(), r1_gamma=10.0, optimizer=SGD, discriminator_lr=0.0)
    model.discriminator = Thrice(2.0)
    trainer = fit(model, batches(1))
    assert trainer.callback_metrics["train/discriminator_loss"] == pytest.approx(10.0 / 2 * 2.0**2)


@pytest.mark.trains
def test_without_r1_no_second_gradient_is_taken(make_dcgan, batches, fit, monkeypatch):
    monkeypatch.setattr(dcgan, "r1_penalty", None)
    monkeypatch.setattr(dcgan, "interpolated_gradient_penalty", None)
    fit(make_dcgan(r1_gamma=0.0), batches(1))


@pytest.mark.trains
def test_the_gradient_penalty_of_the_loss_is_charged_at_each_step(make_dcgan, batches, fit):
    model = make_dcgan(adversarial_loss=Indifferent(gradient_penalty=10.0), optimizer=SGD, discriminator_lr=0.0)
    model.discriminator = Slope(3.0)
    trainer = fit(model, batches(3))
    assert trainer.callback_metrics["train/discriminator_loss"] == pytest.approx(10.0 * (3 - 1) ** 2, rel=1e-4)


# Augmentation


@pytest.mark.trains
def test_everything_that_the_discriminator_sees_in_training_is_augmented(make_dcgan, batches, fit):
    seen, photos = [], batches(1)
    model = make_dcgan(augment=Marker(), adversarial_loss=RelativisticAverage(), r1_gamma=1.0)
    judge = model.discriminator.judge
    model.discriminator.judge = lambda parts: seen.append(parts[0]) or judge(parts)
    fit(model, photos)
    # Each batch once, for both sides; and the real one again for R1.
    assert len(model.augment.given) == 3
    real = to_float(photos[0])
    assert [torch.equal(images, real) for images in model.augment.given] == [True, False, True]
    assert model.augment.given[1].requires_grad
    # Real, drawn and real again for R1; then drawn and, for the relativistic loss, real.
    assert len(seen) == 5
    assert all((images == 0.5).all() for images in seen)
    assert [images.requires_grad for images in seen] == [False, False, True, True, False]


@pytest.mark.trains
def test_validation_judges_photos_as_they_are(make_dcgan, batches, fit):
    val = batches(1, seed=1)
    model = make_dcgan(augment=Marker(), optimizer=SGD, discriminator_lr=0.0)
    trainer = fit(model, batches(1), val)
    expected = model.eval().discriminator(to_float(val[0])).mean()
    torch.testing.assert_close(trainer.callback_metrics["val/real_logit"], expected.detach())


# Precision


@pytest.mark.trains
@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), WassersteinGradientPenalty(), RelativisticAverage()])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_it_trains_in_bf16_with_penalties_and_weights_in_float32(make_dcgan, batches, fit, loss, spectral_norm):
    precisions = []
    model = make_dcgan(
        adversarial_loss=loss, spectral_norm=spectral_norm, r1_gamma=1.0, discriminator_normalization=nn.Identity
    )
    model.discriminator.head.register_forward_hook(lambda _, inputs, output: precisions.append(output.dtype))
    trainer = fit(model, batches(2), batches(1), precision="bf16-mixed")
    losses = torch.stack(list(trainer.callback_metrics.values()))
    assert losses.isfinite().all()
    penalties = 1 + bool(loss.gradient_penalty)
    step = [torch.bfloat16] * 2 + [torch.float32] * penalties + [torch.bfloat16] * (1 + loss.needs_real)
    assert precisions == [*step, *step, torch.bfloat16]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.trains
def test_each_step_draws_once_and_from_its_own_latents(make_dcgan, batches, fit):
    model, drawn = make_dcgan(), []
    model.generator.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[0]))
    fit(model, batches(3))
    assert len(drawn) == 3  # one drawing a step serves both sides
    assert len(torch.cat(drawn).unique(dim=0)) == 12


# Through a frozen network


@pytest.fixture
def make_projected(make_dcgan):
    """A DCGAN whose discriminator looks through the frozen network."""

    def make(seed=0, **changes):
        torch.manual_seed(seed)
        discriminator = ProjectedDiscriminator(
            16, "efficientnet_lite1", (2, 4), 8, 8, nn.BatchNorm2d, partial(nn.LeakyReLU, 0.2)
        )
        return make_dcgan(**{"discriminator": discriminator, "adversarial_loss": Hinge(), **changes})

    return make


@pytest.mark.trains
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("loss", [Hinge(), BinaryCrossEntropy(), RelativisticAverage(), RelativisticPairs()])
def test_each_batch_passes_the_frozen_network_once(make_projected, batches, fit, loss, precision, monkeypatch):
    seen = []
    forward = FrozenFeatures.forward
    monkeypatch.setattr(
        FrozenFeatures, "forward", lambda self, images, taps: seen.append(images) or forward(self, images, taps)
    )
    trainer = fit(make_projected(adversarial_loss=loss), batches(2), batches(1), precision=precision)
    # To calibrate; photos and drawn ones of two steps; validation.
    assert [images.requires_grad for images in seen] == [False, False, True, False, True, False]
    assert torch.stack(list(trainer.callback_metrics.values())).isfinite().all()


@pytest.mark.trains
@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_each_side_of_a_projected_one_learns_from_its_own_step_only(make_projected, batches, fit, side):
    rates = {"generator_lr": 0.0, "discriminator_lr": 0.0, f"{side}_lr": 0.1}
    # Hinge would leave the last bias where it is while no logit is beyond its margin.
    model = make_projected(optimizer=SGD, adversarial_loss=BinaryCrossEntropy(), **rates)
    before = {name: [p.clone() for p in getattr(model, name).parameters()] for name in ("generator", "discriminator")}
    fit(model, batches(2))
    for name, parameters in before.items():
        moved = [not torch.equal(a, b) for a, b in zip(parameters, getattr(model, name).parameters(), strict=True)]
        assert all(moved) if name == side else not any(moved)
    frozen = FrozenFeatures.of("efficientnet_lite1", torch.device("cpu"))
    assert all(parameter.grad is None for parameter in frozen.parameters())


@pytest.mark.trains
def test_a_projected_one_is_calibrated_once_on_photos_as_they_are(make_projected, batches, fit):
    model, measured = make_projected(augment=Marker()), []
    calibrate = model.discriminator.calibrate
    model.discriminator.calibrate = lambda images: measured.append(images) or calibrate(images)
    photos = batches(2)
    fit(model, photos, max_epochs=2)
    assert len(measured) == 1
    assert torch.equal(measured[0], to_float(photos[0]))


@pytest.mark.trains
def test_all_processes_calibrate_by_the_photos_of_the_first(make_projected, batches, fit, monkeypatch):
    model, others, measured = make_projected(), to_float(batches(1, seed=7)[0]), list[torch.Tensor]()
    monkeypatch.setattr(optimization, "of_first_process", lambda trainer, images: others)
    model.discriminator.calibrate = measured.append
    fit(model, batches(1))
    assert len(measured) == 1
    assert torch.equal(measured[0], others)


@pytest.mark.trains
def test_r1_of_a_projected_one_teaches_its_heads(make_projected, batches, fit):
    model = make_projected(adversarial_loss=Indifferent(), r1_gamma=1.0, discriminator_lr=0.1)
    before = copy_of(model.discriminator.heads)
    trainer = fit(model, batches(2))
    assert trainer.callback_metrics["train/discriminator_loss"] > 0
    assert not equal(before, copy_of(model.discriminator.heads))


@pytest.mark.trains
def test_neither_checkpoint_nor_size_knows_the_frozen_network(make_projected, batches, fit, tmp_path):
    trainer = fit(make_projected(), batches(1))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    found = torch.load(tmp_path / "one.ckpt", weights_only=True)
    names = {".".join(name.split(".")[:2]) for name in found["state_dict"] if name.startswith("discriminator")}
    assert names == {"discriminator.projections", "discriminator.heads"}
    assert (tmp_path / "one.ckpt").stat().st_size < 1e6  # the frozen network alone has 5


@pytest.mark.trains
def test_a_projected_one_goes_on_from_a_checkpoint_as_if_it_had_not_been_stopped(
    make_projected, batches, fit, tmp_path
):
    photos = batches(2)

    class Chance(pl.Callback):
        """The random numbers of each epoch are the same whether or not there was one before."""

        def on_train_epoch_start(self, trainer, model):
            torch.manual_seed(trainer.current_epoch)

    whole, begun, again = make_projected(), make_projected(), make_projected(seed=7)
    fit(whole, photos, max_epochs=2, callbacks=[Chance()])
    fit(begun, photos, max_epochs=1, callbacks=[Chance()]).save_checkpoint(tmp_path / "one.ckpt")
    FrozenFeatures.of.cache_clear()  # as in a new process
    assert not equal(copy_of(whole), copy_of(again))
    fit(again, photos, max_epochs=2, callbacks=[Chance()], checkpoint=tmp_path / "one.ckpt")
    assert equal(copy_of(whole), copy_of(again))
