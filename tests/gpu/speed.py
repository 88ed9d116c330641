"""Images per second of our training step beside a bare torch loop: the same networks, losses, batch and precision.

Ours is a Lightning fit as `train.py` sets it up, with its data module, logged values and callbacks of the step. The
bare loop takes its batches from the same loader, shuffled and mirrored; it logs nothing, has no schedule, no time to
end at and nothing to resume. A third way, told and not judged, trains on one batch that lies on the GPU again and
again. They take turns, a block of steps each, and each block ends when the GPU has finished; the medians count.
"""

import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.utils import parametrize

from catsweep.images import to_float
from catsweep.instantiation import instantiate
from catsweep.models.optimization import decayed_groups
from catsweep.training.callbacks import EvaluationLine, FiniteLoss, Progress, RandomState
from catsweep.training.trainer import Untimed, resolve_precision, without_idle_hooks
from catsweep.usage import Usage

ROOT = Path(__file__).resolve().parents[2]

Step = Callable[[Tensor], None]


@dataclass(frozen=True)
class Blocks:
    """How long is measured.

    Attributes:
        warm_up: steps of each block before the clock starts.
        steps: on the clock.
        rounds: blocks of each way.
    """

    warm_up: int = 30
    steps: int = 120
    rounds: int = 3


def bare_vae(model: Any) -> Step:
    """Training steps of a VAE, by hand."""
    optimizer = model.optimizer(decayed_groups(model))

    def step(batch: Tensor) -> None:
        parts = model.losses(to_float(batch), torch.randn(len(batch), model.latent_size, device=batch.device))
        loss = parts["reconstruction"] + model.beta * parts["kl_charged"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bare_dcgan(model: Any) -> Step:
    """Training steps of a DCGAN, by hand: the discriminator's, the generator's, the average's."""
    generator, discriminator, loss = model.generator, model.discriminator, model.adversarial_loss
    ours = model.optimizer(decayed_groups(generator), lr=model.generator_lr)
    theirs = model.optimizer(decayed_groups(discriminator), lr=model.discriminator_lr)
    averaged = [value for value in model.averaged.module.state_dict().values() if value.is_floating_point()]
    current = [value for value in generator.state_dict().values() if value.is_floating_point()]

    def see(images: Tensor) -> list[Tensor]:
        seen: list[Tensor] = discriminator.see(model.augment(images))
        return seen

    def step(batch: Tensor) -> None:
        real = see(to_float(batch))
        drawn = see(generator(torch.randn(len(batch), model.latent_size, device=batch.device)).float())
        theirs.zero_grad()
        with parametrize.cached():
            logits = [discriminator.judge([part.detach() for part in seen]).float() for seen in (real, drawn)]
            loss.discriminator(*logits).backward()
        theirs.step()
        discriminator.requires_grad_(False)
        ours.zero_grad()
        loss.generator(None, discriminator.judge(drawn).float()).backward()
        ours.step()
        discriminator.requires_grad_(True)
        torch._foreach_lerp_(averaged, current, 0.005)

    return step


# A further configuration is one more line: its overrides, and its training step by hand.
CONFIGURATIONS: dict[str, tuple[list[str], Callable[[Any], Step]]] = {
    "vae": (["model=vae"], bare_vae),
    "dcgan": (["model=dcgan"], bare_dcgan),
    "projected": (["model=dcgan", "discriminator=projected"], bare_dcgan),
}


def synchronize() -> None:
    """Wait until the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Rates:
    """Images per second.

    Attributes:
        ours: of the Lightning fit.
        bare: of the bare loop, which takes its batches from the same loader.
        fixed: of the bare loop when it trains on one batch again and again, and so draws none.
    """

    ours: float
    bare: float
    fixed: float


class Clock(pl.Callback):
    """Seconds of one block of steps; then the fit ends.

    Args:
        blocks: how long.
        log_waits: also count where the host waits for the GPU, in the steps after the block.
    """

    def __init__(self, blocks: Blocks, log_waits: bool = False) -> None:
        self.blocks, self.log_waits = blocks, log_waits
        self.done, self.seconds, self.began = 0, 0.0, 0.0
        self.waits: Counter[str] = Counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.done += 1
        last = self.blocks.warm_up + self.blocks.steps
        if self.done == self.blocks.warm_up:
            synchronize()
            self.began = time.perf_counter()
        elif self.done == last:
            synchronize()
            self.seconds = time.perf_counter() - self.began
            trainer.should_stop = not self.log_waits
            if self.log_waits and torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("warn")
        elif self.done == last + self.blocks.warm_up:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
            trainer.should_stop = True


def composed(words: list[str]) -> DictConfig:
    """The configuration of `train.py` with these words."""
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", words)


class Pair:
    """One configuration, trained both ways.

    Args:
        name: of `CONFIGURATIONS`.
        words: overrides besides its own.
        accelerator: cpu or gpu.
    """

    def __init__(self, name: str, words: list[str], accelerator: str) -> None:
        overrides, bare = CONFIGURATIONS[name]
        self.cfg = composed([*overrides, *words])
        self.accelerator = accelerator
        self.device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        self.precision: Any = resolve_precision("auto", accelerator)
        self.model, other = self._model(), self._model().to(self.device)
        self.data: Any = instantiate(self.cfg.data)
        self.data.prepare_data()
        self.data.setup()
        without_idle_hooks([self.model])
        self.step = bare(other.train())
        self.fixed: Tensor = next(iter(self.data.train_dataloader())).to(self.device)

    def _model(self) -> pl.LightningModule:
        model: pl.LightningModule = instantiate(self.cfg.model).to(memory_format=torch.channels_last)
        return model

    def ours(self, blocks: Blocks, log_waits: bool = False) -> Clock:
        """One block of a Lightning fit."""
        clock = Clock(blocks, log_waits)
        self._trainer([clock]).fit(self.model, self.data)
        return clock

    def _trainer(self, callbacks: list[pl.Callback]) -> pl.Trainer:
        # Settings and callbacks of a step by `catsweep.training.trainer.build_trainer`; no scores, no checkpoints.
        ours = [FiniteLoss(), RandomState(), Progress(), EvaluationLine(), Usage("seconds", 3600.0)]
        return pl.Trainer(
            accelerator=self.accelerator, devices=1, precision=self.precision, max_epochs=10**6, limit_val_batches=0,
            num_sanity_val_steps=0, log_every_n_steps=1, use_distributed_sampler=False, logger=False,
            check_val_every_n_epoch=10**6, callbacks=without_idle_hooks([*ours, *callbacks]), profiler=Untimed(),
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip

    def batches(self) -> Iterator[Tensor]:
        """For the bare loop: what ours trains on, on the device."""
        self.data.trainer = self._trainer([])  # names the device
        loader = self.data.train_dataloader()
        for epoch in count():
            loader.set_epoch(epoch)
            yield from (batch.to(self.device) for batch in loader)

    def bare(self, blocks: Blocks, batches: Iterator[Tensor]) -> float:
        """Seconds of one block of the bare loop."""
        bf16 = self.precision == "bf16-mixed"
        began = 0.0
        for number, batch in enumerate(islice(batches, blocks.warm_up + blocks.steps)):
            if number == blocks.warm_up:
                synchronize()
                began = time.perf_counter()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                self.step(batch)
        synchronize()
        return time.perf_counter() - began

    def rates(self, blocks: Blocks) -> Rates:
        """Images per second, the medians of the rounds."""
        images = blocks.steps * len(self.fixed)
        seconds = [
            (self.ours(blocks).seconds, self.bare(blocks, self.batches()), self.bare(blocks, repeat(self.fixed)))
            for _ in range(blocks.rounds)
        ]
        return Rates(*(images / statistics.median(way) for way in zip(*seconds, strict=True)))


def waits(pair: Pair, blocks: Blocks) -> tuple[float, Counter[str]]:
    """How often the host waits for the GPU in a step of ours, and where: torch tells of it by a warning."""
    found: Counter[str] = Counter()

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if "synchroniz" in str(message):
            frames = [frame for frame in traceback.extract_stack()[:-1] if "warnings" not in frame.filename]
            found[" < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames[-6:]))] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        pair.ours(blocks, log_waits=True)
    return found.total() / blocks.warm_up, found


def profile(pair: Pair, blocks: Blocks, file: Path) -> None:
    """Write where the time of both ways goes, operation by operation."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    ways: list[tuple[str, Callable[[], object]]] = [
        ("ours", partial(pair.ours, blocks)),
        ("bare", lambda: pair.bare(blocks, pair.batches())),
    ]
    for name, way in ways:
        with torch.profiler.profile(activities=activities) as profiler:
            way()
        with file.open("a", encoding="utf-8") as out:
            averages = profiler.key_averages()
            out.write(f"{name}, {blocks.warm_up + blocks.steps} steps\n")
            out.write(averages.table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=60) + "\n")


def frames_of(found: Counter[str]) -> Iterator[str]:
    """Lines about the waits, the most frequent first."""
    for place, times in found.most_common(20):
        yield f"{times} x {place}"


def quiet() -> None:
    """Say nothing of what Lightning recommends."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


if __name__ == "__main__":
    sys.exit("Run tests/gpu/check.py, or make gpu-check.")
