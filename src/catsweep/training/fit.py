"""Train and score one generator, from a composed configuration to objective values.

`src/train.py` calls `run`, for a single run and for each trial of a sweep. `train` does the work: it builds what the
configuration names by `_target_` (the model by `conf/model/*.yaml`: `catsweep.models.vae.VAE`, made of the blocks of
`catsweep.models.blocks`), then a Lightning trainer (`catsweep.training.trainer`), which fits the model; then it scores.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint

from catsweep import configuration, devices, judging, usage
from catsweep.data.datamodule import CatDataModule
from catsweep.data.ready import TRAIN
from catsweep.errors import ConfigError, DataError, InterruptedTrial
from catsweep.instantiation import instantiate
from catsweep.metrics.scorer import ScoreCallback, Scorer
from catsweep.models.generator import Generator
from catsweep.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, SCORES, RunDir, alone, load_weights
from catsweep.tracking import loggers
from catsweep.training import provenance, resume
from catsweep.training.model_size import measure
from catsweep.training.trainer import build_trainer, without_idle_hooks
from steady import safe_paths
from steady.reporting import TrialReporter
from steady.signals import COMMAND, SAID

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[3]
IDLE_GPU = "GPU available but not used"  # `catsweep.idle_gpus` says so of a single run, in words of our command line
# Warnings of Lightning and torch that say nothing to a user of ours.
IGNORED = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 calls what torch 2.13 has deprecated
    r"Checkpoint directory .* exists and is not empty",  # a resumed run: that is the point
    r"Total length of `OrderedBatches` across ranks is zero",  # data.val_fraction=0: nothing is held out,
    r"`ModelCheckpoint\(monitor='val/.*'\)` could not find the monitored key",  # and nothing scored on the way
    r"You're resuming from a checkpoint that ended before the epoch ended",  # as a run bound by minutes does
    r"The `srun` command is available",  # of SLURM: whether to use it is decided in `catsweep.devices`
)


def run(cfg: DictConfig, folder: Path | None = None) -> float | tuple[float, ...]:
    """Train and score one generator, and write everything about it to the run's folder (by default Hydra's).

    Returns:
        The values of `cfg.objective`: a float for one, a tuple in the same order for several.

    Raises:
        CatsweepError: a configuration, data or training that cannot go on; the message has the remedy.
    """
    configuration.check(cfg)
    configuration.complete(cfg)
    devices.require(cfg.trainer.accelerator, cfg.trainer.get("devices", "auto"))
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it sets INFO itself when imported
    for message in (*IGNORED, *([IDLE_GPU] if cfg.trial.number is None else [])):
        warnings.filterwarnings("ignore", message=message)
    devices.environment(cfg.trainer)  # also decides who is rank 0, before anything that only rank 0 does
    # Relative to the project, so that nothing we print or write names a place on this machine.
    folder = folder or Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if cfg.trial.number is None:
        with alone(folder) if devices.is_first() else nullcontext():
            try:
                return train(cfg, folder)
            except BaseException as error:
                if COMMAND.number is not None or isinstance(error, KeyboardInterrupt):
                    there = (folder / LAST_CHECKPOINT).is_file() and not (folder / SCORES).exists()
                    COMMAND.said = f"{SAID} To go on, add resume={folder} to the same line." if there else SAID
                raise
    devices.require_one_process(cfg.trainer, unknown=torch.cuda.device_count())
    # A trial is alone by its lease: a lock that an attempt holds after it lost that would keep the next one out.
    safe_paths.refuse_links_within(folder, "trial", ConfigError)
    scores = resume.scores_of_trial(cfg, folder)
    return train(cfg, folder) if scores is None else objective_values(scores, list(cfg.objective))


def train(cfg: DictConfig, folder: Path) -> float | tuple[float, ...]:
    """Build, fit and score a checked configuration in a folder that this process alone uses; see `run`."""
    resume.check(cfg, folder)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    # The photos last: what does not fit together, or is not there, shows at once, and they may take minutes to prepare.
    model: pl.LightningModule = instantiate(cfg.model).to(memory_format=torch.channels_last)
    checkpoint = resume.checkpoint_of(cfg, folder, model)
    scoring, judge = instantiate(cfg.metrics), _judge(cfg)
    data: CatDataModule = instantiate(cfg.data)
    data.prepare_data()
    resume.check_photos(cfg, folder, data.ready.digest)
    configuration.check_photos(cfg, len(data.ready.indices(TRAIN)))
    provenance.write(folder, cfg, provenance.collect(cfg.seed, ROOT, data.ready.digest), ROOT)
    log.info("Preparing the scores against %s; new photos take a minute, known ones a second", data.ready.path.name)
    scorer: Scorer = scoring(ready=data.ready)
    assert isinstance(model, Generator)
    configuration.check_objective(cfg, scorer.names(model))
    reporter = TrialReporter.from_config(cfg.trial)
    if reporter:
        steps = reporter.promotion.rungs if reporter.promotion else ()
        configuration.check_rungs(cfg, reporter.metrics, scorer.rung_names(), steps)
        if reporter.note(measure(model, [one.name for one in reporter.constraints])):
            raise optuna.TrialPruned  # too large or too slow, however well it would draw
    log_to = loggers.build(cfg.logger, folder, cfg.trial.study or cfg.study, cfg.trial.number)
    outcome = "failed"
    try:
        loggers.log_config(log_to, cfg)
        loggers.watch(log_to, model)
        trainer = build_trainer(cfg, folder, scorer, log_to, reporter)
        without_idle_hooks([model])
        _fit(trainer, model, data, checkpoint)
        if reporter:
            reporter.has_ended()  # at a rung it reached with the end of its budget
        result = _score(trainer, model, scorer, folder, reporter)
        found = result if judge is None else _judged(judge, model, folder, scorer, result)
        loggers.summarise(log_to, found["scores"], found["cards"], list(cfg.objective))
        outcome = "complete"
    except (optuna.TrialPruned, InterruptedTrial) as ended:  # as it was asked to
        outcome = "pruned" if isinstance(ended, optuna.TrialPruned) else "interrupted"
        if reporter and reporter.paused is not None:
            with suppress(Exception):  # a study that cannot be asked: the end is told all the same
                outcome = "paused" if reporter.is_current() else "interrupted"
        raise
    finally:
        loggers.finish(log_to, outcome)
    return objective_values(result["scores"], list(cfg.objective))


def objective_values(scores: Mapping[str, float], objective: Sequence[str]) -> float | tuple[float, ...]:
    """Select the objective from scores by name: one value alone, several as a tuple in their order."""
    values = tuple(scores[name] for name in objective)
    return values[0] if len(values) == 1 else values


def _judge(cfg: DictConfig) -> judging.Factory | None:
    if cfg.trial.number is not None or not devices.is_first():
        return None
    if remark := judging.absent(cfg):
        log.info(remark)
    return judging.factory(cfg)


def _judged(
    judge: judging.Factory, model: Generator, folder: Path, scorer: Scorer, result: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge the scores and cards of a run with those of its judge, which has its own file."""
    judged = judging.judge_model(judge, model, folder, scorer)
    log.info("%s", judging.line(judged))
    more = judged.to_dict()
    return {key: result[key] | more[key] for key in ("scores", "cards")}


def _fit(trainer: pl.Trainer, model: pl.LightningModule, data: CatDataModule, checkpoint: str | None) -> None:
    """Train, from a checkpoint if there is one; a `DataError` if it is of another run."""
    try:
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    # Lightning looks up and calls what it finds in a checkpoint, so one of another run can fail it in any way.
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        begun = any(isinstance(one, resume.Continuation) and one.begun for one in trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it
        if checkpoint is None or begun:
            raise
        raise DataError(
            f"{checkpoint} is not of this run, whose state does not fit: {str(error).partition(chr(10))[0][:200]} "
            "Start a new run without resume."
        ) from error
    for stopper in trainer.early_stopping_callbacks:
        if stopper.wait_count >= stopper.patience:
            log.info(
                "No better %s in %d evaluations: the run ends here (patience=null trains to the end)",
                stopper.monitor,
                stopper.wait_count,
            )


def _score(
    trainer: pl.Trainer, model: Any, scorer: Scorer, folder: Path, reporter: TrialReporter | None
) -> dict[str, Any]:
    """Score the best checkpoint with the full number of samples, and write `metrics.json`."""
    if reporter:
        reporter.note({})  # writes what it has used: a next attempt would only score, and not know
    _keep_if_better(trainer, model, scorer, folder)
    trainer.strategy.barrier()  # one process writes the checkpoint that all of them read
    epoch = load_weights(model, folder, "best")
    scores, cards = scorer.final(model)
    counted = usage.of(trainer)
    assert counted is not None
    used = {name: round(amount, 1) for name, amount in counted.used().items()}
    result = {
        "scores": scores,
        "cards": {key: card.to_dict() for key, card in cards.items()},
        "checkpoint": "best",
        "epoch": epoch,
        "epochs": trainer.fit_loop.epoch_progress.current.ready,
        **used,
        "precision": str(trainer.precision),
        "device": devices.device_name(trainer.strategy.root_device),
    }
    if trainer.is_global_zero:
        if reporter:
            reporter.require_current()
        RunDir(folder).write(SCORES, result)
        told = "  ".join(f"{name} {score:.4g}" for name, score in scores.items())
        log.info("%s  (%.0f s of training, %.0f images) in %s", told, used["seconds"], used["samples"], folder)
    return result


def _keep_if_better(trainer: pl.Trainer, model: Any, scorer: Scorer, folder: Path) -> None:
    """Let the final weights be the best checkpoint too, when the run ended between two evaluations."""
    best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    score = next(c for c in trainer.callbacks if isinstance(c, ScoreCallback))  # type: ignore[attr-defined]  # likewise
    if score.scored_at == trainer.global_step and best.best_model_score is not None:
        return
    rung = scorer.rung(model)[scorer.rung_names()[0]]
    if best.best_model_score is None or rung < float(best.best_model_score):
        trainer.save_checkpoint(folder / BEST_CHECKPOINT)
