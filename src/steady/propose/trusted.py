"""Instantiation of the sampler or pruner that a configuration, or a study of somebody else's, names."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import hydra.utils
import optuna
from hydra.errors import InstantiationException

from steady.exceptions import ConfigError


def instantiate_allowed(node: Mapping[str, Any], allowed: Sequence[str], remedy: str) -> Any:
    """Instantiate a node, and those within it; `remedy` is a sentence for a user whose class is refused.

    Raises:
        ConfigError: a `_target_` is not among the allowed names, of which `package.*` is everything in a package.
        InstantiationException: a class does not exist, or does not take its arguments.

    Example:
        >>> instantiate_allowed({"_target_": "my.Pruner"}, ["optuna.pruners.*"], "Choose another.")
        Traceback (most recent call last):
        steady.exceptions.ConfigError: my.Pruner is not on the whitelist: expected optuna.pruners.*. Choose another.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return hydra.utils.instantiate(node, _execution_whitelist_=allowed, _convert_="all")
    except InstantiationException as error:
        refused = re.search(r"Target '([^']*)' (is not in|cannot be authorized by) the\s+Hydra execution", str(error))
        if refused is None:
            raise
        known = ", ".join(allowed)
        raise ConfigError(f"{refused[1]} is not on the whitelist: expected {known}. {remedy}") from error
