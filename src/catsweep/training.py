"""One run, from a composed configuration to objective values: check, seed, build, fit, score, record.

`src/train.py` calls `run`, for a single run and for each trial of a sweep alike. Everything it builds is named by
the configuration (`_target_`); what stands here is the order of things. `catsweep.runs` is the
way back, from a run's folder to its model.
"""

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from catsweep import cluster, configuration, judging, resumption, validation_schedule
from catsweep.callbacks import (
    BestCheckpoint,
    Collapse,
    EvaluationLine,
    FiniteLoss,
    LastCheckpoint,
    Progress,
    RandomState,
)
from catsweep.checkpoints import Checkpoints
from catsweep.data.datamodule import CatDataModule
from catsweep.data.ready import TRAIN
from catsweep.errors import ConfigError, DataError, InterruptedTrial
from catsweep.hardware import device_name, require
from catsweep.instantiation import instantiate
from catsweep.metrics.scorer import ScoreCallback, Scorer
from catsweep.models.generator import Generator
from catsweep.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, SCORES, RunDir, alone, load_weights
from catsweep.step_cost import Untimed, without_idle_hooks
from catsweep.sweep_callback import SweepCallback
from catsweep.tracking import loggers, provenance
from catsweep.tracking.media import SampleGrid
from steady import links
from steady.reporting import TrialReporter
from steady.signals import COMMAND, SAID

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]


def run(cfg: DictConfig, folder: Path | None = None) -> float | tuple[float, ...]:
    """Train and score one generator; write everything about it to the run's folder.

    Args:
        cfg: composed from `conf/train.yaml`.
        folder: where to write; Hydra's output folder if None.

    Returns:
        The values of `cfg.objective`: a float for one, a tuple in the same order for several.

    Raises:
        CatsweepError: a configuration, data or training that cannot go on; the message says what to do.
    """
    configuration.check(cfg)
    configuration.complete(cfg)
    require(cfg.trainer.accelerator, cfg.trainer.get("devices", "auto"))
    _quiet_libraries()
    cluster.environment(cfg.trainer)  # also decides who is rank 0, before anything that only rank 0 does
    # Relative to the project, so that nothing we print or write names a place on this machine.
    folder = folder or Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if cfg.trial.number is None:
        with alone(folder) if cluster.is_first() else nullcontext():
            try:
                return _train(cfg, folder)
            except BaseException as error:
                if COMMAND.number is not None or isinstance(error, KeyboardInterrupt):
                    COMMAND.said = _goes_on(folder)
                raise
    # A trial is alone by its lease: a lock that an attempt holds after it lost that would keep the next one out.
    scores = _scores_of_trial(cfg, folder)
    return _train(cfg, folder) if scores is None else objective_values(scores, list(cfg.objective))


def _goes_on(folder: Path) -> str:
    """What is said at the end of a run that a person stopped."""
    there = (folder / LAST_CHECKPOINT).is_file() and not (folder / SCORES).exists()
    return f"{SAID} To go on, add resume={folder} to the same line." if there else SAID


def _train(cfg: DictConfig, folder: Path) -> float | tuple[float, ...]:
    """Build, fit and score, in a folder that is this run's alone."""
    resumption.check(cfg, folder)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    # The photos last: what does not fit together, or is not there, shows at once, and they may take minutes to prepare.
    model: pl.LightningModule = instantiate(cfg.model).to(memory_format=torch.channels_last)
    checkpoint = resumption.checkpoint_of(cfg, folder, model)
    scoring, judge = instantiate(cfg.metrics), _judge(cfg)
    data: CatDataModule = instantiate(cfg.data)
    data.prepare_data()
    resumption.check_photos(cfg, folder, data.ready.digest)
    configuration.check_batch(cfg, len(data.ready.indices(TRAIN)))
    provenance.write(folder, cfg, provenance.collect(cfg.seed, ROOT, data.ready.digest), ROOT)
    log.info("Preparing the scores against %s; new photos take a minute, known ones a second", data.ready.path.name)
    scorer: Scorer = scoring(ready=data.ready)
    assert isinstance(model, Generator)
    require_scored(cfg, scorer.names(model))
    reporter = TrialReporter.from_config(cfg.trial)
    if reporter:
        require_rungs(cfg, reporter.metrics, scorer)
    log_to = loggers.build(cfg.logger, folder, cfg.trial.study or cfg.study, cfg.trial.number)
    outcome = "failed"
    try:
        loggers.log_config(log_to, cfg)
        loggers.watch(log_to, model)
        trainer = build_trainer(cfg, folder, scorer, log_to, reporter)
        without_idle_hooks([model])
        started = time.monotonic()
        _fit(trainer, model, data, checkpoint)
        _say_if_out_of_patience(trainer)
        result = _score(trainer, model, scorer, folder, time.monotonic() - started)
        found = result if judge is None else _judged(judge, model, folder, scorer, result)
        loggers.summarise(log_to, found["scores"], found["cards"], list(cfg.objective))
        outcome = "complete"
    except (optuna.TrialPruned, InterruptedTrial) as ended:  # as it was asked to
        outcome = "pruned" if isinstance(ended, optuna.TrialPruned) else "interrupted"
        raise
    finally:
        loggers.finish(log_to, outcome)
    return objective_values(result["scores"], list(cfg.objective))


def _judge(cfg: DictConfig) -> judging.Factory | None:
    """Who judges this run when it is done; nobody judges a trial, of which a sweep has many, while it goes on."""
    if cfg.trial.number is not None or not cluster.is_first():
        return None
    if remark := judging.absent(cfg):
        log.info(remark)
    return judging.factory(cfg)


def _judged(
    judge: judging.Factory, model: Generator, folder: Path, scorer: Scorer, result: Mapping[str, Any]
) -> dict[str, Any]:
    """The scores and cards of a run, with those of its judge, which has its own file."""
    judged = judging.judge_model(judge, model, folder, scorer)
    log.info("%s", judging.line(judged))
    more = judged.to_dict()
    return {key: result[key] | more[key] for key in ("scores", "cards")}


def _fit(trainer: pl.Trainer, model: pl.LightningModule, data: CatDataModule, checkpoint: str | None) -> None:
    """Train.

    Raises:
        DataError: the checkpoint cannot be gone on from. What training itself raises passes through.
    """
    try:
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    # Lightning looks up and calls what it finds in a checkpoint, so one of another run can fail it in any way.
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        begun = any(isinstance(one, resumption.Continuation) and one.begun for one in trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it
        if checkpoint is None or begun:
            raise
        raise DataError(
            f"{checkpoint} is not of this run, whose state does not fit: {str(error).partition(chr(10))[0][:200]} "
            "Start a new run without resume."
        ) from error


def _say_if_out_of_patience(trainer: pl.Trainer) -> None:
    """A run that ends long before its budget says why."""
    for stopper in trainer.early_stopping_callbacks:
        if stopper.wait_count >= stopper.patience:
            log.info(
                "No better %s in %d evaluations: the run ends here (patience=null trains to the end)",
                stopper.monitor,
                stopper.wait_count,
            )


def _scores_of_trial(cfg: DictConfig, folder: Path) -> Mapping[str, float] | None:
    """The scores of a trial whose process ended between its scores and its study; None if there are none.

    Raises:
        ConfigError: the scores are another study's, whose folder this trial would write over; or a link in the folder
            leads out of it.
    """
    links.refuse_within(folder, "trial", ConfigError)
    if not cfg.trial.attempt and (folder / SCORES).exists():
        raise ConfigError(
            f"Expected an empty folder for trial {cfg.trial.number}; {folder} holds a finished one of another sweep. "
            f"Start under another name, study=NAME, or remove {folder.parent}."
        )
    if (record := resumption.scores_of(folder)) is None:
        return None
    log.info("Trial %s was scored before; its values stand", cfg.trial.number)
    scores: Mapping[str, float] = record["scores"]
    return scores


def require_rungs(cfg: DictConfig, metrics: Sequence[str], scorer: Scorer) -> None:
    """Refuse, before training, to prune by a score that nobody takes.

    Args:
        cfg: of the run.
        metrics: names of the scores that its study prunes by.
        scorer: of the run.

    Raises:
        ConfigError: naming the scores that are taken while a model trains; or there is no rung to take one at.
    """
    if metrics and not cfg.rungs:
        raise ConfigError(
            "Pruning needs rungs, shares of the budget such as [0.25, 0.5]; got none. "
            "Set some, or hydra.sweeper.pruner=null."
        )
    if missing := [name for name in metrics if name not in scorer.rung_names()]:
        raise ConfigError(
            f"hydra.sweeper.prune_metric must name a score taken during training, of "
            f"{', '.join(scorer.rung_names())}; got {', '.join(missing)}."
        )


def _quiet_libraries() -> None:
    """Keep Lightning's advertisements, and warnings that say nothing to a user of ours, off the terminal."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it sets INFO itself when imported
    for message in (
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 calls what torch 2.13 has deprecated
        r"Checkpoint directory .* exists and is not empty",  # a resumed run: that is the point
        r"Total length of `OrderedBatches` across ranks is zero",  # data.val_fraction=0: nothing is held out,
        r"`ModelCheckpoint\(monitor='val/.*'\)` could not find the monitored key",  # and nothing scored on the way
        r"You're resuming from a checkpoint that ended before the epoch ended",  # as a run bound by minutes does
        r"The `srun` command is available",  # of SLURM: whether to use it is decided in `catsweep.cluster`
    ):
        warnings.filterwarnings("ignore", message=message)


def objective_values(scores: Mapping[str, float], objective: list[str]) -> float | tuple[float, ...]:
    """Pick the objective from the scores: one value alone, several as a tuple in their order."""
    values = tuple(scores[name] for name in objective)
    return values[0] if len(values) == 1 else values


def require_scored(cfg: DictConfig, names: list[str]) -> None:
    """Refuse, before training, an objective that will not be scored.

    Args:
        cfg: of the run.
        names: of the scores that there will be.

    Raises:
        ConfigError: naming the scores there will be.
    """
    if not cfg.objective or (missing := [name for name in cfg.objective if name not in names]):
        raise ConfigError(
            f"objective must name scores of this model and data, of {', '.join(names)}; "
            f"got {list(cfg.objective)}{f', where {missing} is not one of them' if cfg.objective else ''}."
        )


def build_trainer(
    cfg: DictConfig, folder: Path, scorer: Scorer, log_to: list[Logger], reporter: TrialReporter | None = None
) -> pl.Trainer:
    """The trainer of `cfg.trainer`, with the callbacks that every run has, and those of a trial of a sweep."""
    settings = {key: value for key, value in cfg.trainer.items() if key != "threads"}
    settings["precision"] = resolve_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    starter = {} if "plugins" in settings else {"plugins": [cluster.environment(cfg.trainer)]}
    trainer: pl.Trainer = instantiate(
        settings,
        default_root_dir=str(folder),
        max_epochs=cfg.epochs,
        **validation_schedule.lightning_keys(_epochs_between(cfg, scorer)),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=without_idle_hooks(callbacks(cfg, folder, scorer, bool(log_to), reporter)),
        profiler=cfg.trainer.get("profiler") or Untimed(),
        logger=log_to or False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module deals the batches out itself
        **starter,
    )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # nobody has brought another
        trainer.strategy.checkpoint_io = Checkpoints()
    return trainer


def _epochs_between(cfg: DictConfig, scorer: Scorer) -> int | None:
    photos = max(1, len(scorer.ready.indices(TRAIN)))
    return validation_schedule.epochs_between(cfg.eval_every, cfg.epochs, cfg.minutes, photos)


def callbacks(
    cfg: DictConfig, folder: Path, scorer: Scorer, logged: bool, reporter: TrialReporter | None = None
) -> list[pl.Callback]:
    """Scores first, since checkpoints and early stopping read what they log."""
    checkpoints = folder / LAST_CHECKPOINT.parent
    result: list[pl.Callback] = [
        ScoreCallback(scorer),
        SampleGrid(folder),
        FiniteLoss(),
        RandomState(),
        resumption.Continuation(folder),
        Progress(),
        EvaluationLine(),
        BestCheckpoint(checkpoints, scorer.rung_names()[0]),
        LastCheckpoint(checkpoints),
    ]
    if cfg.patience is not None:
        result.append(EarlyStopping(scorer.rung_names()[0], patience=cfg.patience, check_on_train_epoch_end=False))
    if cfg.minutes is not None:
        result.append(Timer({"seconds": cfg.minutes * 60}, verbose=False))
    if _epochs_between(cfg, scorer) is None:
        result.append(validation_schedule.TimedValidation(list(cfg.rungs) if reporter else ()))
    if logged:
        result.append(LearningRateMonitor("epoch"))
    if reporter:
        # A collapsed trial wastes a slot; a single run has somebody who looks at it, and may recover.
        result += [Collapse(scorer), SweepCallback(reporter, scorer, list(cfg.rungs), folder)]
    return result


def resolve_precision(precision: str, accelerator: str) -> str:
    """Turn `auto` into the fastest precision that trains well on this machine; leave anything else as it is.

    bf16 keeps fp32's range, so nothing needs scaling. It pays only where the hardware multiplies in it: measured at
    64x64 on such a processor, a DCGAN of width 64 trains 2.3 times faster; on others it is emulated, and slower.
    """
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else "32-true"


def _score(
    trainer: pl.Trainer, model: pl.LightningModule, scorer: Scorer, folder: Path, seconds: float
) -> dict[str, Any]:
    """Score the checkpoint that counts at the full number of samples, and write `metrics.json`."""
    _keep_if_better(trainer, model, scorer, folder)
    trainer.strategy.barrier()  # one process writes the checkpoint that all of them read
    epoch = load_weights(model, folder, "best")
    assert isinstance(model, Generator)
    scores, cards = scorer.final(model)
    result = {
        "scores": scores,
        "cards": {key: card.to_dict() for key, card in cards.items()},
        "checkpoint": "best",
        "epoch": epoch,
        "epochs": trainer.fit_loop.epoch_progress.current.ready,
        "seconds": round(seconds, 1),
        "precision": str(trainer.precision),
        "device": device_name(trainer.strategy.root_device),
    }
    if trainer.is_global_zero:
        RunDir(folder).write(SCORES, result)
        log.info(
            "%s  (%.0f s of training) in %s", "  ".join(f"{k} {v:.4g}" for k, v in scores.items()), seconds, folder
        )
    return result


def _keep_if_better(trainer: pl.Trainer, model: pl.LightningModule, scorer: Scorer, folder: Path) -> None:
    """Let the final weights be the best checkpoint too, when the run ended between two evaluations."""
    best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    score = next(c for c in trainer.callbacks if isinstance(c, ScoreCallback))  # type: ignore[attr-defined]  # likewise
    if score.scored_at == trainer.global_step and best.best_model_score is not None:
        return
    assert isinstance(model, Generator)
    rung = scorer.rung(model)[scorer.rung_names()[0]]
    if best.best_model_score is None or rung < float(best.best_model_score):
        trainer.save_checkpoint(folder / BEST_CHECKPOINT)
