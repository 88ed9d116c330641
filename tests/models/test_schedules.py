import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from catsweep.errors import ConfigError
from catsweep.models.schedules import constant, cosine, linear

unhurried = settings(deadline=None)
shares = st.floats(0, 1)
totals = st.integers(1, 100_000)
SCHEDULES = (constant, linear, cosine)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
every_decay = pytest.mark.parametrize("schedule", [linear, cosine])


@every_schedule
@unhurried
@given(step=st.integers(0, 200_000), total=totals, warmup=shares)
def test_is_a_share_of_the_learning_rate_and_past_the_end_stays_as_at_the_end(schedule, step, total, warmup):
    multiplier = schedule(step, total, warmup)
    assert 0 <= multiplier <= 1
    if step >= total:
        assert multiplier == schedule(total, total, warmup)


@every_schedule
@unhurried
@given(total=totals, warmup=shares)
def test_never_wastes_its_first_step(schedule, total, warmup):
    assert schedule(0, total, warmup) > 0


@every_schedule
@unhurried
@given(step=st.integers(0, 1000), total=st.integers(1, 1000), warmup=shares)
def test_rises_in_the_warm_up_and_never_after_it(schedule, step, total, warmup):
    now, then = schedule(step, total, warmup), schedule(step + 1, total, warmup)
    if step + 1 < warmup * total:
        assert then > now
    else:
        assert then <= now + 1e-12


@every_schedule
@unhurried
@given(total=st.integers(100, 10_000), warmup=st.floats(0, 0.5))
def test_makes_no_jumps(schedule, total, warmup):
    bound = max(1 / max(warmup * total, 1), math.pi / 2 / (total * (1 - warmup))) + 1e-9
    if warmup * total >= 1:
        assert schedule(0, total, warmup) <= bound
    steps = range(0, total, max(1, total // 200))
    assert all(abs(schedule(s + 1, total, warmup) - schedule(s, total, warmup)) <= bound for s in steps)


@every_decay
@unhurried
@given(total=totals, warmup=st.floats(0, 0.99), final=shares)
def test_ends_at_final_and_never_goes_below_it_after_the_warm_up(schedule, total, warmup, final):
    assert schedule(total, total, warmup, final) == pytest.approx(final, abs=1e-9)
    step = math.ceil(warmup * total + (total - warmup * total) / 2)
    assert schedule(step, total, warmup, final) >= final - 1e-12


@unhurried
@given(step=st.integers(0, 1000), total=st.integers(2, 1000), final=shares)
def test_linear_is_a_line_and_cosine_its_half_wave(step, total, final):
    assume(step <= total)
    passed = step / total
    assert linear(step, total, final=final) == pytest.approx(1 - passed * (1 - final))
    assert cosine(step, total, final=final) == pytest.approx(final + (1 - final) * math.cos(passed * math.pi / 2) ** 2)


def test_known_values():
    assert [constant(s, 8, warmup=0.5) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [linear(s, 4) for s in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert cosine(2, 4) == pytest.approx(0.5)
    assert cosine(8, 8, warmup=1.0) == 1  # all of it is warm-up: nothing is left to fall in


@every_schedule
@pytest.mark.parametrize("warmup", [-0.1, 1.5, math.nan])
def test_a_share_outside_its_range_is_refused(schedule, warmup):
    with pytest.raises(ConfigError, match=r"schedule\.warmup"):
        schedule(0, 10, warmup)


@every_decay
def test_a_final_multiplier_above_one_is_refused(schedule):
    with pytest.raises(ConfigError, match=r"final=2\.0"):
        schedule(0, 10, 0.0, 2.0)


@every_schedule
def test_a_run_without_steps_is_refused(schedule):
    with pytest.raises(ConfigError, match="at least one step"):
        schedule(0, 0)
