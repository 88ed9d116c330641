"""A generator as ONNX files: written, checked against torch, and read back.

`bundle` writes `generator.onnx`, and `reconstructor.onnx` of a model that can reconstruct, and refuses them unless
they agree with torch; `generate`, `evaluate` and the demo draw from a bundle through `OnnxGenerator` and
`OnnxReconstructor`. The files need nothing of catsweep. `generator.onnx`: input `latents` float32 (N, latent_size),
standard normal; output `images` float32 (N, 3, H, W) in [0, 1]; any N. `reconstructor.onnx`: input `photos`, of the
shape and range of the output, `images`.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from catsweep.errors import ExportError
from catsweep.models.latents import draw_latents
from catsweep.models.protocol import Generator, Reconstructor, evaluating

FILE, RECONSTRUCTOR = "generator.onnx", "reconstructor.onnx"
INPUT, OUTPUT, PHOTOS = "latents", "images", "photos"
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


class _Reconstruct(nn.Module):
    """`model.reconstruct`, likewise."""

    def __init__(self, model: Reconstructor):
        super().__init__()
        self.model = model

    def forward(self, photos: Tensor) -> Tensor:
        return self.model.reconstruct(photos)


def write(model: Generator, path: Path) -> None:
    """Write what a model draws from latents as one self-contained file.

    Args:
        model: on the CPU, float32.
        path: of the file; its folder must exist.

    Raises:
        ExportError: the exporter cannot follow the model.
    """
    _write(_Decode(model), torch.zeros(2, model.latent_size), INPUT, path, f"{type(model).__name__}.decode")


def write_reconstructor(model: Reconstructor, path: Path) -> None:
    """Write how a model draws photos again as one self-contained file; arguments and errors as for `write`."""
    example = torch.zeros(2, 3, model.image_size, model.image_size)
    _write(_Reconstruct(model), example, PHOTOS, path, f"{type(model).__name__}.reconstruct")


def _write(module: nn.Module, example: Tensor, name: str, path: Path, what: str) -> None:
    # The example has two rows: torch.export takes a dimension of size 1 for a constant.
    try:
        with evaluating(module), _quiet_exporter():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[name],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(
            f"{what} cannot be exported to ONNX: {reason} "
            f"It may hold tensor operations only, no step that depends on a value, and must take any batch size."
        ) from error
    assert program is not None  # it is None for the exporter that `dynamo=True` replaces
    program.save(path, external_data=False)


def largest_difference(model: Generator, path: Path, batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Compare a generator's ONNX file with the model it was made from.

    Args:
        model: on the CPU, float32.
        path: of the ONNX file.
        batches: sizes of the batches to compare.

    Returns:
        The largest absolute difference of any value of any image, images being in [0, 1]; infinite if a shape
        differs or a value is not a number.
    """
    latents = [draw_latents(size, model.latent_size, CHECK_SEED + size) for size in batches]
    return _largest_difference(_Decode(model), OnnxGenerator(path).decode, latents)


def largest_reconstruction_difference(
    model: Reconstructor, path: Path, batches: Sequence[int] = CHECKED_BATCHES
) -> float:
    """The same for a reconstructor's file, on what the model draws, lightened and darkened by noise."""
    read, photos = _Session(path, PHOTOS), []
    for size in batches:
        generator = torch.Generator().manual_seed(CHECK_SEED + size)
        drawn = _run(_Decode(model), draw_latents(size, model.latent_size, CHECK_SEED + size))
        photos.append((drawn + 0.1 * torch.randn(drawn.shape, generator=generator)).clamp(0, 1))
    return _largest_difference(_Reconstruct(model), read.run, photos)


def _largest_difference(module: nn.Module, other: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> float:
    largest = 0.0
    for given in inputs:
        expected, drawn = _run(module, given), other(given)
        if drawn.shape != expected.shape:
            return float("inf")
        largest = max(largest, (drawn - expected).abs().nan_to_num(nan=float("inf")).max().item())
    return largest


def _run(module: nn.Module, given: Tensor) -> Tensor:
    with evaluating(module):
        result: Tensor = module(given)
    return result


class _Session:
    """An ONNX file of one input and the output `images`, in ONNX Runtime on the CPU.

    Raises:
        ExportError: it is not such a file.
    """

    def __init__(self, path: Path, name: str):
        # ONNX Runtime raises classes of its own for a damaged file, and they share no root but Exception.
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            (given,), (images,) = self.session.get_inputs(), self.session.get_outputs()
        except Exception as error:
            raise ExportError(f"{path} is not a file that catsweep exported: {error}") from error
        if (given.name, images.name) != (name, OUTPUT):
            raise ExportError(
                f"{path} maps {given.name!r} to {images.name!r}; expected {name!r} to {OUTPUT!r}. "
                f"Write it with `make export`."
            )
        self.name, self.input_shape, self.output_shape = name, given.shape, images.shape

    def run(self, given: Tensor) -> Tensor:
        (images,) = self.session.run([OUTPUT], {self.name: given.numpy().astype(np.float32, copy=False)})
        return torch.from_numpy(images)


class OnnxGenerator:
    """A `catsweep.models.protocol.Generator` that draws from an ONNX file, in ONNX Runtime on the CPU.

    Args:
        path: of a file that `write` wrote.

    Raises:
        ExportError: it is not such a file.
    """

    def __init__(self, path: Path):
        self._generator = _Session(path, INPUT)
        self.latent_size = int(self._generator.input_shape[1])
        self.image_size = int(self._generator.output_shape[2])

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`."""
        return self._generator.run(latents)


class OnnxReconstructor(OnnxGenerator):
    """A `catsweep.models.protocol.Reconstructor` from a pair of ONNX files.

    Args:
        path: of a file that `write` wrote.
        reconstructor: of one that `write_reconstructor` wrote.

    Raises:
        ExportError: they are not such files.
    """

    def __init__(self, path: Path, reconstructor: Path):
        super().__init__(path)
        self._reconstructor = _Session(reconstructor, PHOTOS)

    def reconstruct(self, images: Tensor) -> Tensor:
        """See `Reconstructor.reconstruct`."""
        return self._reconstructor.run(images)


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
