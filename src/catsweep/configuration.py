"""Whether a composed configuration makes sense, told before anything slow is imported or built.

Hydra checks that options exist; this checks that they fit together. Every message names the choices that do.
"""

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from catsweep.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
LOSS_KINDS = ("reconstruction", "adversarial")


def losses_for(kind: str, conf: Path = CONF) -> list[str]:
    """Names of the options of the group `loss` that hold a loss of this kind."""
    return sorted(file.stem for file in (conf / "loss").glob("*.yaml") if kind in OmegaConf.load(file))


def check_loss(cfg: DictConfig) -> None:
    """Refuse a loss that the model has no use for.

    A model's config says which kind it needs by the key `reconstruction_loss` or `adversarial_loss`.

    Raises:
        ConfigError: the chosen loss has no such kind.
    """
    for kind in LOSS_KINDS:
        if f"{kind}_loss" in cfg.model and kind not in cfg.loss:
            model = str(cfg.model._target_).rsplit(".", 1)[-1]
            raise ConfigError(
                f"{model} learns from {'an' if kind[0] in 'aeiou' else 'a'} {kind} loss; the chosen loss is "
                f"{' and '.join(cfg.loss)} only. Choose loss= from: {', '.join(losses_for(kind))}."
            )


def check_numbers(cfg: DictConfig) -> None:
    """Refuse budgets that are not positive numbers.

    Raises:
        ConfigError: naming the key, what it must be and what it is.
    """
    for key in ("epochs", "eval_every"):
        if type(cfg[key]) is not int or cfg[key] < 1:  # not isinstance: true and false are whole numbers to Python
            raise ConfigError(f"{key} must be a whole number from 1 up; got {cfg[key]!r}.")
    for key in ("minutes", "patience"):
        if cfg[key] is not None and (type(cfg[key]) not in (int, float) or not cfg[key] > 0):
            raise ConfigError(f"{key} must be a number above 0, or null for no bound; got {cfg[key]!r}.")


def check_rungs(cfg: DictConfig) -> None:
    """Refuse rungs that are not rising shares of the budget.

    Raises:
        ConfigError: saying what they must be and what they are.
    """
    rungs = list(cfg.rungs)
    numbers = all(type(rung) in (int, float) and 0 < rung < 1 for rung in rungs)
    if not numbers or any(low >= high for low, high in itertools.pairwise(rungs)):
        raise ConfigError(f"rungs must be shares of the budget, above 0, below 1 and rising; got {rungs}.")


def check(cfg: DictConfig) -> None:
    """Refuse a configuration of `conf/train.yaml` that cannot mean anything.

    Raises:
        ConfigError: saying what was expected, what came, and which choices there are.
    """
    check_loss(cfg)
    check_numbers(cfg)
    check_rungs(cfg)


def differences(before: Any, now: Any, ignore: Collection[str] = (), path: str = "") -> list[str]:
    """Where two plain configurations differ, a line each: `key: before → now`; an absent key is as good as null.

    Args:
        before: nested dicts, lists and scalars.
        now: the same.
        ignore: top-level keys that may differ.
        path: prefix of the keys, for the recursion.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in sorted({*before, *now}, key=str) if key not in ignore]
        join = f"{path}." if path else ""
        pairs = [differences(before.get(key), now.get(key), path=f"{join}{key}") for key in keys]
        return [line for lines in pairs for line in lines]
    return [] if before == now else [f"{path}: {before!r} → {now!r}"]
