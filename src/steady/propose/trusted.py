"""Instantiation of the sampler or pruner that a configuration, or a study of somebody else's, names."""

import difflib
import inspect
import pkgutil
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
        meant = did_you_mean(refused[1], allowed)
        raise ConfigError(f"{refused[1]} is not on the whitelist: expected {known}.{meant} {remedy}") from error


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Ask for the closest of the known words, behind a space; empty if none is close.

    Example:
        >>> did_you_mean("TPESamplr", ["TPESampler", "GridSampler"])
        ' Did you mean TPESampler?'
    """
    close = difflib.get_close_matches(word, known, 1)
    return f" Did you mean {close[0]}?" if close else ""


def unknown_arguments(node: Mapping[str, Any]) -> list[str]:
    """List the keys of a node that its class, which may be instantiated, does not take.

    Example:
        >>> unknown_arguments({"_target_": "optuna.pruners.MedianPruner", "percentile": 40.0})
        ['percentile']
    """
    known = inspect.signature(pkgutil.resolve_name(node["_target_"])).parameters
    return [key for key in node if key not in known and not key.startswith("_")]
