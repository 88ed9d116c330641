"""Tiny models, batches and training runs."""

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from catsweep.losses.adversarial import BinaryCrossEntropy, Hinge
from catsweep.losses.reconstruction import mse
from catsweep.models.adversarial_term import AdversarialTerm
from catsweep.models.blocks import PlainDown, PlainOutput, PlainUp
from catsweep.models.dcgan import DCGAN
from catsweep.models.discriminator import PlainDiscriminator
from catsweep.models.vae import VAE


def constant(step, total):
    return 1.0


NETWORKS = {
    "image_size": 16,
    "latent_size": 6,
    "halvings": 2,
    "channels": 4,
    "max_channels": 8,
    "block": {"down": PlainDown, "up": PlainUp, "output": PlainOutput},
    "normalization": nn.BatchNorm2d,
    "activation": nn.LeakyReLU,
    "schedule": constant,
}
LEARNING = {
    VAE: {
        "reconstruction_loss": mse,
        "beta": 1.0,
        "beta_warmup": 0.0,
        "free_bits": 0.0,
        "aggregate_prior": False,
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
    },
    DCGAN: {
        "discriminator_normalization": nn.BatchNorm2d,
        "discriminator_activation": partial(nn.LeakyReLU, 0.2),
        "adversarial_loss": BinaryCrossEntropy(),
        "optimizer": partial(torch.optim.Adam, betas=(0.5, 0.999)),
        "generator_lr": 1e-3,
        "discriminator_lr": 1e-3,
        "ema_decay": 0.9,
        "spectral_norm": False,
        "r1_gamma": 0.0,
        "r1_every": 1,
    },
}


def make(kind, **changes):
    torch.manual_seed(0)
    return kind(**{**NETWORKS, **LEARNING[kind], **changes})


@pytest.fixture
def make_vae():
    return partial(make, VAE)


@pytest.fixture
def make_dcgan():
    return lambda **changes: make(DCGAN, **{"augment": nn.Identity(), **changes})


def plain_discriminator():
    network: dict[str, Any] = {
        key: NETWORKS[key] for key in ("image_size", "halvings", "channels", "max_channels", "normalization")
    }
    return PlainDiscriminator(PlainDown, activation=partial(nn.LeakyReLU, 0.2), **network)


@pytest.fixture
def make_term():
    """A maker of adversarial terms with a discriminator that sees pixels."""

    def make_one(**changes):
        torch.manual_seed(1)
        usual = {
            "discriminator": plain_discriminator,
            "loss": Hinge(),
            "optimizer": partial(torch.optim.Adam, lr=1e-3),
            "augment": nn.Identity(),
            "weight": 1.0,
            "start": 0.0,
            "similarity": 0.25,
        }
        return AdversarialTerm(**{**usual, **changes})

    return make_one


class Batches:
    """A loader. (Lightning takes a plain list for a list of loaders.)"""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


@pytest.fixture
def batches():
    """A maker of uint8 batches (4, 16, 16, 3): smooth, so that there is something to learn."""

    def make_batches(n, seed=0):
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(n * 4, 3, 2, 2, generator=generator)
        images = nn.functional.interpolate(corners, size=16, mode="bilinear")
        return list((images * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().split(4))

    return make_batches


@pytest.fixture
def fit():
    """Train a model for real; the trainer comes back."""

    def run(model, train, val=None, callbacks=(), max_epochs=1, precision="32-true", checkpoint=None):
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            precision=precision,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if val else 0,
        )
        trainer.fit(model, Batches(train), Batches(val or train), ckpt_path=checkpoint, weights_only=bool(checkpoint))
        return trainer

    return run
