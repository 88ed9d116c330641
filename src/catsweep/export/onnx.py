"""A generator as ONNX files: written, checked against torch, and read back.

`bundle` writes `generator.onnx`, and `reconstructor.onnx` of a model that can reconstruct, and refuses them unless
they agree with torch; `generate`, `evaluate` and the demo draw from a bundle through `OnnxGenerator` and
`OnnxReconstructor`. The files need nothing of catsweep. `generator.onnx`: input `latents` float32 (N, latent_size),
standard normal; output `images` float32 (N, 3, H, W) in [0, 1]; any N. `reconstructor.onnx`: input `photos`, of the
shape and range of the output, `images`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.export import ExportedProgram

from catsweep.errors import ExportError
from catsweep.export import agreement
from catsweep.export.agreement import CHECKED_BATCHES
from catsweep.export.tracing import quiet_exporters, trace_decode, trace_reconstruct
from catsweep.models.generator import Generator, Reconstructor

FILE, RECONSTRUCTOR = "generator.onnx", "reconstructor.onnx"
FATAL = 4  # ONNX Runtime writes names of nodes past `steady.printing`; errors are raised as well
INPUT, OUTPUT, PHOTOS = "latents", "images", "photos"


def write(model: Generator, path: Path, traced: ExportedProgram | None = None) -> None:
    """Write what a model draws from latents as one self-contained file.

    Args:
        model: on the CPU, float32.
        path: of the file; its folder must exist.
        traced: its `decode`, if that was followed already.

    Raises:
        ExportError: the exporter cannot follow the model.
    """
    _write(traced or trace_decode(model), INPUT, path, f"{type(model).__name__}.decode")


def write_reconstructor(model: Reconstructor, path: Path) -> None:
    """Write how a model draws photos again as one self-contained file; arguments and errors as for `write`."""
    _write(trace_reconstruct(model), PHOTOS, path, f"{type(model).__name__}.reconstruct")


def _write(program: ExportedProgram, name: str, path: Path, what: str) -> None:
    try:
        with quiet_exporters(), torch.no_grad():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[name],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(f"{what} cannot be exported to ONNX: {reason} Take operations that ONNX has.") from error
    assert converted is not None  # it is None for the exporter that `dynamo=True` replaces
    converted.save(path, external_data=False)


def largest_difference(model: Generator, path: Path, batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Compare a generator's ONNX file with the model it was made from; see `agreement.of_drawing`."""
    return agreement.of_drawing(model, OnnxGenerator(path).decode, batches)


def largest_reconstruction_difference(
    model: Reconstructor, path: Path, batches: Sequence[int] = CHECKED_BATCHES
) -> float:
    """The same for a reconstructor's file; see `agreement.of_reconstructing`."""
    return agreement.of_reconstructing(model, _Session(path, PHOTOS).run, batches)


class _Session:
    """An ONNX file of one input and the output `images`, in ONNX Runtime on the CPU.

    Raises:
        ExportError: it is not such a file.
    """

    def __init__(self, path: Path, name: str):
        # ONNX Runtime raises classes of its own for a damaged file, and they share no root but Exception.
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = FATAL
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            (given,), (images,) = self.session.get_inputs(), self.session.get_outputs()
        except Exception as error:
            raise ExportError(f"{path} is not a file that catsweep exported: {error}") from error
        if (given.name, images.name) != (name, OUTPUT):
            raise ExportError(
                f"{path} maps {given.name!r} to {images.name!r}; expected {name!r} to {OUTPUT!r}. "
                f"Write it with `make export`."
            )
        self.path = path
        self.name, self.input_shape, self.output_shape = name, given.shape, images.shape

    def run(self, given: Tensor) -> Tensor:
        try:
            (images,) = self.session.run([OUTPUT], {self.name: given.numpy().astype(np.float32, copy=False)})
        except Exception as error:
            raise ExportError(f"{self.path} cannot draw: {error}") from error
        return torch.from_numpy(images)


class OnnxGenerator:
    """A `catsweep.models.generator.Generator` that draws from an ONNX file, in ONNX Runtime on the CPU.

    Args:
        path: of a file that `write` wrote.

    Raises:
        ExportError: it is not such a file.
    """

    def __init__(self, path: Path):
        self._generator = _Session(path, INPUT)
        sizes = self._generator.input_shape[1:2] + self._generator.output_shape[2:3]
        if [type(size) for size in sizes] != [int, int]:
            raise ExportError(f"{path} does not tell the sizes of its latents and images. Write it with `make export`.")
        self.latent_size, self.image_size = sizes

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`."""
        return self._generator.run(latents)


class OnnxReconstructor(OnnxGenerator):
    """A `catsweep.models.generator.Reconstructor` from a pair of ONNX files.

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
