"""Images per second of training: the chosen precision (`trainer.precision=auto`, channels_last) against plain fp32.

    python tests/benchmarks/training.py

Prints a table in Markdown. Each number is a Lightning fit of a model from conf/, at 64 x 64 in batches of 64 random
uint8 images in memory, as `train.py` sets it up, without logs, scores and checkpoints. The two ways take turns, a
share of the steps each, so that a disturbance of the machine meets both; the medians are shown.
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
from catsweep.training import resolve_precision

SIZE, BATCH = 64, 64
WARM_UP, STEPS, ROUNDS = 3, 6, 3  # batches before the clock starts, batches on the clock, turns of each way
MODELS = [("vae", 32), ("dcgan", 32), ("dcgan", 64)]
WIDTHS = {32: "medium", 64: "wide"}


class Batches:
    """The same random images again and again: uint8, (64, 64, 64, 3)."""

    def __init__(self) -> None:
        self.images = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8)

    def __len__(self) -> int:
        return WARM_UP + STEPS

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self.images] * len(self))


class Clock(pl.Callback):
    """Seconds of the batches after the warm-up."""

    seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_idx + 1
        if batch == WARM_UP:
            self.start = time.perf_counter()
        elif batch == WARM_UP + STEPS:
            self.seconds = time.perf_counter() - self.start


def build(kind: str, width: int, channels_last: bool) -> pl.LightningModule:
    """The model of conf/, in the memory layout of the way."""
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf")):
        cfg = compose("train", [f"model={kind}", f"width={WIDTHS[width]}", f"data.size={SIZE}"])
    assert cfg.width.channels == width
    model: pl.LightningModule = instantiate(cfg.model)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def speed(model: pl.LightningModule, precision: str) -> float:
    """Images per second over one fit."""
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, precision=precision, max_epochs=1, limit_val_batches=0, callbacks=[clock],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, Batches())
    return STEPS * BATCH / clock.seconds


def main() -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)
    chosen = resolve_precision("auto", "cpu")
    ways = [(chosen, True), ("32-true", False)]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; {SIZE}x{SIZE}, batches of {BATCH}\n")
    print(f"| training, images/s | auto ({chosen}, channels_last) | plain fp32 | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for kind, width in MODELS:
        models = [build(kind, width, channels_last) for _, channels_last in ways]
        rates: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for rate, model, (precision, _) in zip(rates, models, ways, strict=True):
                rate.append(speed(model, precision))
        ours, plain = map(statistics.median, rates)
        print(f"| {kind}, width {width} | {ours:,.0f} | {plain:,.0f} | {ours / plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
