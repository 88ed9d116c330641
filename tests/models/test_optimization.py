from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from catsweep.models.optimization import build, decayed_groups, expected_steps, of_first_process
from catsweep.usage import Usage

LAYERS = [
    lambda: nn.Linear(2, 3),
    lambda: nn.Linear(2, 3, bias=False),
    lambda: nn.Conv2d(2, 3, 3),
    lambda: nn.ConvTranspose2d(2, 3, 3, bias=False),
    lambda: nn.BatchNorm2d(3),
    lambda: nn.GroupNorm(1, 3),
    lambda: nn.PReLU(),
    lambda: spectral_norm(nn.Conv2d(2, 3, 3)),
    lambda: nn.ReLU(),
]


def flat(step, total):
    return 1.0


@given(layers=st.lists(st.sampled_from(LAYERS), max_size=5), frozen=st.booleans())
def test_every_trained_parameter_is_in_one_group_and_only_kernels_decay(layers, frozen):
    module = nn.ModuleList(layer() for layer in layers)
    if frozen and len(module):
        module[0].requires_grad_(False)
    groups: list[dict[str, Any]] = [*decayed_groups(module)]
    kernels, others = groups
    grouped = [*kernels["params"], *others["params"]]
    trained = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in grouped} == trained
    assert len(grouped) == len(trained)
    assert all(parameter.ndim > 1 for parameter in kernels["params"])
    assert all(parameter.ndim <= 1 for parameter in others["params"])
    assert others["weight_decay"] == 0
    assert "weight_decay" not in kernels


def test_decay_pulls_on_kernels_and_leaves_biases_and_scales():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    nn.init.ones_(module.get_parameter("0.bias"))
    optimizer, _ = build(module, partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5), flat, lambda step: 10)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"0.weight"}
    torch.testing.assert_close(module[0].weight.data, before["0.weight"] * 0.95)


@pytest.mark.parametrize(("lr", "expected"), [(None, 0.3), (0.7, 0.7)])
def test_the_learning_rate_is_the_factorys_unless_another_is_given(lr, expected):
    optimizer, _ = build(nn.Linear(2, 2), partial(torch.optim.SGD, lr=0.3), flat, lambda step: 10, lr)
    assert [group["lr"] for group in optimizer.param_groups] == [expected, expected]


def test_the_schedule_multiplies_the_learning_rate_of_each_step_and_stays_at_its_end():
    asked = []

    def falling(step, total):
        asked.append((step, total))
        return 1 - step / total

    optimizer, schedule = build(nn.Linear(2, 2), partial(torch.optim.SGD, lr=0.4), falling, lambda step: 4)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0, 0.0])
    assert {total for _, total in asked} == {4}
    assert max(step for step, _ in asked) == 4


def test_the_schedule_continues_where_its_state_says():
    def falling(step, total):
        return 1 - step / total

    optimizer, schedule = build(nn.Linear(2, 2), partial(torch.optim.SGD, lr=1.0), falling, lambda step: 10)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    _, resumed = build(nn.Linear(2, 2), partial(torch.optim.SGD, lr=1.0), falling, lambda step: 10)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.get_last_lr() == pytest.approx([0.7, 0.7])
    resumed.optimizer.step()
    resumed.step()
    assert resumed.get_last_lr() == pytest.approx([0.6, 0.6])


def trainer_at(elapsed, minutes, batches=1000):
    """A trainer of so many batches that has trained for so many seconds."""
    counted = Usage("seconds", 60 * minutes if minutes else None)
    counted.load_state_dict({"seconds": elapsed})
    return SimpleNamespace(estimated_stepping_batches=batches, callbacks=[counted])


@pytest.mark.parametrize(
    ("step", "elapsed", "minutes", "expected"),
    [
        (100, 30.0, None, 1000),  # only epochs bound the run
        (100, 30.0, 1, 200),  # half of the minute is over
        (100, 30.0, 100, 1000),  # the epochs end before the minutes do
        (100, 60.0, 1, 100),  # the minute is over
        (100, 90.0, 1, 100),  # overtime
        (0, 0.0, 1, 1000),  # nothing is known yet
    ],
)
def test_the_expected_length_of_a_run_follows_the_budget_that_ends_it_first(step, elapsed, minutes, expected):
    assert expected_steps(trainer_at(elapsed, minutes), step) == expected


@given(st.integers(0, 2000), st.floats(0, 100), st.floats(0.01, 2))
def test_a_run_is_never_expected_to_be_shorter_than_it_is(step, elapsed, minutes):
    assert expected_steps(trainer_at(elapsed, minutes), step) >= max(1, step)


def test_the_length_of_a_run_is_asked_once_a_step_for_all_groups_of_parameters():
    asked = []
    module = nn.Linear(2, 3)  # a kernel and a bias, in a group each
    optimizer, schedule = build(module, torch.optim.SGD, flat, lambda step: asked.append(step) or 10, lr=0.1)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    assert asked == [0, 1, 2]


def test_what_is_measured_is_measured_by_the_images_of_the_first_process():
    own, others = torch.rand(2, 3, 4, 4).unbind()
    strategy = SimpleNamespace(broadcast=lambda images: others)
    trainers: list[Any] = [SimpleNamespace(world_size=n, strategy=strategy) for n in (1, 2)]
    kept = [of_first_process(trainer, own) for trainer in trainers]
    assert torch.equal(kept[0], own)
    assert torch.equal(kept[1], others)
