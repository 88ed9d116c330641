"""ONNX remover: find the cat by a network in a file, such as IS-Net or U2-Net."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import onnxruntime
from numpy.typing import DTypeLike

from catsweep.errors import ConfigError, DataError
from catsweep.prepare.image_files import Floats, Pixels, Points
from catsweep.prepare.removers import Alpha
from catsweep.records import file_digest

FORMATS = "Any IS-Net or U2-Net will do: one image in, (1, 3, S, S), and a mask of the same size as the first output."
TYPES: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
ROUGHLY = 0.01  # how far a mask may leave 0 to 1: half precision does


@dataclass
class Onnx:
    """Network that takes one photo, (1, 3, S, S), and returns a mask as its first output."""

    reliability: ClassVar[float] = 0.9

    file: str | Path  # of the network
    size: int | None = None  # S, the side of its input, pixels; None: as the file says
    mean: Sequence[float] = (128, 128, 128)  # subtracted from red, green and blue, 0 to 255
    std: Sequence[float] = (256, 256, 256)  # divisor after that
    output: str = "plain"  # `plain` (0 to 1), `minmax` (scaled to 0 to 1) or `logits` (before the sigmoid)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.file = Path(self.file).expanduser()
        self.mean, self.std = ([float(value) for value in values] for values in (self.mean, self.std))

    def parameters(self) -> dict[str, Any]:
        """See `Remover`. Identifies the network by sha256; raises DataError if there is no such file."""
        given = {"size": self.size, "mean": self.mean, "std": self.std, "output": self.output}
        return {"name": "onnx", "sha256": self._sha256, **given}

    def __call__(self, photo: Pixels, points: Points | None) -> Alpha:
        """See `Remover`. Raises DataError if the network or its output is of another kind."""
        height, width = photo.shape[:2]
        with self._lock:  # onnxruntime uses all cores for one photo; two at a time would only take twice the memory
            session, side = self._network
            shrinks = max(height, width) > side
            square = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            values = ((square - np.array(self.mean)) / self.std).transpose(2, 0, 1)
            (takes,), gives = session.get_inputs(), session.get_outputs()[0]
            (mask,) = session.run([gives.name], {takes.name: values[None].astype(TYPES[takes.type])})
        if mask.size != side**2 or mask.shape[-2:] != (side, side):
            raise DataError(f"Expected a mask of {side} x {side}, but the network gives {mask.shape}. {FORMATS}")
        share = _share(np.asarray(mask.reshape(side, side), np.float32), self.output)
        whole = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.rint(np.clip(whole, 0, 1) * 255).astype(np.uint8)

    @cached_property
    def _sha256(self) -> str:
        try:
            return file_digest(Path(self.file))
        except OSError as error:
            raise DataError(
                f"Expected an ONNX network in background.remover.file={self.file}, but: {error.strerror}. "
                "`make background-model` fetches IS-Net into data/models/isnet.onnx."
            ) from error

    @cached_property
    def _network(self) -> tuple[Any, int]:
        """Load the network; return onnxruntime's session and the side of its input, pixels."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it keeps 0.8 GB for IS-Net and makes nothing faster
        # Idle threads that spin take the cores from those that cut out the photo before.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file, size = self.file, self.size
        try:
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen kinds, without a common one of its own
            raise DataError(f"Expected an ONNX network in {file}, but onnxruntime says: {error}. {FORMATS}") from error
        takes = session.get_inputs()
        shape = takes[0].shape
        if len(takes) != 1 or len(shape) != 4 or shape[1] != 3 or takes[0].type not in TYPES:
            came = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in takes)
            raise DataError(f"Expected {file} to take one photo, but it takes {came}. {FORMATS}")
        side = size or shape[2]
        if not isinstance(side, int) or any(isinstance(given, int) and given != side for given in shape[2:]):
            raise ConfigError(
                f"Expected background.remover.size to be the side of the network's input in pixels, but {file} takes "
                f"{shape} and the size is {size}. Give the one that it was trained with."
            )
        return session, side


def _share(values: Floats, output: str) -> Floats:
    """Map a network's output, see `Onnx`, to the cat's share of each pixel."""
    if output == "logits":
        return 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    low, high = values.min(), values.max()
    if output == "minmax":
        return np.asarray((values - low) / max(high - low, np.finfo(np.float32).tiny))
    if not (low >= -ROUGHLY and high <= 1 + ROUGHLY):  # also refuses NaN
        raise DataError(
            f"Expected the network to return values from 0 to 1, but they go from {low:.3g} to {high:.3g}. "
            "background.remover.output=logits if it lacks the sigmoid, else minmax."
        )
    return values
