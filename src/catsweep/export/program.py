"""A generator as `generator.pt2`, for those who stay in torch: it runs there without catsweep and without its classes.

`bundle` writes it, reads it back and compares. torch.export.save keeps weights as plain bytes and the graph as JSON;
the one thing that it would pickle, the example inputs, `tracing` has taken out. What else could be pickled (weights of
exotic tensor classes) is refused, so that nothing in a bundle can run code when it is read.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from catsweep.errors import ExportError
from catsweep.export import agreement
from catsweep.export.agreement import CHECKED_BATCHES
from catsweep.export.tracing import quiet_exporters, trace_decode
from catsweep.models.generator import Generator

FILE = "generator.pt2"
ZIP = b"PK\x03\x04"  # what torch.save writes is a zip of a pickle


def write(model: Generator, path: Path, traced: ExportedProgram | None = None) -> None:
    """Write what a model draws from latents as a program for torch.

    Args:
        model: on the CPU, float32.
        path: of the file, ending in .pt2; its folder must exist.
        traced: its `decode`, if that was followed already.

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


def read(path: Path) -> Callable[[Tensor], Tensor]:
    """Open a program that `write` wrote just now.

    Not for those of others: torch.export.load unpickles what it finds pickled, and evaluates expressions of sizes.

    Returns:
        From latents, float32 (N, latent_size), to images, float32 (N, 3, H, W).
    """
    with quiet_exporters():
        module = torch.export.load(path).module()

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            images: Tensor = module(latents)
        return images

    return decode


def largest_difference(model: Generator, path: Path, batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Compare the file with the model it was made from; see `agreement.of_drawing`."""
    return agreement.of_drawing(model, read(path), batches)


def pickled_members(archive: Path | io.BytesIO) -> list[str]:
    """Names of what is a pickle in a zip archive, or a zip of pickles in it.

    Args:
        archive: the zip.
    """
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
