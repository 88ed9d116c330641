"""The loggers a run can have, and the few things a run tells them besides its metrics.

`conf/logger/{wandb,csv,none}.yaml` name one factory each. `training.run` calls `build`, hands the result to the
Trainer, then `log_config` before and `summarise` after training, and `finish` at the end, also of a failed run.
Nothing here draws a random number, and nothing prints or waits for a network unless the run is online, so that
scores are the same with any logger and with none.
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning_fabric.loggers.logger import rank_zero_experiment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from catsweep.errors import ConfigError
from catsweep.instantiation import instantiate

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "disabled"]
LONGEST_ID = 64  # wandb allows 128; the id is also part of file names

log = logging.getLogger(__name__)


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
) -> "RunLogger":
    """`logger=wandb`: one Weights & Biases run, whose id is the same each time the run is started.

    Args:
        run_dir: the run folder.
        study: name of the study; it becomes the group.
        trial: number of the trial.
        project: W&B project.
        entity: W&B user or team; the account's default if None.
        group: overrides the study as the group.
        name: display name; `<study> <trial>` or the run folder's name if None.
        job_type: `trial` in a study, `train` outside one, if None.
        tags: labels to filter by.
        mode: `online`, `offline` (files only), `disabled` (nothing), or `auto`: see `resolve_mode`.
        save_dir: the records of all runs go to `<save_dir>/wandb`, so that `wandb sync <save_dir>/wandb` and
            `wandb leet <save_dir>/wandb` take them all.

    Returns:
        A logger that contacts wandb when it is first used.

    Raises:
        ConfigError: the mode is none of those.
    """
    in_study = study is not None and trial is not None
    return RunLogger(
        mode=resolve_mode(mode),
        fall_back=mode == "auto",
        project=project,
        entity=entity,
        group=group or study,
        name=name or (f"{study} {trial}" if in_study else run_dir.name),
        job_type=job_type or ("trial" if in_study else "train"),
        tags=list(tags),
        save_dir=save_dir,
        id=run_id(f"{study}/{trial}") if in_study else run_id(_relative(run_dir, Path(save_dir))),
    )


class RunLogger(WandbLogger):
    """Lightning's W&B logger, silent when offline, and not stopped by a server that cannot be reached.

    Args:
        mode: `online`, `offline` or `disabled`.
        fall_back: go on offline if an online run cannot be started.
        save_dir: parent of the `wandb` folder.
        **init: further arguments of `wandb.init`.
    """

    def __init__(self, mode: str, fall_back: bool, save_dir: str, **init: Any) -> None:
        super().__init__(save_dir=save_dir, mode=mode, **init)
        # Lightning always passes it, and wandb warns of it whatever its value.
        del self._wandb_init["anonymous"]
        self._fall_back = fall_back

    @property
    @rank_zero_experiment
    def experiment(self) -> "wandb.Run":
        """The wandb run, started on first use (by rank 0 only)."""
        if self._experiment is None:
            import wandb

            try:
                return self._start()
            except wandb.errors.CommError as error:
                if not self._fall_back:
                    raise
                log.warning("Weights & Biases cannot be reached, so this run is recorded offline: %s", error)
                self._wandb_init["mode"] = "offline"
        return self._start()

    def _start(self) -> "wandb.Run":
        if self._experiment is None:
            import wandb

            Path(cast(str, self._save_dir)).mkdir(parents=True, exist_ok=True)
            if self._wandb_init["mode"] == "online":
                self._wandb_init["settings"] = wandb.Settings(init_timeout=30)
            else:
                self._wandb_init["settings"] = wandb.Settings(silent=True, console="off")
                # wandb 0.31 reports on its own use to its server at exit, also when offline, unless told not to.
                os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        return cast("wandb.Run", super().experiment)


def resolve_mode(mode: Mode) -> str:
    """Decide whether a run is online.

    `auto` follows `WANDB_MODE` and `wandb offline|disabled` where the user has set them; otherwise the run is online
    if wandb has credentials for its server (environment, netrc, settings file), offline if not. It never asks.

    Returns:
        `online`, `offline` or `disabled`.

    Raises:
        ConfigError: the mode is not known, or the credentials are malformed.
    """
    if mode in ("online", "offline", "disabled"):
        return mode
    if mode != "auto":
        raise ConfigError(f"logger.mode is auto, online, offline or disabled; got {mode!r}.")
    import wandb
    from wandb.sdk.lib import wbauth

    settings = wandb.setup().settings
    if settings.mode != "online":
        return {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
    try:
        # Not wandb.login(prompt=False): with a key it prints, and asks the server who this is.
        found = wbauth.authenticate_session(
            host=settings.base_url, source="catsweep", prompt=False, update_session=False
        )
    except wandb.errors.AuthenticationError as error:
        raise ConfigError(
            f"Weights & Biases has credentials that it cannot use: {error} Correct them, or set logger.mode=offline."
        ) from error
    return "online" if found else "offline"


def run_id(name: str) -> str:
    """Turn the name of a run into an id that wandb and file systems accept; different names get different ids.

    Returns:
        At most 64 characters of `a-z0-9-`: the name in lower case with other characters as hyphens, and, when that
        lost something, 8 digits of the name's SHA-256.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if slug == name and len(slug) <= LONGEST_ID:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slug[: LONGEST_ID - 9].rstrip('-')}-{digest}".lstrip("-")


def log_config(loggers: Sequence[Logger], cfg: DictConfig) -> None:
    """Record the resolved configuration with every logger, as nested plain values."""
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    for logger in loggers:
        logger.log_hyperparams(plain)


@rank_zero_only
def summarise(loggers: Sequence[Logger], scores: Mapping[str, float], cards: Mapping[str, Mapping[str, Any]]) -> None:
    """Record the final scores, those of the checkpoint that counts, and the metric card of each.

    wandb would otherwise summarise a run by its last values. The cards go to the config, where runs can be filtered
    and grouped by them (`cards.val/fid.extractor`): scores under different cards must not be compared.

    Args:
        loggers: the loggers of the run; only wandb's keep a summary.
        scores: value by name, for example `val/fid`.
        cards: metric card by the same names, plain values.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update(
                {"cards": {k: dict(card) for k, card in cards.items()}}, allow_val_change=True
            )
            logger.experiment.summary.update(dict(scores))


def finish(loggers: Sequence[Logger], failed: bool = False) -> None:
    """End the record of a run, so that the next job of this process starts its own.

    Args:
        loggers: the loggers of the run.
        failed: mark the run as failed.
    """
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        # Not logger.experiment: that would start a run in order to finish it.
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.finish(exit_code=int(failed))
            logger._experiment = None


def _relative(run_dir: Path, save_dir: Path) -> str:
    """Name a run folder independently of where the project lies."""
    run_dir, save_dir = run_dir.resolve(), save_dir.resolve()
    return (run_dir.relative_to(save_dir) if run_dir.is_relative_to(save_dir) else run_dir).as_posix()
