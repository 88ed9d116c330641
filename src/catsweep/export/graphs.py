"""Generators as files that need no catsweep: ONNX and `torch.export` programs, traced, written, compared, read back.

torch.export follows `decode` (or `reconstruct`) once; both formats are written from what it saw, without what names
this machine and what the model needs only to be trained.

- `generator.onnx`: input `latents` float32 (N, latent_size), standard normal; output `images` float32 (N, 3, H, W) in
  [0, 1]; any N. `reconstructor.onnx`: input `photos`, of the shape and range of the output, `images`.
- `generator.pt2`: the same as `generator.onnx` for torch. torch.export.save keeps weights as plain bytes and the graph
  as JSON; the one thing that it would pickle, the example inputs, is taken out, and what else could be pickled (weights
  of exotic tensor classes) is refused, so that nothing in a bundle can run code when it is read.
"""

import io
import logging
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from catsweep.errors import ExportError
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating
from catsweep.runs import Bundle

GENERATOR, RECONSTRUCTOR, PROGRAM = Bundle.GENERATOR, Bundle.RECONSTRUCTOR, Bundle.PROGRAM
# Batch sizes of the check: 1 is the one an exporter is tempted to treat as a constant, 7 is none of those it saw.
CHECKED_BATCHES = (1, 7)
CHECK_SEED = 20
FATAL = 4  # ONNX Runtime writes names of nodes past `steady.printing`; errors are raised as well
INPUT, OUTPUT, PHOTOS = "latents", "images", "photos"
ZIP = b"PK\x03\x04"  # what torch.save writes is a zip of a pickle
# What these log below the level is about nodes they removed, and operations of torchvision that they do not need.
CHATTY = {
    "torch.onnx._internal.exporter._registration": logging.ERROR,
    "onnxscript": logging.WARNING,
    "onnx_ir": logging.WARNING,
}


class _Forward(nn.Module):
    """A method of a model, `decode` or `reconstruct`, as the `forward` that an exporter follows."""

    def __init__(self, model: Generator, method: str):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, given: Tensor) -> Tensor:
        result: Tensor = getattr(self.model, self.method)(given)
        return result

    def run(self, given: Tensor) -> Tensor:
        with evaluating(self):
            result: Tensor = self(given)
        return result

    def __str__(self) -> str:
        return f"{type(self.model).__name__}.{self.method}"


def trace_decode(model: Generator) -> ExportedProgram:
    """Trace how a model (on the CPU, float32) draws: a program from latents (N, latent_size) to images (N, 3, H, W).

    Raises:
        ExportError: torch.export cannot follow it.
    """
    return _trace(_Forward(model, "decode"), torch.zeros(2, model.latent_size))


def trace_reconstruct(model: Reconstructor) -> ExportedProgram:
    """Trace how a model reconstructs photos, float32 (N, 3, H, W); errors as for `trace_decode`."""
    return _trace(_Forward(model, "reconstruct"), torch.zeros(2, 3, model.image_size, model.image_size))


def _trace(module: _Forward, example: Tensor) -> ExportedProgram:
    # The example has two rows: torch.export takes a dimension of size 1 for a constant.
    try:
        with evaluating(module), quiet_exporters():
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch.export raises many classes, and those of the model's own code beside them
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{module} cannot be exported: {reason} "
            f"It may hold tensor operations only, no step that depends on a value, and must take any batch size."
        ) from error
    # Neither the example, which would be pickled, nor names of source files on this machine.
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    _drop_unused(program)
    return program


def _drop_unused(program: ExportedProgram) -> None:
    """Remove the weights that nothing in the graph reads: of a VAE, for example, the encoder."""
    unused = {node.name: node for node in program.graph.nodes if node.op == "placeholder" and not node.users}
    inputs = program.graph_signature.input_specs
    for spec in [spec for spec in inputs if spec.target is not None and spec.arg.name in unused]:
        program.graph.erase_node(unused[spec.arg.name])
        inputs.remove(spec)
        program.state_dict.pop(spec.target, None)
        program.constants.pop(spec.target, None)  # a buffer that is not part of the state
    program.graph_module.recompile()


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence what torch's exporters say about their own code, which nobody who exports can act on."""
    before = {name: logging.getLogger(name).level for name in CHATTY}
    for name, level in CHATTY.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            # torch 2.13 copies its own deprecated LeafSpec while it exports.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def difference(model: Generator, file: Path, batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Compare what an ONNX file or a program of a bundle draws with its model, as `drawing_difference` does."""
    if file.name == RECONSTRUCTOR:
        assert isinstance(model, Reconstructor)
        return reconstructing_difference(model, _OnnxFile(file, PHOTOS).run, batches)
    draw = read_program(file) if file.suffix == ".pt2" else OnnxGenerator(file).decode
    return drawing_difference(model, draw, batches)


def drawing_difference(
    model: Generator, other: Callable[[Tensor], Tensor], batches: Sequence[int] = CHECKED_BATCHES
) -> float:
    """Compare what another function draws from latents with what a model (on the CPU, float32) draws.

    Returns:
        The largest absolute difference of any value of any image in batches of these sizes, images being in [0, 1];
        infinite if a shape differs or a value is not a number.
    """
    return _largest(_Forward(model, "decode"), other, [_latents(model, size) for size in batches])


def reconstructing_difference(
    model: Reconstructor, other: Callable[[Tensor], Tensor], batches: Sequence[int] = CHECKED_BATCHES
) -> float:
    """Compare reconstructions of what the model draws, with noise, as `drawing_difference` compares drawn images."""
    photos = []
    for size in batches:
        generator = torch.Generator().manual_seed(CHECK_SEED + size)
        drawn = _Forward(model, "decode").run(_latents(model, size))
        photos.append((drawn + 0.1 * torch.randn(drawn.shape, generator=generator)).clamp(0, 1))
    return _largest(_Forward(model, "reconstruct"), other, photos)


def _latents(model: Generator, size: int) -> Tensor:
    return draw_latents(size, model.latent_size, CHECK_SEED + size)


def _largest(module: _Forward, other: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> float:
    largest = 0.0
    for given in inputs:
        expected, drawn = module.run(given), other(given)
        if drawn.shape != expected.shape:
            return float("inf")
        largest = max(largest, (drawn - expected).abs().nan_to_num(nan=float("inf")).max().item())
    return largest


def write_onnx(model: Generator, path: Path, traced: ExportedProgram | None = None) -> None:
    """Write what a model (on the CPU, float32) draws as one self-contained file; `traced` is its `decode`, if at hand.

    Raises:
        ExportError: the exporter cannot follow the model.
    """
    _write(traced or trace_decode(model), INPUT, path, f"{type(model).__name__}.decode")


def write_reconstructor(model: Reconstructor, path: Path) -> None:
    """Write how a model draws photos again as one self-contained file; arguments and errors as for `write_onnx`."""
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


class _OnnxFile:
    """An ONNX file of one input and the output `images`, in ONNX Runtime on the CPU."""

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
        self.path, self.name, self.input_shape, self.output_shape = path, name, given.shape, images.shape

    def run(self, given: Tensor) -> Tensor:
        try:
            (images,) = self.session.run([OUTPUT], {self.name: given.numpy().astype(np.float32, copy=False)})
        except Exception as error:
            raise ExportError(f"{self.path} cannot draw: {error}") from error
        return torch.from_numpy(images)


class OnnxGenerator:
    """A `catsweep.models.generator.Generator` of a file of `write_onnx`; an `ExportError` if it is another file."""

    def __init__(self, path: Path):
        self._generator = _OnnxFile(path, INPUT)
        sizes = self._generator.input_shape[1:2] + self._generator.output_shape[2:3]
        if [type(size) for size in sizes] != [int, int]:
            raise ExportError(f"{path} does not tell the sizes of its latents and images. Write it with `make export`.")
        self.latent_size, self.image_size = sizes

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`."""
        return self._generator.run(latents)


class OnnxReconstructor(OnnxGenerator):
    """A `catsweep.models.generator.Reconstructor` from such files of both kinds; errors alike."""

    def __init__(self, path: Path, reconstructor: Path):
        super().__init__(path)
        self._reconstructor = _OnnxFile(reconstructor, PHOTOS)

    def reconstruct(self, images: Tensor) -> Tensor:
        """See `Reconstructor.reconstruct`."""
        return self._reconstructor.run(images)


def load_bundle(folder: Path) -> OnnxGenerator:
    """Open a bundle, as a reconstructor if it has one; an `ExportError` if it is none, or damaged."""
    if not (folder / GENERATOR).is_file():
        raise ExportError(f"Expected an exported bundle in {folder}, with {GENERATOR}. Write one with `make export`.")
    pair = folder / RECONSTRUCTOR
    return OnnxReconstructor(folder / GENERATOR, pair) if pair.is_file() else OnnxGenerator(folder / GENERATOR)


def write_program(model: Generator, path: Path, traced: ExportedProgram | None = None) -> None:
    """Write what a model draws from latents as a program for torch, in a file of ending .pt2; see `write_onnx`.

    Raises:
        ExportError: torch.export cannot follow the model, or a part of it could only be kept as a pickle.
    """
    buffer = io.BytesIO()
    with quiet_exporters():
        torch.export.save(traced or trace_decode(model), buffer)
    if found := pickled_members(buffer):
        raise ExportError(
            f"{type(model).__name__}.decode cannot be exported as {path.name} without pickles, which run code when "
            f"they are read: {', '.join(found)}. Keep its weights as ordinary tensors."
        )
    path.write_bytes(buffer.getvalue())


def read_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Open a program that `write_program` wrote just now, a function from latents to images.

    Not for those of others: torch.export.load unpickles what it finds pickled, and evaluates expressions of sizes.
    """
    with quiet_exporters():
        module = torch.export.load(path).module()

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            images: Tensor = module(latents)
        return images

    return decode


def pickled_members(archive: Path | io.BytesIO) -> list[str]:
    """List the members of a zip archive that are a pickle, or a zip of pickles."""
    with zipfile.ZipFile(archive) as opened:
        return [name for name in opened.namelist() if is_pickled(opened.read(name))]


def is_pickled(content: bytes) -> bool:
    """Whether bytes are a pickle from their first to their last, or a zip as torch.save writes."""
    if content[:4] == ZIP:
        return True
    try:
        *_, (last, _, position) = pickletools.genops(content)
    except (ValueError, IndexError):  # not opcodes to the end; numbers that begin like a pickle do not end like one
        return False
    return last.name == "STOP" and position == len(content) - 1
