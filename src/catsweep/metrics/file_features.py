"""Feature extractors from one file: any trained network, as ONNX or as a program of torch.export.

The file may be a stranger's. ONNX is read as data: it may hold no paths to other files, and ONNX Runtime knows only its
own operations. A program of torch.export is code: opening one unpickles what it finds pickled, and evaluates
expressions. So it is opened only if its sha256 was given, by whoever has exported or checked it. TorchScript and
pickled modules are not opened at all.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from catsweep.errors import MetricError
from catsweep.metrics.extractors import Extractor, open_graph
from catsweep.records import in_short
from steady.safe_paths import checked_name, require_regular

Pool = Literal["cls", "mean", "none"]
Run = Callable[[Tensor], Tensor]

TYPES: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
HALVES = {10: torch.float16, 16: torch.bfloat16}  # by onnx.TensorProto.DataType
LARGEST_SIDE = 1024  # pixels; of the networks that judge, the largest takes 518, and a batch must fit into memory
PROBES = 2  # images, so that a batch that is fixed at one shows
TOKENS = "(N, tokens, features)"
SHAPES: dict[str, dict[int, str]] = {
    "cls": {3: TOKENS},
    "mean": {3: TOKENS, 4: "(N, features, H, W)"},
    "none": {2: "(N, features)"},
}
WORDS = {"cls": "class token", "mean": "mean", "none": "all"}


class FileFeatures(Extractor):
    """Features of a network in a file; the base of the two kinds.

    Args:
        file: the network, with one input, float (N, 3, size, size).
        size: pixels; None: what the file says.
        name: what cards call it; None: the file's own, without its ending.
        sha256: of the file; None takes any.
        mean: of its training images, red, green, blue, of values from 0 to 1; it is subtracted.
        std: divided by, likewise.
        interpolation: of the antialiased resize, `bicubic` or `bilinear`.
        pool: what of its output the features are: `cls`, the first token of (N, tokens, features); `mean`, over all
            tokens, or places of (N, features, H, W); `none`, an output (N, features) as it is.
        threads: see `Extractor`.

    Raises:
        MetricError: the file is not there, another one, or no such network.
    """

    eps: float = torch.finfo(torch.float32).eps  # of the coarsest floats that it computes with
    part = "its output"  # that the features are, for the card

    def __init__(
        self,
        file: str | Path,
        size: int | None = None,
        name: str | None = None,
        sha256: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        interpolation: str = "bicubic",
        pool: Pool = "none",
        threads: int | None = None,
    ) -> None:
        if pool not in SHAPES:
            raise MetricError(f"pool must be one of {', '.join(SHAPES)}; got {pool!r}.")
        path = Path(file).expanduser()
        content = _content(path, sha256)
        self.file, self.given_size, self.pool, self.interpolation = path, size, pool, interpolation
        mean, std = [float(value) for value in mean], [float(value) for value in std]
        said = f"{interpolation} antialiased to {{}}, less {mean}, over {std}; {WORDS[pool]} of {self.part}"
        run, side = self.opened(content, threads)
        if not 1 <= side <= LARGEST_SIDE:
            raise MetricError(f"Expected {path} to take images of 1 to {LARGEST_SIDE} pixels; it takes {side}.")
        super().__init__(
            nn.Identity(),
            name=checked_name(name or path.stem, "The name of an extractor", MetricError),
            num_features=1,
            weights_sha256=hashlib.sha256(content).hexdigest(),
            size=side,
            resize=said.format(side),
            backend="torch",
            threads=threads,
        )
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        self._session = run
        self.num_features = self._probed()
        self._session = None  # it owns threads, which do not survive a fork

    def opened(self, content: bytes, threads: int | None) -> tuple[Run, int]:
        """Open a file's content: a function of float32 (N, 3, size, size) on the CPU, and the size."""
        raise NotImplementedError

    def resized(self, images: Tensor) -> Tensor:
        """Resize and normalize: uint8 (N, H, W, 3) to float32 (N, 3, size, size)."""
        levels = super().resized(images).clamp(0, 255) / 255  # bicubic overshoots
        return (levels - self.mean.to(levels.device)) / self.std.to(levels.device)

    def _features(self, pixels: Tensor) -> Tensor:
        if self._session is None:
            self._session, _ = self.opened(_content(self.file, self.weights_sha256), self.threads)
        try:
            output = self._session(pixels.cpu())
        except Exception as error:  # of ONNX Runtime, or of whatever a program of torch calls
            raise MetricError(
                f"{self.file} cannot be run on images of {self.size} pixels: {in_short(error)}"
            ) from error
        return self._pooled(output, len(pixels)).to(pixels.device)

    def _pooled(self, output: Any, n: int) -> Tensor:
        expected = SHAPES[self.pool]
        if not isinstance(output, Tensor) or output.ndim not in expected or len(output) != n or not output.numel():
            came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise MetricError(
                f"With pool={self.pool}, {self.part} of {self.file} must be {' or '.join(expected.values())} for "
                f"N={n} images; got {came}. Choose another pool (cls, mean or none), or another output of the network."
            )
        features = output.float()
        if self.pool == "mean":
            return features.mean(1 if features.ndim == 3 else (2, 3))
        return features[:, 0] if self.pool == "cls" else features

    def _probed(self) -> int:
        """Count the features of noise, bright and dark; refuse a network whose images do not each have their own."""
        noise = torch.randint(256, (PROBES, self.size, self.size, 3), generator=torch.Generator().manual_seed(0))
        noise[1:] //= 4  # statistics over a batch of like images are those of each
        features, alone = self(noise.to(torch.uint8)), self(noise[:1].to(torch.uint8))
        if torch.equal(features[0], features[1]):
            raise MetricError(
                f"{self.file} gives all images the same features. Name another output, or another network."
            )
        # A batch of another size is summed in another order: half of the digits may differ, and no more.
        if alone.shape[1:] != features.shape[1:] or (alone - features[:1]).norm() > self.eps**0.5 * alone.norm():
            raise MetricError(
                f"{self.file} mixes the images of a batch: an image alone has other features than beside another, so "
                "scores would depend on batch_size. Export it for inference (in torch after model.eval()), or name "
                "another network."
            )
        return int(features.shape[1])


class OnnxFeatures(FileFeatures):
    """Features of an ONNX file, in ONNX Runtime on the CPU, wherever the images are.

    `output` names the output, by default the first; for the other arguments see `FileFeatures`.
    """

    def __init__(self, file: str | Path, output: str | None = None, **settings: Any) -> None:
        self.output = output
        self.part = f"the output {output}" if output else "the first output"
        super().__init__(file, **settings)

    def versions(self, device: torch.device) -> dict[str, str]:
        """See `Extractor`."""
        return {"onnxruntime": version("onnxruntime")}

    def opened(self, content: bytes, threads: int | None) -> tuple[Run, int]:
        """See `FileFeatures`."""
        self.eps = _coarsest(HALVES.get(tensor.data_type) for tensor in _tensors(_whole(content, self.file)))
        try:
            session = open_graph(content, threads, quiet=True)
        except Exception as error:  # onnxruntime has a dozen kinds, without a common one of its own
            raise MetricError(f"Expected an ONNX network in {self.file}, but: {in_short(error)}") from error
        takes, gives = session.get_inputs(), [one.name for one in session.get_outputs()]
        if self.output is not None and self.output not in gives:
            raise MetricError(f"{self.file} has no output {self.output!r}; it has {', '.join(gives[:10])}.")
        side = self._side(takes)
        batch, name, dtype = takes[0].shape[0], takes[0].name, TYPES[takes[0].type]
        wanted = [self.output or gives[0]]

        def run(pixels: Tensor) -> Tensor:
            parts = torch.split(pixels, 1) if batch == 1 else (pixels,)
            found = [session.run(wanted, {name: part.numpy().astype(dtype, copy=False)})[0] for part in parts]
            return torch.from_numpy(np.concatenate(found))

        return run, side

    def _side(self, takes: list[Any]) -> int:
        """Find the side of the images that the network takes; refuse what takes no images, any number or one."""
        shape = takes[0].shape if len(takes) == 1 else []
        fixed = [isinstance(size, int) for size in shape]
        if (
            len(shape) != 4
            or (fixed[1] and shape[1] != 3)
            or takes[0].type not in TYPES
            or (fixed[0] and shape[0] != 1)
        ):
            came = ", ".join(f"{one.type} {one.shape}" for one in takes) or "nothing"
            raise MetricError(
                f"Expected {self.file} to take images, float (N, 3, size, size), any number of them or one; it takes "
                f"{came}. Export it again, or name another network."
            )
        side = self.given_size or shape[2]
        if not isinstance(side, int) or any(isinstance(given, int) and given != side for given in shape[2:]):
            raise MetricError(
                f"Expected size to be the side of the network's input in pixels; {self.file} takes {shape}, and size "
                f"is {self.given_size}. Give the one that it was trained with."
            )
        return side


class TorchFeatures(FileFeatures):
    """Features of a program that torch.export.save wrote, on the CPU; `size` and `sha256` must be given."""

    def __init__(self, file: str | Path, size: int | None = None, sha256: str | None = None, **settings: Any) -> None:
        if size is None or sha256 is None:
            raise MetricError(
                f"{file} is a program: opening it can run what its author put there. If it is yours, or checked, say "
                "which it is and how large its images are: judge.extractor.sha256=… judge.extractor.size=… An ONNX "
                "file needs no such trust: metrics/judge=onnx."
            )
        super().__init__(file, size=size, sha256=sha256, **settings)

    def opened(self, content: bytes, threads: int | None) -> tuple[Run, int]:
        """See `FileFeatures`."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = archive.namelist()
            if not any(name.endswith("archive_format") for name in names):
                raise ValueError("it was not written by torch.export.save; TorchScript and pickles are not opened")
            program = torch.export.load(io.BytesIO(content)).module()
            self.eps = _coarsest(tensor.dtype for tensor in program.state_dict().values())
        except Exception as error:  # of zip, JSON and whatever the program is made of
            raise MetricError(f"Expected a program of torch.export in {self.file}, but: {in_short(error)}") from error
        return program, cast(int, self.given_size)


def _content(path: Path, sha256: str | None) -> bytes:
    """Read a file, if it is the one that was named."""
    try:
        require_regular(path)
        content = path.read_bytes()
    except (OSError, MetricError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise MetricError(f"Expected a network in {path}, but: {reason}.") from error
    if sha256 is not None and (came := hashlib.sha256(content).hexdigest()) != sha256.lower():
        raise MetricError(f"Expected {path} to have the sha256 {sha256[:12]}…, but it has {came[:12]}…: another file.")
    return content


def _coarsest(kinds: Iterable[torch.dtype | None]) -> float:
    """The largest epsilon of what a network's weights are kept in, and of float32."""
    return max(torch.finfo(kind).eps for kind in (torch.float32, *kinds) if kind and kind.is_floating_point)


def _whole(content: bytes, file: Path) -> Any:
    """Parse an ONNX file; refuse what is none, and what would read other files."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
        elsewhere = onnx.TensorProto.EXTERNAL
        outside = next(
            (one.name for one in _tensors(model) if one.external_data or one.data_location == elsewhere), None
        )
    except Exception as error:  # of protobuf, whose classes differ by its implementation
        raise MetricError(f"Expected an ONNX network in {file}, but: {in_short(error)}") from error
    if outside is not None:
        raise MetricError(
            f"{file} keeps {outside[:60]!r} in another file, and no other file is opened. Put all of it into one: "
            "onnx.save(onnx.load(FILE), NEW)."
        )
    return model


def _tensors(model: Any) -> Iterator[Any]:
    """Find all tensors of a model, wherever its graphs, functions and attributes have them."""
    import onnx

    waiting = [model]
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.TensorProto):
            yield part
            continue
        for kind, value in part.ListFields():
            if kind.message_type is not None:
                waiting += [value] if hasattr(value, "ListFields") else value  # else a list of them
