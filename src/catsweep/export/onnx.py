"""A generator as an ONNX file: written, checked against torch, and read back.

`bundle` writes `generator.onnx` with `write` and refuses it unless `largest_difference` is small;
`generate` draws from a bundle through `OnnxGenerator`. The file needs nothing of catsweep: input `latents`
float32 (N, latent_size), standard normal; output `images` float32 (N, 3, H, W) in [0, 1]; any N.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from catsweep.errors import ExportError
from catsweep.models.latents import draw_latents
from catsweep.models.protocol import Generator, evaluating

FILE = "generator.onnx"
INPUT, OUTPUT = "latents", "images"
# Batch sizes of the check: 1 is the one an exporter is tempted to treat as a constant, 7 is none of those it saw.
CHECKED_BATCHES = (1, 7)
CHECK_SEED = 20
# What these log below the level is about nodes they removed, and operations of torchvision that they do not need.
CHATTY = {
    "torch.onnx._internal.exporter._registration": logging.ERROR,
    "onnxscript": logging.WARNING,
    "onnx_ir": logging.WARNING,
}


class _Decode(nn.Module):
    """`model.decode` as the `forward` that the exporter follows."""

    def __init__(self, model: Generator):
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents)


def write(model: Generator, path: Path) -> None:
    """Write what a model draws from latents as one self-contained file.

    Args:
        model: on the CPU, float32.
        path: of the file; its folder must exist.

    Raises:
        ExportError: the exporter cannot follow the model.
    """
    # Two latents: torch.export takes a dimension of size 1 for a constant.
    example = torch.zeros(2, model.latent_size)
    decode = _Decode(model)
    try:
        with evaluating(decode), _quiet_exporter():
            program = torch.onnx.export(
                decode,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(
            f"{type(model).__name__}.decode cannot be exported to ONNX: {reason} "
            f"It may hold tensor operations only, no step that depends on a value, and must take any batch size."
        ) from error
    assert program is not None  # it is None for the exporter that `dynamo=True` replaces
    program.save(path, external_data=False)


def largest_difference(model: Generator, path: Path, batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Compare an ONNX file with the model it was made from.

    Args:
        model: on the CPU, float32.
        path: of the ONNX file.
        batches: sizes of the batches to compare.

    Returns:
        The largest absolute difference of any value of any image, images being in [0, 1]; infinite if a shape
        differs or a value is not a number.
    """
    onnx = OnnxGenerator(path)
    largest = 0.0
    for size in batches:
        latents = draw_latents(size, model.latent_size, CHECK_SEED + size)
        with evaluating(_Decode(model)):
            expected = model.decode(latents)
        drawn = onnx.decode(latents)
        if drawn.shape != expected.shape:
            return float("inf")
        largest = max(largest, (drawn - expected).abs().nan_to_num(nan=float("inf")).max().item())
    return largest


class OnnxGenerator:
    """A `catsweep.models.protocol.Generator` that draws from an ONNX file, in ONNX Runtime on the CPU.

    Args:
        path: of a file that `write` wrote.

    Raises:
        ExportError: it is not such a file.
    """

    def __init__(self, path: Path):
        # ONNX Runtime raises classes of its own for a damaged file, and they share no root but Exception.
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            (latents,), (images,) = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:
            raise ExportError(f"{path} is not a generator that catsweep exported: {error}") from error
        if (latents.name, images.name) != (INPUT, OUTPUT):
            raise ExportError(
                f"{path} maps {latents.name!r} to {images.name!r}; expected {INPUT!r} to {OUTPUT!r}. "
                f"Write it with `make export`."
            )
        self.latent_size = int(latents.shape[1])
        self.image_size = int(images.shape[2])

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`."""
        (images,) = self._session.run([OUTPUT], {INPUT: latents.numpy().astype(np.float32, copy=False)})
        return torch.from_numpy(images)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep to ourselves what the exporter says about its own code, which nobody who exports can act on."""
    levels = {logging.getLogger(name): level for name, level in CHATTY.items()}
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            # torch 2.13 copies its own deprecated LeafSpec while it exports.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
