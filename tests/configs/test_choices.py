"""Every option of the small groups (activation, depth, loss, optimizer, schedule, width) is what it says it is."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from catsweep.instantiation import instantiate
from catsweep.losses.adversarial import AdversarialLoss

CONF = Path(__file__).resolve().parents[2] / "conf"
RECIPE = {"lr": 1e-3, "betas": [0.5, 0.99]}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load(group: str, option: str, **recipe):
    """The node with the model's recipe beside it, as in a composed configuration."""
    node: Any = OmegaConf.load(CONF / group / f"{option}.yaml")
    node.pop("defaults", None)  # which Hydra composes
    return OmegaConf.create({"recipe": {**RECIPE, **recipe}, group: node})[group]


def test_the_groups_offer_what_is_promised():
    assert options("activation") == ["elu", "gelu", "leaky_relu", "mish", "relu", "silu"]
    assert options("optimizer") == ["adam", "adamw", "lion", "radam", "rmsprop", "sgd"]
    assert options("schedule") == ["constant", "cosine", "linear"]
    reconstruction = {"mse", "l1", "huber", "charbonnier", "bce", "ssim", "ms_ssim", "l1_ssim", "psnr"}
    adversarial = {"bce", "hinge", "lsgan", "wgan_gp", "relativistic_average", "relativistic_pairs"}
    losses = {name: load("loss", name) for name in options("loss")}
    assert {name for name, node in losses.items() if "reconstruction" in node} >= reconstruction
    assert {name for name, node in losses.items() if "adversarial" in node} >= adversarial


@pytest.mark.parametrize("option", options("activation"))
def test_activations_are_factories_of_modules_that_leave_their_input_alone(option):
    module = instantiate(load("activation", option))()
    assert isinstance(module, nn.Module)
    given = torch.linspace(-3, 3, 7)
    result = module(given)
    assert torch.equal(given, torch.linspace(-3, 3, 7))  # in place, it would break double backward
    assert result[-1] == pytest.approx(3, abs=0.2)
    assert result[0] > -1.01


@pytest.mark.parametrize("option", options("optimizer"))
def test_optimizers_lower_a_quadratic_in_one_step(option):
    torch.manual_seed(0)
    module = nn.Linear(4, 4)
    optimizer = instantiate(load("optimizer", option))(module.parameters())
    inputs, target = torch.randn(8, 4), torch.randn(8, 4)
    before = (module(inputs) - target).square().sum()
    before.backward()
    optimizer.step()
    assert (module(inputs) - target).square().sum() < before


@pytest.mark.parametrize("option", options("optimizer"))
def test_optimizers_take_a_rate_of_their_own_groups_without_decay_and_a_scheduler(option):
    module = nn.Linear(4, 4)
    groups = [{"params": [module.weight]}, {"params": [module.bias], "weight_decay": 0.0}]
    optimizer = instantiate(load("optimizer", option))(groups, lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    module(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 5e-3]
    assert optimizer.param_groups[1]["weight_decay"] == 0


@pytest.mark.parametrize("option", options("optimizer"))
def test_optimizer_state_survives_a_checkpoint_without_pickled_objects(option):
    module = nn.Linear(4, 4)
    optimizer = instantiate(load("optimizer", option))(module.parameters())
    module(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("option", options("optimizer"))
def test_optimizers_follow_the_recipe_of_the_model(option):
    own_rates = {"sgd": "sgd_lr", "lion": "lion_lr"}
    module = nn.Linear(2, 2)
    node = load("optimizer", option, **{own_rates.get(option, "lr"): 0.0123})
    group = instantiate(node)(module.parameters()).param_groups[0]
    assert group["lr"] == 0.0123
    if option in {"adam", "adamw", "radam"}:
        assert list(group["betas"]) == RECIPE["betas"]
    if option in {"adamw", "lion"}:
        assert group["weight_decay"] > 0


@pytest.mark.parametrize("option", options("schedule"))
def test_schedules_run_from_a_first_step_above_zero_to_their_end(option):
    schedule = instantiate(load("schedule", option))
    multipliers = [schedule(step, 1000) for step in range(1001)]
    assert all(0 <= m <= 1 for m in multipliers)
    assert multipliers[0] > 0
    assert max(multipliers) == pytest.approx(1, abs=1e-3)
    assert multipliers[-1] == pytest.approx(load("schedule", option).get("final", 1.0))


@pytest.mark.parametrize("option", options("loss"))
def test_losses_are_a_function_or_an_adversarial_loss(option):
    node = load("loss", option)
    assert node.keys() <= {"reconstruction", "adversarial", "perceptual"}
    if "reconstruction" in node:
        images = torch.rand(2, 3, 32, 32)
        loss = instantiate(node.reconstruction)
        assert loss(images.flip(3), images) > loss(images, images)
    if "adversarial" in node:
        loss = instantiate(node.adversarial)
        assert isinstance(loss, AdversarialLoss)
        assert math.isfinite(loss.discriminator(torch.zeros(2), torch.zeros(2)))
        assert (loss.gradient_penalty > 0) == (option == "wgan_gp")


@pytest.mark.parametrize(
    ("group", "key", "values"), [("depth", "halvings", [3, 4, 5]), ("width", "channels", [16, 32, 64])]
)
def test_sizes_grow_with_their_names(group, key, values):
    names = {"depth": ["shallow", "medium", "deep"], "width": ["narrow", "medium", "wide"]}[group]
    assert sorted(names) == options(group)
    assert [load(group, name)[key] for name in names] == values
    if group == "width":
        assert [load(group, name).max_channels for name in names] == [256, 512, 512]
