"""The loggers a run can have, and the few things a run tells them besides its metrics.

`conf/logger/{wandb,csv,none}.yaml` name one factory each. `training.run` calls `build`, hands the result to the
Trainer, then `log_config` and `watch` before and `summarise` after training, and `finish` at the end, also of a failed
run.
Nothing here draws a random number, and nothing prints or waits for a network unless the run is online, so that
scores are the same with any logger and with none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from catsweep.errors import ConfigError
from catsweep.instantiation import instantiate
from catsweep.tracking.run_logger import Mode, RunLogger, Watch, cache_beside, resolve_mode, run_id, under_agent
from steady.confirm.stage import CONFIRMATION

TAGGED = ("model", "data", "loss")  # groups whose option is a tag of the run
WATCH_EVERY = 100  # batches


def build(node: DictConfig, run_dir: Path, study: str | None = None, trial: int | None = None) -> list[Logger]:
    """Make the loggers of one run from the `logger` node of its configuration.

    Args:
        node: what `conf/logger/<name>.yaml` holds: a `_target_` and its own settings.
        run_dir: the run folder.
        study: name of the study the run is a trial of, if it is one.
        trial: its number in that study.

    Returns:
        The loggers, for `Trainer(logger=…)`; an empty list switches logging off.
    """
    logger = instantiate(node, run_dir=run_dir, study=study, trial=trial)
    return [] if logger is None else [logger]


def no_logger(run_dir: Path, study: str | None = None, trial: int | None = None) -> None:
    """`logger=none`: keep no record beyond what the run folder holds anyway."""


def csv_logger(run_dir: Path, study: str | None = None, trial: int | None = None) -> CSVLogger:
    """`logger=csv`: one table per session in `<run_dir>/csv/version_<n>/metrics.csv`, a resumed run adds the next."""
    return CSVLogger(save_dir=run_dir, name="csv")


def wandb_logger(
    run_dir: Path,
    study: str | None = None,
    trial: int | None = None,
    *,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    name: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    mode: Mode = "auto",
    save_dir: str = "outputs",
    watch: Watch | None = None,
    system: bool = True,
) -> RunLogger:
    """`logger=wandb`: one Weights & Biases run, whose id is the same each time the run is started.

    Args:
        run_dir: the run folder.
        study: name of the study; it becomes the group.
        trial: number of the trial.
        project: W&B project.
        entity: W&B user or team; the account's default if None.
        group: overrides the study as the group.
        name: display name; `<study> <trial>` or the run folder's name if None.
        job_type: `trial` or `confirm` in a study, `train` outside one, if None.
        tags: labels to filter by, besides the options of `TAGGED`.
        mode: `online`, `offline` (files only), `disabled` (nothing), or `auto`: see `resolve_mode`.
        save_dir: the records of all runs go to `<save_dir>/wandb`, so that `make wandb-sync` and
            `wandb leet <save_dir>/wandb` take them all.
        watch: record histograms of the gradients, the parameters or all.
        system: record the machine.

    Returns:
        A logger that contacts wandb when it is first used.

    Raises:
        ConfigError: the mode, or what to watch, is none of those.
    """
    if watch not in (None, "gradients", "parameters", "all"):
        raise ConfigError(f"logger.watch is null, gradients, parameters or all; got {watch!r}.")
    role, search = _role(study, trial)
    role = job_type or role
    in_study = study is not None and (trial is not None or role == "sweep")
    which = f"{search} {role}" if role in ("sweep", "confirm") else search
    called = f"{which} {trial}" if trial is not None else which
    if under_agent():  # it has a name for the run, and keeps the runs of its sweep together
        search = called = None
    cache_beside(save_dir)
    return RunLogger(
        mode=resolve_mode(mode),
        fall_back=mode == "auto",
        project=project,
        entity=entity,
        group=group or search,
        name=name or (called if in_study or under_agent() else run_dir.name),
        job_type=role,
        tags=list(dict.fromkeys([*_tags(), *tags])),
        save_dir=save_dir,
        system=system,
        watched=watch,
        id=run_id(f"{study}/{'sweep' if trial is None else trial}" if in_study else _relative(run_dir, Path(save_dir))),
    )


def _role(study: str | None, trial: int | None) -> tuple[str, str | None]:
    """The job type of a run, and the name of the search it belongs to."""
    if study is None or trial is None:
        return ("trial" if under_agent() else "train"), study
    if study.endswith(CONFIRMATION):
        return "confirm", study.removesuffix(CONFIRMATION)
    return "trial", study


def _tags() -> list[str]:
    chosen = choices()
    return [chosen[group] for group in TAGGED if group in chosen]


def choices() -> dict[str, str]:
    """The option of each config group, `loss: mse`; empty outside a Hydra job."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {str(k): str(v) for k, v in chosen.items() if v is not None and not str(k).startswith("hydra/")}


def log_config(loggers: Sequence[Logger], cfg: DictConfig) -> None:
    """Record the resolved configuration with every logger, as nested plain values, and the option of each group.

    The options are `choices`: what a sweep over `loss` varies is `choices.loss`, not the node it stands for.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    for logger in loggers:
        logger.log_hyperparams({**plain, "choices": choices()})


def watch(loggers: Sequence[Logger], model: torch.nn.Module) -> None:
    """Record histograms of a model while it trains, with the loggers that were asked to."""
    for logger in loggers:
        if isinstance(logger, RunLogger) and logger.watched is not None:
            logger.watch(model, log=logger.watched, log_freq=WATCH_EVERY, log_graph=False)


@rank_zero_only
def summarise(
    loggers: Sequence[Logger],
    scores: Mapping[str, float],
    cards: Mapping[str, Mapping[str, Any]],
    objective: Sequence[str] = (),
) -> None:
    """Record the final scores, those of the checkpoint that counts, and the metric card of each.

    wandb would otherwise summarise a run by its last values. The cards go to the config, where runs can be filtered
    and grouped by them (`cards.val/fid.extractor`): scores under different cards must not be compared.

    Args:
        loggers: the loggers of the run; only wandb's keep a summary.
        scores: value by name, for example `val/fid`.
        cards: metric card by the same names, plain values.
        objective: what the run is judged by. The first is also `objective`. They are logged as well, as a sweep of
            W&B's own needs.
    """
    judged = {name: scores[name] for name in objective}
    if objective:
        judged["objective"] = scores[objective[0]]
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.close_step(judged)
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update(
                {"cards": {k: dict(card) for k, card in cards.items()}}, allow_val_change=True
            )
            logger.experiment.summary.update({**scores, **judged})


def finish(loggers: Sequence[Logger], outcome: str = "complete") -> None:
    """End the record of a run, so that the next job of this process starts its own.

    Args:
        loggers: the loggers of the run.
        outcome: `complete`, `pruned`, `interrupted` or `failed`; it is part of the summary.
    """
    failed = outcome == "failed"
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        # Not logger.experiment: that would start a run in order to finish it.
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.summary.update({"outcome": outcome})
            logger._experiment.finish(exit_code=int(failed))
            logger._experiment = None


def _relative(run_dir: Path, save_dir: Path) -> str:
    """Name a run folder independently of where the project lies."""
    run_dir, save_dir = run_dir.resolve(), save_dir.resolve()
    return (run_dir.relative_to(save_dir) if run_dir.is_relative_to(save_dir) else run_dir).as_posix()
