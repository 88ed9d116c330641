"""Images per second of training: the chosen precision (`trainer.precision=auto`, channels_last) against plain fp32.

    python tests/benchmarks/training.py

Prints a table in Markdown. Each number is a Lightning fit of a model from conf/, at 64 x 64 in batches of random uint8
images in memory, of the size that is customary for it, as `train.py` sets it up, without logs, scores and checkpoints.
The two ways take turns, a share of the steps each, so that a disturbance of the machine meets both; the medians are
shown.
"""

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import catsweep.commands  # noqa: F401  # isort: skip  # before torch: how threads wait, as for train.py
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from catsweep.instantiation import instantiate
from catsweep.training.trainer import resolve_precision

SIZE = 64
WARM_UP, IMAGES, ROUNDS = 3, 384, 3  # batches before the clock starts, images on the clock, turns of each way
WIDTHS = {"narrow": 16, "medium": 32, "wide": 64}
DCGAN, PROJECTED = ["model=dcgan"], ["model=dcgan", "discriminator=projected"]
MODELS = [  # name, overrides, width
    ("vae", ["model=vae"], "medium"),
    ("dcgan", DCGAN, "medium"),
    ("dcgan", DCGAN, "wide"),
    ("dcgan, projected", PROJECTED, "medium"),
    ("dcgan, projected, not enlarged", [*PROJECTED, "discriminator.min_side=null"], "medium"),
]


class Batches:
    """The same random images again and again: uint8, (size, 64, 64, 3)."""

    def __init__(self, size: int) -> None:
        self.images = torch.randint(0, 256, (size, SIZE, SIZE, 3), dtype=torch.uint8)

    def __len__(self) -> int:
        return WARM_UP + IMAGES // len(self.images)

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self.images] * len(self))


class Clock(pl.Callback):
    """Seconds of the batches after the warm-up.

    Args:
        last: number of the last batch.
    """

    def __init__(self, last: int) -> None:
        self.last, self.seconds = last, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_idx + 1
        if batch == WARM_UP:
            self.start = time.perf_counter()
        elif batch == self.last:
            self.seconds = time.perf_counter() - self.start


def build(overrides: list[str], width: str, channels_last: bool) -> tuple[pl.LightningModule, int]:
    """The model of conf/, in the memory layout of the way, and the size of its batches."""
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf")):
        cfg = compose("train", [*overrides, f"width={width}", f"data.size={SIZE}"])
    assert cfg.width.channels == WIDTHS[width]
    model: pl.LightningModule = instantiate(cfg.model)
    return (model.to(memory_format=torch.channels_last) if channels_last else model), cfg.data.batch_size


def speed(model: pl.LightningModule, batch_size: int, precision: str) -> float:
    """Images per second over one fit."""
    batches = Batches(batch_size)
    clock = Clock(len(batches))
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, precision=precision, max_epochs=1, limit_val_batches=0, callbacks=[clock],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, batches)
    return IMAGES / clock.seconds


def main() -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)
    chosen = resolve_precision("auto", "cpu")
    ways = [(chosen, True), ("32-true", False)]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; {SIZE}x{SIZE}\n")
    print(f"| training, images/s | auto ({chosen}, channels_last) | plain fp32 | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name, overrides, width in MODELS:
        models = [build(overrides, width, channels_last) for _, channels_last in ways]
        rates: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for rate, (model, batch_size), (precision, _) in zip(rates, models, ways, strict=True):
                rate.append(speed(model, batch_size, precision))
        ours, plain = map(statistics.median, rates)
        size = models[0][1]
        print(
            f"| {name}, width {WIDTHS[width]}, batches of {size} | {ours:,.0f} | {plain:,.0f} | {ours / plain:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
