from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from catsweep.errors import ConfigError
from catsweep.images import to_float
from catsweep.losses.divergence import kl_normal
from catsweep.losses.reconstruction import mse
from catsweep.models import optimization
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating, generate
from catsweep.models.prior import AggregatePrior
from catsweep.models.vae import VAE, warmed_up


@given(beta=st.floats(0, 100), step=st.integers(0, 1000), warmup=st.floats(0, 1000))
def test_beta_rises_on_a_line_and_then_stays(beta, step, warmup):
    expected = beta * min(1.0, step / warmup) if warmup > 0 else beta
    assert warmed_up(beta, step, warmup) == pytest.approx(expected)


def test_beta_starts_at_zero_and_without_a_warm_up_in_full():
    assert warmed_up(3.0, 0, 10) == 0
    assert warmed_up(3.0, 0, 0) == 3


def test_it_is_a_generator_and_a_reconstructor(make_vae):
    assert isinstance(make_vae(), Generator)
    assert isinstance(make_vae(), Reconstructor)


def test_an_impossible_depth_is_refused(make_vae):
    with pytest.raises(ConfigError, match="cannot be halved 5 times"):
        make_vae(halvings=5)


def posterior(model, mean, log_variance):
    """Make the encoder answer every image with this normal distribution."""
    nn.init.zeros_(model.encoder.head.weight)
    with torch.no_grad():
        model.encoder.head.bias.copy_(torch.cat([mean, log_variance]))


def test_the_latent_is_the_mean_plus_the_deviation_times_the_noise(make_vae, monkeypatch):
    model, images, noise = make_vae(), torch.rand(3, 3, 16, 16), torch.randn(3, 6)
    mean, log_variance = torch.arange(6.0), torch.linspace(-4, 4, 6)
    posterior(model, mean, log_variance)
    decoded = []
    monkeypatch.setattr(model.decoder, "forward", lambda latents: decoded.append(latents) or images)
    model.losses(images, noise)
    torch.testing.assert_close(decoded[0], mean + torch.exp(log_variance / 2) * noise)


def test_the_encoder_gives_the_mean_first_and_bounds_the_variance(make_vae):
    model = make_vae()
    posterior(model, torch.arange(6.0), torch.tensor([-1e6, -5.0, 0.0, 5.0, 11.0, 1e6]))
    mean, log_variance = model.encode(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(mean, torch.arange(6.0).expand(2, 6))
    torch.testing.assert_close(log_variance, torch.tensor([-10.0, -5.0, 0.0, 5.0, 10.0, 10.0]).expand(2, 6))


def test_the_losses_are_those_of_the_parts(make_vae):
    model, images, noise = make_vae(free_bits=0.3).eval(), torch.rand(3, 3, 16, 16), torch.randn(3, 6)
    parts = model.losses(images, noise)
    mean, log_variance = model.encode(images)
    per_dimension = kl_normal(mean, log_variance).mean(0)
    torch.testing.assert_close(parts["kl"], per_dimension.sum())
    torch.testing.assert_close(parts["kl_charged"], per_dimension.clamp(min=0.3).sum())
    drawn = model.decode(mean + torch.exp(log_variance / 2) * noise)
    torch.testing.assert_close(parts["reconstruction"], mse(drawn, images))


def test_the_reconstruction_loss_is_given_the_drawn_images_first(make_vae):
    images, given_to = torch.rand(2, 3, 16, 16), []
    model = make_vae(reconstruction_loss=lambda drawn, real: given_to.append((drawn, real)) or drawn.sum())
    model.losses(images, torch.zeros(2, 6))
    drawn, real = given_to[0]
    assert real is images
    assert drawn.requires_grad


@pytest.mark.parametrize("part", ["reconstruction", "kl_charged"])
def test_each_part_of_the_loss_teaches_the_encoder_and_only_the_reconstruction_the_decoder(make_vae, part):
    model = make_vae()
    model.losses(torch.rand(3, 3, 16, 16), torch.randn(3, 6))[part].backward()
    assert all(parameter.grad.any() for parameter in model.encoder.parameters())
    taught = [parameter.grad is not None and parameter.grad.any() for parameter in model.decoder.parameters()]
    assert all(taught) if part == "reconstruction" else not any(taught)


def test_free_bits_spare_the_encoder_below_the_floor(make_vae):
    model = make_vae(free_bits=1.0)
    posterior(model, torch.full((6,), 0.1), torch.zeros(6))
    model.losses(torch.rand(3, 3, 16, 16), torch.randn(3, 6))["kl_charged"].backward()
    assert not any(parameter.grad.any() for parameter in model.encoder.parameters())


def test_a_reconstruction_is_drawn_from_the_mean_without_chance(make_vae):
    model, images = make_vae().eval(), torch.rand(2, 3, 16, 16)
    posterior(model, torch.ones(6), torch.full((6,), 5.0))
    state = torch.get_rng_state()
    drawn = model.reconstruct(images)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(drawn, model.decode(torch.ones(2, 6)))


def test_state_dict_round_trip(make_vae):
    model, copy, images = make_vae(), make_vae(), torch.rand(2, 3, 16, 16)
    for parameter in copy.parameters():
        nn.init.normal_(parameter)
    model.reconstruct(images)  # moves the running statistics
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.eval().reconstruct(images), model.eval().reconstruct(images))


def test_generate_depends_on_the_weights_alone(make_vae):
    model, latents = make_vae(), draw_latents(5, 6, seed=0)
    model.reconstruct(torch.rand(4, 3, 16, 16))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = generate(model, latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generate(model, latents), images)
    assert (generate(model, latents, batch_size=2).int() - images.int()).abs().max() <= 1
    assert images.float().std() > 1
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class EachStep(pl.Callback):
    """Keep what a function makes of the model after each batch."""

    def __init__(self, look):
        self.look, self.kept = look, []

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.kept.append(self.look(model))


class Watch(pl.Callback):
    """Keep each step's loss and learning rate."""

    def __init__(self):
        self.losses, self.rates = [], []

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


@pytest.mark.trains
def test_the_loss_weighs_what_free_bits_charge_by_the_warmed_up_beta(make_vae, batches, fit, monkeypatch):
    model, watch, parts = make_vae(beta=4.0, beta_warmup=0.5, free_bits=0.2), Watch(), []
    losses = VAE.losses

    def spy(self, images, noise):
        parts.append(losses(self, images, noise))
        return parts[-1]

    monkeypatch.setattr(VAE, "losses", spy)
    trainer = fit(model, batches(4), callbacks=[watch], max_epochs=2)
    betas = [0.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0]
    expected = [(p["reconstruction"] + b * p["kl_charged"]).item() for p, b in zip(parts, betas, strict=True)]
    assert watch.losses == pytest.approx(expected)
    assert all(p["kl_charged"] > p["kl"] for p in parts[:1])
    assert trainer.callback_metrics["train/loss"] == pytest.approx(sum(expected[4:]) / 4)
    assert trainer.callback_metrics["train/kl"] == pytest.approx(sum(p["kl"].item() for p in parts[4:]) / 4)


@pytest.mark.trains
def test_each_step_draws_its_own_noise(make_vae, batches, fit, monkeypatch):
    drawn = []
    losses = VAE.losses
    monkeypatch.setattr(VAE, "losses", lambda self, *args: drawn.append(args[1]) or losses(self, *args))
    fit(make_vae(), batches(3))
    assert [noise.shape for noise in drawn] == [(4, 6)] * 3
    assert len(torch.cat(drawn).unique(dim=0)) == 12


@pytest.mark.trains
def test_the_validation_loss_is_at_the_mean_and_full_beta_and_repeatable(make_vae, batches, fit):
    model, val = make_vae(beta=2.0, beta_warmup=1.0, optimizer=partial(torch.optim.SGD, lr=0.0)), batches(1, seed=1)
    trainer = fit(model, batches(1), val)
    parts = model.eval().losses(to_float(val[0]), torch.zeros(4, 6))
    expected = parts["reconstruction"] + 2.0 * parts["kl_charged"]
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], expected.detach())


@pytest.mark.trains
def test_the_learning_rate_follows_the_schedule_step_by_step_to_the_end_of_the_run(make_vae, batches, fit):
    watch = Watch()
    model = make_vae(optimizer=partial(torch.optim.SGD, lr=1e-4), schedule=lambda step, total: 1 - step / total)
    fit(model, batches(2), callbacks=[watch], max_epochs=2)
    assert watch.rates == pytest.approx([1e-4, 0.75e-4, 0.5e-4, 0.25e-4])


@pytest.mark.trains
def test_training_moves_every_parameter_and_lowers_the_loss(make_vae, batches, fit):
    model, watch = make_vae(optimizer=partial(torch.optim.Adam, lr=1e-2)), Watch()
    before = [parameter.clone() for parameter in model.parameters()]
    fit(model, batches(2) * 30, callbacks=[watch])
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert sum(watch.losses[-2:]) < 0.5 * sum(watch.losses[:2])


def test_the_posterior_is_float32_also_in_bf16(make_vae):
    with torch.autocast("cpu", torch.bfloat16):
        assert [part.dtype for part in make_vae().encode(torch.rand(2, 3, 16, 16))] == [torch.float32] * 2


@pytest.mark.trains
def test_it_trains_in_bf16_with_losses_in_float32(make_vae, batches, fit):
    model, watch, precisions = make_vae(), Watch(), []
    model.decoder.stages[0].register_forward_hook(lambda *call: precisions.append(call[-1].dtype))
    model.reconstruction_loss = lambda drawn, real: precisions.append(drawn.dtype) or mse(drawn, real)
    trainer = fit(model, batches(2), batches(1), [watch], precision="bf16-mixed")
    assert precisions == [torch.bfloat16, torch.float32] * 3
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert torch.tensor(watch.losses).isfinite().all()
    assert trainer.callback_metrics["val/loss"].isfinite()


@pytest.mark.trains
def test_samples_come_from_the_fitted_prior_and_reconstructions_do_not(make_vae, batches, fit):
    model = make_vae(aggregate_prior=True)
    fit(model, batches(4))
    assert not torch.equal(model.prior.factor, torch.eye(6)), "training must leave the prior fitted"
    model.eval()
    latents, images = torch.randn(3, 6), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.decode(latents), model.decoder(model.prior(latents)))
        assert not torch.allclose(model.decode(latents), model.decoder(latents))
        assert torch.equal(model.reconstruct(images), model.decoder(model.encode(images)[0]))


@pytest.mark.trains
def test_the_fitted_prior_changes_nothing_that_is_learned(make_vae, batches, fit):
    weights = []
    for fitted in (False, True):
        torch.manual_seed(0)
        model = make_vae(aggregate_prior=fitted)
        fit(model, batches(3))
        weights.append(dict(model.named_parameters()))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# Averaged weights


def weights_of(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def same(before, now):
    return all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


def test_all_but_training_is_done_by_the_averages(make_vae):
    model, images, latents = make_vae(ema_decay=0.9), torch.rand(2, 3, 16, 16), torch.randn(2, 6)
    encoder, decoder = model.averaged_encoder.module, model.averaged_decoder.module
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        nn.init.normal_(parameter, std=0.3)
    model.eval()
    mean = encoder(images).chunk(2, dim=1)[0]
    assert torch.equal(model.decode(latents), decoder(latents))
    assert torch.equal(model.latents_of(images), mean)
    assert torch.equal(model.reconstruct(images), decoder(mean))
    held_out = model.losses(images, torch.zeros(2, 6))["reconstruction"]
    torch.testing.assert_close(held_out, mse(decoder(mean), images))
    assert not torch.allclose(model.train().losses(images, torch.zeros(2, 6))["reconstruction"], held_out)


@pytest.mark.trains
@pytest.mark.parametrize("adversarial", [False, True])
def test_the_averages_take_in_each_step_and_change_nothing_that_is_learned(
    make_vae, make_term, batches, fit, adversarial
):
    learned = []
    for decay in (0.0, 0.9):
        model = make_vae(ema_decay=decay, adversarial=make_term() if adversarial else None)
        seen = EachStep(lambda model: weights_of(model.encoder, model.decoder))
        fit(model, batches(3), callbacks=[seen])
        learned.append(seen.kept[-1])
    assert same(*learned)
    # The first is copied; then the decay is 2 / 11, and 3 / 12.
    expected = [a.lerp(b, 9 / 11).lerp(c, 9 / 12) for a, b, c in zip(*seen.kept, strict=True)]
    torch.testing.assert_close(weights_of(model.averaged_encoder, model.averaged_decoder), expected)


@pytest.mark.trains
@pytest.mark.parametrize("adversarial", [False, True])
def test_the_prior_is_fitted_to_the_averaged_encoder(make_vae, make_term, batches, fit, monkeypatch, adversarial):
    photo, given = batches(1), []
    update = AggregatePrior.update
    monkeypatch.setattr(
        AggregatePrior, "update", lambda prior, mean, *rest: given.append(mean) or update(prior, mean, *rest)
    )

    def encoded(model):
        with evaluating(model):
            return model.encode(to_float(photo[0]))[0]

    model = make_vae(
        ema_decay=0.99,
        aggregate_prior=True,
        optimizer=partial(torch.optim.Adam, lr=0.01),
        adversarial=make_term() if adversarial else None,
    )
    seen = EachStep(encoded)
    fit(model, photo * 9, callbacks=[seen])
    assert len(given) == 3, "which is costly, so not in each step"
    torch.testing.assert_close(given[1:], [seen.kept[3], seen.kept[7]])
    assert (model.prior.mean - seen.kept[-1].mean(0)).norm() < seen.kept[-1].mean(0).norm(), "and forgets its beginning"


def test_a_bundle_of_before_and_a_run_without_averages_have_the_same_weights(make_vae):
    names = set(make_vae().state_dict())
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder"}
    assert names < set(make_vae(ema_decay=0.9).state_dict())


# The adversarial term


@pytest.mark.trains
def test_without_a_weight_there_is_no_discriminator_and_nothing_changes(make_vae, make_term, batches, fit):
    trained = []
    for term in (None, make_term(weight=0.0, discriminator=lambda: pytest.fail("there must be none"))):
        model, watch = make_vae(adversarial=term), Watch()
        fit(model, batches(3), callbacks=[watch])
        trained.append((watch.losses, weights_of(model)))
    assert model.automatic_optimization, "or trainer.gradient_clip_val would be refused"
    assert trained[0][0] == trained[1][0]
    assert same(trained[0][1], trained[1][1])


@pytest.mark.trains
def test_the_encoder_has_no_adversarial_gradient_and_the_decoder_has(make_vae, make_term, batches, fit):
    learned = {}
    for weight in (1e-9, 1.0, 5.0):
        # Without normalization, by which the draws would reach the reconstructions beside them.
        model = make_vae(
            adversarial=make_term(weight=weight),
            optimizer=partial(torch.optim.SGD, lr=1e-4),
            normalization=nn.Identity,
        )
        fit(model, batches(1))
        learned[weight] = weights_of(model.encoder), weights_of(model.decoder)
    for weight in (1.0, 5.0):
        assert same(learned[weight][0], learned[1e-9][0])
        assert not same(learned[weight][1], learned[1e-9][1])


@pytest.mark.trains
def test_what_is_judged_is_drawn_as_samples_are(make_vae, make_term, batches, fit, monkeypatch):
    model, given = make_vae(adversarial=make_term(), aggregate_prior=True), []
    monkeypatch.setattr(model.prior, "forward", lambda latents: given.append(latents) or latents)
    fit(model, batches(3))
    assert [latents.shape for latents in given] == [(4, 6)] * 3
    assert len(torch.cat(given).unique(dim=0)) == 12
    assert not torch.equal(model.prior.factor, torch.eye(6)), "and the prior is fitted on the way"


@pytest.mark.trains
def test_the_discriminator_rests_until_its_share_of_the_run_has_begun(make_vae, make_term, batches, fit):
    model, seen = make_vae(adversarial=make_term(start=0.5)), EachStep(lambda model: weights_of(model.adversarial))
    trainer = fit(model, batches(4), callbacks=[seen], max_epochs=2)
    start, kept = weights_of(make_term()), seen.kept
    assert all(same(start, kept[step]) for step in range(4))
    assert not any(same(kept[step], kept[step + 1]) for step in range(3, 7))
    assert trainer.callback_metrics["train/discriminator_loss"] > 0


@pytest.mark.trains
def test_the_share_is_one_of_the_minutes_where_they_end_the_run(make_vae, make_term, batches, fit, monkeypatch):
    model = make_vae(adversarial=make_term(start=0.5))
    monkeypatch.setattr(optimization, "expected_steps", lambda trainer, step: 4)  # as it looks by the time that is left
    seen = EachStep(lambda model: weights_of(model.adversarial))
    fit(model, batches(4), callbacks=[seen], max_epochs=2)
    assert same(seen.kept[1], seen.kept[0])
    assert not same(seen.kept[2], seen.kept[1])


@pytest.mark.trains
def test_its_rate_and_beta_follow_the_batches_of_the_run(make_vae, make_term, batches, fit):
    model = make_vae(
        adversarial=make_term(start=0.5, optimizer=partial(torch.optim.SGD, lr=1.0)),
        schedule=lambda step, total: 1 - step / total,
        optimizer=partial(torch.optim.SGD, lr=1e-4),
        beta=4.0,
        beta_warmup=1.0,
    )
    noted: list[dict[str, torch.Tensor]] = []
    model.note = noted.append
    look = EachStep(lambda model: [o.param_groups[0]["lr"] for o in model.optimizers()])
    fit(model, batches(4), callbacks=[look], max_epochs=1)
    assert [rate for rate, _ in look.kept] == pytest.approx([0.75e-4, 0.5e-4, 0.25e-4, 0.0])
    assert [rate for _, rate in look.kept][2:] == pytest.approx([0.25, 0.0])
    betas = [(v["train/loss"] - v["train/reconstruction"]).item() / v["train/kl"].item() for v in noted]
    assert betas == pytest.approx([0.0, 1.0, 2.0, 3.0], rel=1e-3)


@pytest.mark.trains
def test_its_discriminator_is_calibrated_once_by_photos(make_vae, make_term, batches, fit):
    model, given = make_vae(adversarial=make_term(start=0.0)), list[torch.Tensor]()
    model.adversarial.discriminator.calibrate = given.append
    fit(model, photos := batches(2), max_epochs=1)
    assert len(given) == 1
    assert any(torch.equal(given[0], to_float(batch)) for batch in photos)


def reconstruction_error(model, images):
    with evaluating(model):
        return mse(model.reconstruct(images), images)


@pytest.mark.trains
def test_it_trains_in_bf16_and_lowers_the_reconstruction_error(make_vae, make_term, batches, fit):
    model = make_vae(
        adversarial=make_term(start=0.2),
        ema_decay=0.9,
        aggregate_prior=True,
        optimizer=partial(torch.optim.Adam, lr=1e-2),
    )
    before, images = weights_of(model.encoder, model.decoder), to_float(torch.cat(batches(2)))
    at_first = reconstruction_error(model, images)
    trainer = fit(model, batches(2) * 30, batches(1), precision="bf16-mixed")
    assert not any(torch.equal(a, b) for a, b in zip(weights_of(model.encoder, model.decoder), before, strict=True))
    assert reconstruction_error(model, images) < 0.75 * at_first
    names = ("loss", "reconstruction", "kl", "discriminator_loss", "generator_loss")
    assert all(trainer.callback_metrics[f"train/{name}"].isfinite() for name in names)
    assert trainer.callback_metrics["val/loss"].isfinite()
