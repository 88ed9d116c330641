"""Learning-rate schedules: functions of a step and the steps of the run to a multiplier of the learning rate.

`conf/schedule/*.yaml` names one as a partial with its `warmup` and `final`, shares in [0, 1] (else a ConfigError): of
the run that is warm-up, and of the learning rate at the end. They are pure: a resumed run needs nothing but its step.
"""

import math

from catsweep.errors import ConfigError


def constant(step: int, total_steps: int, warmup: float = 0.0) -> float:
    """Rise linearly to 1 over the warm-up, of which the first step is already above 0, then stay.

    >>> constant(0, 100, warmup=0.1), constant(50, 100, warmup=0.1)
    (0.1, 1.0)
    """
    return _progress(step, total_steps, warmup)[0]


def linear(step: int, total_steps: int, warmup: float = 0.0, final: float = 0.0) -> float:
    """Rise to 1 over the warm-up, then fall to `final` on a straight line.

    >>> linear(50, 100), linear(100, 100, final=0.2)
    (0.5, 0.19999999999999996)
    """
    rise, fallen = _progress(step, total_steps, warmup, final)
    return rise * (1 + (final - 1) * fallen)


def cosine(step: int, total_steps: int, warmup: float = 0.0, final: float = 0.0) -> float:
    """Rise to 1 over the warm-up, then fall to `final` along half a cosine (Loshchilov & Hutter 2017, no restarts).

    >>> round(cosine(25, 100), 3), cosine(100, 100)
    (0.854, 0.0)
    """
    rise, fallen = _progress(step, total_steps, warmup, final)
    return rise * (final + (1 - final) * (1 + math.cos(math.pi * fallen)) / 2)


def _progress(step: int, total_steps: int, warmup: float, final: float = 0.0) -> tuple[float, float]:
    """How far the warm-up has risen and how much of the rest has passed, both in [0, 1]."""
    if not (0 <= warmup <= 1 and 0 <= final <= 1):
        raise ConfigError(
            f"A schedule's warmup and final are shares between 0 and 1, but came as warmup={warmup} and final={final}. "
            "Change schedule.warmup or schedule.final."
        )
    if total_steps < 1:
        raise ConfigError(f"A schedule spans a run of at least one step, not {total_steps}; set epochs to 1 or more.")
    step = min(step, total_steps)
    warmup_steps = warmup * total_steps
    # From the first step on something is learnt: it has 1 / warmup_steps, not 0.
    if step + 1 < warmup_steps:
        return (step + 1) / warmup_steps, 0.0
    rest = total_steps - warmup_steps
    return 1.0, max(0.0, (step - warmup_steps) / rest) if rest > 0 else 0.0
