"""Images per second: whole batches out of a ready set, against a DataLoader over the same images as JPEG files.

    python tests/benchmarks/loader.py

Prints a table in Markdown. Both hand out shuffled batches of 64 images of 64 x 64, half of them mirrored; ours as
uint8, the DataLoader's (Pillow decodes, resizes and mirrors, then ToTensor by hand) as floats, as such loaders do.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from catsweep.data.datamodule import TrainBatches
from catsweep.data.sources import DemoCats

IMAGES, SIZE, STORED, BATCH = 1024, 64, 360, 64


class JpegFiles(Dataset[Tensor]):
    """The usual way: a file per image, opened each time it is wanted."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self.files[place]) as file:
            image = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


def speed(loader: Iterable[Tensor], begin_epoch: Callable[[int], None], seconds: float) -> float:
    """Images per second, after one epoch to warm up."""
    shown, epoch = 0, 0
    for _ in loader:
        pass
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        epoch += 1
        begin_epoch(epoch)
        shown += sum(len(batch) for batch in loader)
    return shown / (time.perf_counter() - start)


def write_jpegs(images: NDArray[np.uint8], folder: Path, side: int) -> list[Path]:
    """Store images as JPEG files of `side` pixels."""
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number:05d}.jpg")
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(np.asarray(large, dtype=np.uint8)).save(files[-1], quality=90)
    return files


def main(seconds: float = 3.0) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    images = np.stack([item.image for item in DemoCats(IMAGES).items(SIZE) if item.image is not None])
    ours = TrainBatches(images, np.arange(IMAGES), BATCH)
    rows = [("catsweep, whole batches (uint8)", speed(ours, ours.set_epoch, seconds))]
    with tempfile.TemporaryDirectory() as folder:
        for side in (STORED, SIZE):
            (Path(folder) / str(side)).mkdir()
            files = write_jpegs(images, Path(folder, str(side)), side)
            for workers in (2, 0):
                options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
                usual = DataLoader(JpegFiles(files), BATCH, shuffle=True, drop_last=True, **options)
                name = f"DataLoader, JPEG files of {side} x {side}, num_workers={workers}"
                rows.append((name, speed(usual, lambda epoch: None, seconds)))
    print("| loader (64 x 64, batch 64) | images/s | catsweep is faster by |")
    print("| --- | ---: | ---: |")
    for name, rate in rows:
        print(f"| {name} | {rate:,.0f} | {rows[0][1] / rate:,.0f} |")


if __name__ == "__main__":
    main()
