"""A configuration as plain values that can be kept and compared: what `catsweep.search.contract` freezes.

Pure functions. What comes out survives the way through JSON unchanged, is the same at each start, and holds no secrets.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# What these resolve to belongs to a start or a machine, or is a secret; never to the experiment.
PASSING = re.compile(r"\$\{\s*(now|hydra|oc\.env)\s*:")
INERT = "$\ue000{"  # stands for `${` where nothing may be resolved
SECRET = re.compile(r"(^|_|\b)(storage|passw(or)?d|passphrase|secret|token|api_?key|credentials?)$", re.IGNORECASE)
STORAGE = re.compile(r"(sqlite|journal|postgres(ql)?|mysql|mariadb|oracle|mssql|redis|grpc)(\+\w+)?://", re.IGNORECASE)
USER = re.compile(r"(?<=://)[^/@\s]+@")  # name:password@ in a URL


def resolved(config: DictConfig, dropped: Sequence[str]) -> dict[str, Any]:
    """A configuration with its interpolations resolved.

    Those that depend on something dropped, are only known within a job, or differ from start to start or from machine
    to machine (`now:`, `hydra:`, `oc.env:`) stay as written.

    Args:
        config: of any kind; not changed.
        dropped: dotted keys that are left out, with all below them.
    """
    written = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    assert isinstance(written, dict)
    for key in dropped:
        _drop(written, key.split("."))
    written = _inert(written)
    return dict(_values(written, OmegaConf.create(written)))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested dicts by dotted key; of an empty one there is nothing."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def plain(value: Any) -> Any:
    """A value as JSON gives it back.

    Args:
        value: mappings, sequences and scalars. A key named like a secret is left out, a storage URL becomes None, and
            another URL loses its user and password.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if not SECRET.search(str(key))}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = str(value).replace(INERT, "${")  # also nan, which is not equal to itself
    return None if STORAGE.match(text.strip("'\"")) else USER.sub("***@", text)


def _inert(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _inert(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_inert(item) for item in value]
    return value.replace("${", INERT) if isinstance(value, str) and PASSING.search(value) else value


def _values(written: Any, node: Any) -> Any:
    items = written.items() if isinstance(written, dict) else enumerate(written)
    found = {key: _value(value, node, key) for key, value in items}
    return found if isinstance(written, dict) else list(found.values())


def _value(written: Any, node: Any, key: Any) -> Any:
    if isinstance(written, dict | list):
        return _values(written, node[key])
    if not isinstance(written, str) or "${" not in written:
        return written
    try:
        value = node[key]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:  # something is only known within a job
        return written


def _drop(tree: dict[Any, Any], path: list[str]) -> None:
    for key in path[:-1]:
        branch = tree.get(key)
        if not isinstance(branch, dict):
            return
        tree = branch
    tree.pop(path[-1], None)
