"""Which key of a command's configuration sets a place, for `catsweep.places` to name where something is wrong.

Imported at each start, so it may import nothing heavy.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def setting_of(place: str, cfg: DictConfig | None) -> str | None:
    """The key that sets a place, as one writes it on the command line: `out=DIR`; None if none does.

    Args:
        place: a file or folder, perhaps deep within the one that is set.
        cfg: of the command.
    """
    found = [(len(os.path.abspath(value)), key, value) for key, value in words(cfg) if within(place, value)]
    if not found:
        return None
    longest = max(length for length, _, _ in found)
    _, key, value = min(item for item in found if item[0] == longest)
    is_file = Path(value).suffix and not os.path.isdir(value)
    return f"{key}={'FILE' + Path(value).suffix if is_file else 'DIR'}"


def within(place: str, folder: str) -> bool:
    """Whether a place is a folder or in it; here itself, and what is above, holds everything and sets nothing."""
    inner, outer, here = (os.path.abspath(path) for path in (place, folder, "."))
    return outer not in (here, *map(str, Path(here).parents)) and (inner == outer or inner.startswith(f"{outer}/"))


def words(cfg: DictConfig | None) -> Iterator[tuple[str, str]]:
    """Keys, with their values, that are set to a word, which may be that of a folder; Hydra's own for runs, too."""
    yield from _words(cfg, "")
    hydra: Any = None
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
    elif cfg is not None:
        with suppress(OmegaConfBaseException):  # as Hydra hands it to its callbacks
            hydra = OmegaConf.select(cfg, "hydra")
    for key in ("sweep.dir", "run.dir"):
        with suppress(OmegaConfBaseException):
            if hydra is not None and isinstance(value := OmegaConf.select(hydra, key), str):
                yield f"hydra.{key}", value


def _words(node: Any, above: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    for key in map(str, node):
        if above + key == "hydra" or OmegaConf.is_interpolation(node, key):  # the latter is set by another key
            continue
        with suppress(OmegaConfBaseException):
            value = node[key]
            if isinstance(value, str):
                yield above + key, value
            yield from _words(value, f"{above}{key}.")
