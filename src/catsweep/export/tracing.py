"""What a model does, as a graph of tensor operations: the first step on its way into a file of a bundle.

torch.export follows `decode` (or `reconstruct`) once; `onnx` and `program` write what it saw. What it leaves of this
machine, and of what the model needs only to be trained, is taken out here, so that neither file has it.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from catsweep.errors import ExportError
from catsweep.models.generator import Generator, Reconstructor, evaluating

# What these log below the level is about nodes they removed, and operations of torchvision that they do not need.
CHATTY = {
    "torch.onnx._internal.exporter._registration": logging.ERROR,
    "onnxscript": logging.WARNING,
    "onnx_ir": logging.WARNING,
}


class Decode(nn.Module):
    """`model.decode` as the `forward` that an exporter follows."""

    def __init__(self, model: Generator):
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`."""
        return self.model.decode(latents)


class Reconstruct(nn.Module):
    """`model.reconstruct`, likewise."""

    def __init__(self, model: Reconstructor):
        super().__init__()
        self.model = model

    def forward(self, photos: Tensor) -> Tensor:
        """See `Reconstructor.reconstruct`."""
        return self.model.reconstruct(photos)


def trace_decode(model: Generator) -> ExportedProgram:
    """Follow what a model draws from latents.

    Args:
        model: on the CPU, float32.

    Returns:
        A program from `latents`, float32 (N, latent_size), to images (N, 3, H, W), for any N.

    Raises:
        ExportError: it cannot be followed.
    """
    return _trace(Decode(model), torch.zeros(2, model.latent_size), f"{type(model).__name__}.decode")


def trace_reconstruct(model: Reconstructor) -> ExportedProgram:
    """Follow how a model draws photos again: the same from `photos`, float32 (N, 3, H, W)."""
    example = torch.zeros(2, 3, model.image_size, model.image_size)
    return _trace(Reconstruct(model), example, f"{type(model).__name__}.reconstruct")


def _trace(module: nn.Module, example: Tensor, what: str) -> ExportedProgram:
    # The example has two rows: torch.export takes a dimension of size 1 for a constant.
    try:
        with evaluating(module), quiet_exporters():
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch.export raises many classes, and those of the model's own code beside them
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{what} cannot be exported: {reason} "
            f"It may hold tensor operations only, no step that depends on a value, and must take any batch size."
        ) from error
    _forget_origin(program)
    _drop_unused(program)
    return program


def _forget_origin(program: ExportedProgram) -> None:
    """Take out the example, which would be pickled, and the names of source files on this machine."""
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)


def _drop_unused(program: ExportedProgram) -> None:
    """Take out the weights that nothing in the graph reads: of a VAE, for example, the encoder."""
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
    """Keep to ourselves what torch's exporters say about their own code, which nobody who exports can act on."""
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
