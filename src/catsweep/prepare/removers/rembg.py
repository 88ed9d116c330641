"""rembg remover: find the cat by rembg, an optional package with a dozen networks, which it downloads for its user.

It is imported when the first photo is cut out, for that alone takes half a minute the first time: it compiles.
"""

import logging
import threading
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np

from catsweep.errors import ConfigError, DataError
from catsweep.prepare.image_files import Pixels, Points
from catsweep.prepare.removers import Alpha

log = logging.getLogger(__name__)


@dataclass
class Rembg:
    """Network of rembg, by name.

    Raises:
        ConfigError: no name is given. rembg would take bria-rmbg, which is not free for commercial use.
    """

    reliability: ClassVar[float] = 0.9

    model: str | None = None  # for example `isnet-general-use`, `u2net` or `birefnet-general`
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(
                "background/remover=rembg needs the name of a model: add background.remover.model=isnet-general-use. "
                "rembg's own choice, bria-rmbg, is not free for commercial use, so it has to be named, too."
            )

    def parameters(self) -> dict[str, Any]:
        """See `Remover`. Its release fixes the weights; raises ConfigError if rembg is not installed."""
        try:
            return {"name": "rembg", "model": self.model, "version": version("rembg")}
        except PackageNotFoundError as error:
            raise ConfigError(
                "background/remover=rembg needs the package rembg, which is not installed: "
                "pip install 'catsweep[rembg]'. background/remover=onnx does without it."
            ) from error

    def __call__(self, photo: Pixels, points: Points | None) -> Alpha:
        """See `Remover`."""
        with self._lock:  # onnxruntime uses all cores for one photo
            return np.asarray(self._rembg.remove(photo, session=self._session, only_mask=True))

    @cached_property
    def _rembg(self) -> Any:
        log.info("Loading rembg; its first import compiles for half a minute.")
        try:
            return import_module("rembg")
        except ImportError as error:
            raise ConfigError(f"Expected to import rembg, but: {error}. pip install 'catsweep[rembg]'.") from error

    @cached_property
    def _session(self) -> Any:
        try:
            session = self._rembg.new_session(self.model)
        except ValueError as error:
            raise ConfigError(
                f"Expected background.remover.model to be a model of rembg, but: {error}. "
                "For example isnet-general-use, u2net, birefnet-general."
            ) from error
        except Exception as error:  # of its downloader, of the network, of onnxruntime
            raise DataError(
                f"Expected rembg to load its model {self.model}, which it downloads the first time, but: {error}. Try "
                "again with a network, or put the file where rembg looks for it; background/remover=onnx needs none."
            ) from error
        if not getattr(session, "is_local", lambda: True)():
            raise ConfigError(
                f"Expected a model that runs here, but {self.model} would send every photo to a service. "
                "For example isnet-general-use, u2net, birefnet-general."
            )
        return session
