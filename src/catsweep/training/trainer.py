"""Build the Lightning trainer of a run, with its callbacks, and without hooks that do nothing.

A small network takes a GPU a millisecond or two a step, in which the processor must hand out the next one. Lightning
calls each hook of each callback in every step, and times each call, whether or not there is anything to do.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import PassThroughProfiler

from catsweep import devices, usage
from catsweep.checkpoints import Checkpoints
from catsweep.data.ready import TRAIN
from catsweep.instantiation import instantiate
from catsweep.metrics.scorer import ScoreCallback, Scorer
from catsweep.runs import LAST_CHECKPOINT
from catsweep.training import callbacks, resume, validation
from steady.reporting import TrialReporter

STEP_HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip

Hooked = TypeVar("Hooked", pl.Callback, pl.LightningModule)


def build_trainer(
    cfg: DictConfig, folder: Path, scorer: Scorer, log_to: list[Logger], reporter: TrialReporter | None = None
) -> pl.Trainer:
    """Build the trainer of `cfg.trainer`, with the callbacks of a run, or of a trial if it has a reporter."""
    settings = {key: value for key, value in cfg.trainer.items() if key != "threads"}
    settings["precision"] = resolve_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    starter = {} if "plugins" in settings else {"plugins": [devices.environment(cfg.trainer)]}
    trainer: pl.Trainer = instantiate(
        settings,
        default_root_dir=str(folder),
        max_epochs=cfg.epochs,
        **validation.lightning_keys(_epochs_between(cfg, scorer)),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=without_idle_hooks(build_callbacks(cfg, folder, scorer, bool(log_to), reporter)),
        profiler=cfg.trainer.get("profiler") or Untimed(),
        logger=log_to or False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module deals the batches out itself
        **starter,
    )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # nobody has brought another
        trainer.strategy.checkpoint_io = Checkpoints()
    return trainer


def build_callbacks(
    cfg: DictConfig, folder: Path, scorer: Scorer, logged: bool, reporter: TrialReporter | None = None
) -> list[pl.Callback]:
    """Build the callbacks of a run; scores first, since checkpoints and early stopping read what they log."""
    checkpoints, rung_score = folder / LAST_CHECKPOINT.parent, scorer.rung_names()[0]
    rungs = list(cfg.rungs)
    if reporter and (promotion := reporter.promotion):
        rungs = [step / promotion.rungs[-1] for step in promotion.pausing]
    result: list[pl.Callback] = [
        ScoreCallback(scorer),
        callbacks.SampleGrid(folder),
        callbacks.FiniteLoss(),
        callbacks.RandomState(),
        resume.Continuation(folder),
        callbacks.Progress(),
        callbacks.EvaluationLine(),
        callbacks.BestCheckpoint(checkpoints, rung_score),
        callbacks.LastCheckpoint(checkpoints),
        usage.Usage(usage.unit(cfg), usage.limit(cfg)),
    ]
    if cfg.patience is not None:
        result.append(EarlyStopping(rung_score, patience=cfg.patience, check_on_train_epoch_end=False))
    if _epochs_between(cfg, scorer) is None:
        # At rungs of a single run, too: it then chooses its best checkpoint among the same as a trial.
        result.append(validation.TimedValidation(rungs))
    if logged:
        result.append(LearningRateMonitor("epoch"))
    if reporter:
        # A collapsed trial wastes a slot; a single run has somebody who looks at it, and may recover.
        result += [callbacks.Collapse(scorer), callbacks.SweepCallback(reporter, scorer, rungs, folder)]
    return result


def _epochs_between(cfg: DictConfig, scorer: Scorer) -> int | None:
    photos = max(1, len(scorer.ready.indices(TRAIN)))
    return validation.epochs_between(cfg.eval_every, cfg.epochs, usage.limit(cfg), photos)


def resolve_precision(precision: str, accelerator: str) -> str:
    """Resolve `auto` to the fastest precision that trains well on this machine; return any other as it is.

    bf16 keeps fp32's range, so nothing needs scaling. It pays only where the hardware multiplies in it: measured at
    64x64 on such a processor, a DCGAN of width 64 trains 2.3 times faster; on others it is emulated, and slower.
    """
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else "32-true"


def without_idle_hooks(objects: Iterable[Hooked]) -> list[Hooked]:
    """Set the hooks of a step that a class inherits to None, in place, so that Lightning skips them."""
    changed = list(objects)
    for one in changed:
        base = pl.Callback if isinstance(one, pl.Callback) else pl.LightningModule
        for hook in STEP_HOOKS:
            if getattr(type(one), hook) is getattr(base, hook):
                setattr(one, hook, None)
    return changed


class Untimed(PassThroughProfiler):
    """A profiler that measures nothing; of Lightning's own each hook runs a generator."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]  # a context manager
        """Return a context that does nothing."""
        return self._nothing
