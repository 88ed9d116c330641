"""An exported bundle, found and opened: for generate, evaluate, the demo and the report.

Everything is drawn with ONNX Runtime, so what is seen and scored is what the bundle's other users get.
"""

from pathlib import Path

from catsweep.errors import ExportError
from catsweep.export.onnx import FILE, RECONSTRUCTOR, OnnxGenerator, OnnxReconstructor


def is_bundle(folder: Path) -> bool:
    """Whether a folder is an exported bundle, and not that of a run; also one that lost a file."""
    return any((folder / name).is_file() for name in (FILE, "model.safetensors"))


def latest_bundle(exports: Path) -> Path:
    """The bundle that was written last.

    Args:
        exports: the folder of all bundles, `outputs/exports`.

    Raises:
        ExportError: there is none.
    """
    found = {path.parent: path.stat().st_mtime for path in exports.glob(f"*/{FILE}") if path.parent.name[0] != "."}
    if not found:
        raise ExportError(f"No bundle in {exports}/. Write one with `make best-model export`, or name one: bundle=….")
    return max(found, key=lambda folder: found[folder])


def load_bundle(folder: Path) -> OnnxGenerator:
    """Open a bundle, whose files `catsweep.export.digests` has looked at.

    Args:
        folder: the bundle.

    Returns:
        The generator; an `OnnxReconstructor` if the bundle can reconstruct.

    Raises:
        ExportError: the folder is no bundle, or a damaged one.
    """
    if not (folder / FILE).is_file():
        raise ExportError(f"Expected an exported bundle in {folder}, with {FILE}. Write one with `make export`.")
    pair = folder / RECONSTRUCTOR
    return OnnxReconstructor(folder / FILE, pair) if pair.is_file() else OnnxGenerator(folder / FILE)
