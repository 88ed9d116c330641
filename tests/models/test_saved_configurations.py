"""Configurations that runs saved before `ConvArchitecture` build the same networks, weight by weight."""

import hashlib
from typing import Any

import pytest
import torch

from catsweep import untrusted_config


def part(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, "_partial_": True, **arguments}


def blocks(family: str) -> dict[str, Any]:
    return {name: part(f"catsweep.models.blocks.{family}{name.title()}") for name in ("down", "up", "output")}


LEAKY = part("torch.nn.LeakyReLU", negative_slope=0.2)
LEARNING = {
    "optimizer": part("torch.optim.Adam", lr=0.001), "schedule": part("catsweep.models.schedules.constant", warmup=0.0),
}  # fmt: skip
MSE = part("catsweep.losses.reconstruction.mse")
HINGE = {"_target_": "catsweep.losses.adversarial.Hinge"}
AUGMENT = {"_target_": "catsweep.models.diffaugment.DiffAugment", "policy": []}
NETWORK = {
    "image_size": 16, "latent_size": 6, "halvings": 2, "channels": 4, "max_channels": 8, "block": blocks("Plain"),
    "normalization": part("torch.nn.BatchNorm2d"), "activation": LEAKY, **LEARNING,
}  # fmt: skip
JUDGING = {
    "image_size": 16, "channels": 4, "normalization": part("torch.nn.BatchNorm2d"), "activation": LEAKY,
    "spectral_norm": True,
}  # fmt: skip
PROJECTED = {
    "_target_": "catsweep.models.discriminator.ProjectedDiscriminator", **JUDGING, "network": "efficientnet_lite1",
    "strides": [2, 4], "head_channels": 4, "min_side": 32, "pixels": True,
}  # fmt: skip
PLAIN = {
    "_target_": "catsweep.models.discriminator.PlainDiscriminator", **JUDGING, "halvings": 2, "max_channels": 8,
    "down": blocks("Plain")["down"],
}  # fmt: skip
TERM = {
    "_target_": "catsweep.models.adversarial_term.AdversarialTerm", "weight": 6.0, "start": 0.0, "similarity": 0.25,
    "discriminator": {**PROJECTED, "_partial_": True}, "loss": HINGE,
    "optimizer": part("torch.optim.Adam", lr=4e-4), "augment": AUGMENT,
}  # fmt: skip
VAE = {
    "_target_": "catsweep.models.vae.VAE", **NETWORK, "reconstruction_loss": MSE, "beta": 1.0, "beta_warmup": 0.1,
    "free_bits": 0.0, "aggregate_prior": True,
}  # fmt: skip
GAN = {
    "_target_": "catsweep.models.dcgan.DCGAN", **NETWORK, "adversarial_loss": HINGE, "generator_lr": 1e-3,
    "discriminator_lr": 1e-3, "ema_decay": 0.9, "r1_gamma": 0.0, "r1_every": 8, "augment": AUGMENT,
}  # fmt: skip
DOUBLING = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
PRETRAINED = {
    "_target_": "catsweep.models.vae_pretrained.PretrainedVAE", "image_size": 16, "source": "somebody/cats",
    "subfolder": None, "revision": None, "train": "prior", "couplings": 2, "hidden": 4, "reconstruction_loss": MSE,
    "architecture": {"block_out_channels": [4, 8], "norm_num_groups": 2, **DOUBLING}, **LEARNING,
}  # fmt: skip
# The digest of all names and shapes, and the sum of all weights of seed 0, as the code of before gave them.
SAVED = {
    "vae": (VAE, "13cf5d9405a57496", 46.729254),
    "adversarial": ({**VAE, "ema_decay": 0.9, "adversarial": TERM}, "0ac8d0cf212990f8", 119.616872),
    "residual": ({**VAE, "block": blocks("Residual")}, "5611de44e668fe7d", 77.921427),
    "dcgan": ({**GAN, "discriminator": PLAIN}, "fbf12223d9aa69e9", 64.272219),
    "projected": ({**GAN, "discriminator": PROJECTED}, "de3b77ef29525bb0", 85.118375),
    "without a discriminator": (
        {
            **GAN, "discriminator_normalization": part("torch.nn.Identity"), "discriminator_activation": LEAKY,
            "spectral_norm": True,
        },
        "2d08c48a10330cfc", 51.909555,
    ),
    "pretrained": (PRETRAINED, "0639f7c479e39a72", 1207.465169),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_configuration_builds_the_same_network(name: str) -> None:
    node, digest, total = SAVED[name]
    torch.manual_seed(0)
    state = untrusted_config.rebuild({"model": node}, "model").state_dict()
    shapes = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256(shapes.encode()).hexdigest().startswith(digest)
    assert sum(value.double().sum().item() for value in state.values()) == pytest.approx(total, abs=1e-4)
