"""The moving average of weights."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from catsweep.models.optimization import MovingAverage

values = st.floats(-1, 1)


def counted(averaged: MovingAverage, updates: int) -> MovingAverage:
    """The average as a checkpoint restores it, after so many updates."""
    averaged.load_state_dict({**averaged.state_dict(), "n_averaged": torch.tensor(updates)})
    return averaged


def network(weight: float = 0.0, batches: int = 0) -> nn.BatchNorm1d:
    """Weights, running statistics, and a whole number."""
    norm = nn.BatchNorm1d(2)
    nn.init.constant_(norm.weight, weight)
    norm.running_mean.fill_(weight)
    norm.num_batches_tracked.fill_(batches)
    return norm


@given(decay=st.floats(0, 0.9999), count=st.integers(1, 100_000), average=values, current=values)
def test_it_weighs_by_a_decay_that_rises_to_its_bound(decay, count, average, current):
    averaged = counted(MovingAverage(network(average), decay), count)
    averaged.update_parameters(network(current))
    weight = min(decay, (1 + count) / (10 + count))
    expected = pytest.approx(weight * average + (1 - weight) * current, abs=1e-6)
    assert averaged.module.get_parameter("weight").tolist() == [expected] * 2
    assert averaged.module.get_buffer("running_mean").tolist() == [expected] * 2
    assert averaged.n_averaged == count + 1


def test_the_first_weights_are_taken_over():
    averaged = MovingAverage(network(0.0), 0.9)
    averaged.update_parameters(network(1.0))
    assert averaged.module.get_parameter("weight").tolist() == [1.0, 1.0]


def test_a_counter_is_taken_over_and_not_averaged():
    averaged = counted(MovingAverage(network(batches=3), 0.9), 100)
    averaged.update_parameters(network(batches=8))
    assert averaged.module.num_batches_tracked == 8


def test_the_model_is_left_alone():
    model = network(1.0, 4)
    before = copy.deepcopy(model.state_dict())
    MovingAverage(network(), 0.5).update_parameters(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_an_update_never_waits_for_its_device():
    """Tensors without content cannot be read: whatever asked for a number, as each wait for a GPU does, would raise."""
    averaged = MovingAverage(network(), 0.9).to("meta")
    averaged.update_parameters(network().to("meta"))
    with pytest.raises(RuntimeError, match="meta"):
        bool(averaged.n_averaged == 1)


@pytest.mark.parametrize("change", [lambda both: both.double(), copy.deepcopy], ids=["moved", "copied"])
def test_what_was_moved_or_copied_is_averaged_where_it_is_then(change):
    model = network(0.0)
    averaged = MovingAverage(model, 0.9)
    averaged.update_parameters(model)
    model, averaged = change(nn.ModuleList([model, averaged]))
    nn.init.constant_(model.weight, 1.0)
    model.running_mean.fill_(1.0)
    averaged.update_parameters(model)
    expected = pytest.approx(1 - 2 / 11, abs=1e-6)
    assert (
        averaged.module.get_parameter("weight").tolist()
        == averaged.module.get_buffer("running_mean").tolist()
        == [expected] * 2
    )


def test_another_model_may_be_averaged_next():
    averaged = MovingAverage(network(), 0.9)
    averaged.update_parameters(network(0.0))
    averaged.update_parameters(network(1.0))
    assert averaged.module.get_parameter("weight").tolist() == [pytest.approx(1 - 2 / 11)] * 2
