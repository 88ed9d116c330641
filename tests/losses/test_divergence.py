import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catsweep.errors import ConfigError
from catsweep.losses.divergence import free_bits, kl_normal

values = st.floats(-4, 4)


@given(mean=values, log_variance=values)
@settings(deadline=None)
def test_kl_agrees_with_torch_distributions(mean, log_variance):
    posterior = torch.distributions.Normal(torch.tensor([mean]), torch.tensor([math.exp(log_variance / 2)]))
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    result = kl_normal(torch.tensor([mean]), torch.tensor([log_variance]))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_kl_is_per_image_and_dimension_and_zero_only_at_the_prior():
    mean, log_variance = torch.zeros(5, 3), torch.zeros(5, 3)
    assert torch.equal(kl_normal(mean, log_variance), torch.zeros(5, 3))
    mean[2, 1] = 0.5
    kl = kl_normal(mean, log_variance)
    assert kl[2, 1] == pytest.approx(0.125)
    assert kl.count_nonzero() == 1


def test_kl_keeps_its_digits_near_the_prior():
    # The second-order term, 1e-8 / 4, is far below float32's resolution of exp(1e-4) - 1 - 1e-4 done naively.
    log_variance = torch.full((1, 1), 1e-3)
    assert kl_normal(torch.zeros(1, 1), log_variance).item() == pytest.approx(0.25e-6, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_kl_is_float32(dtype):
    assert kl_normal(torch.zeros(2, 3, dtype=dtype), torch.zeros(2, 3, dtype=dtype)).dtype == torch.float32


def test_without_free_bits_it_is_the_mean_kl_of_an_image():
    kl = torch.rand(7, 4)
    torch.testing.assert_close(free_bits(kl), kl.sum(dim=1).mean())


@given(rows=st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=1, max_size=6), nats=st.floats(0, 3))
@settings(deadline=None)
def test_the_floor_is_per_dimension_on_the_batch_mean(rows, nats):
    kl = torch.tensor(rows, dtype=torch.float64)
    expected = sum(max(nats, sum(column) / len(column)) for column in zip(*rows, strict=True))
    assert free_bits(kl, nats).item() == pytest.approx(expected)


def test_a_dimension_below_the_floor_feels_no_pressure_and_the_others_all_of_it():
    kl = torch.tensor([[0.1, 2.0], [0.3, 0.4]], requires_grad=True)
    free_bits(kl, nats=0.5).backward()
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_a_negative_floor_is_refused():
    with pytest.raises(ConfigError, match=r"not -0\.5"):
        free_bits(torch.zeros(2, 2), nats=-0.5)
