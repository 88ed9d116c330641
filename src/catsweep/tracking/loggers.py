"""Loggers of a run: none, CSV tables, trackio or Weights & Biases, and what they record besides metrics.

A run calls `build`, hands the result to the Trainer, then `log_config` and `watch` before and `summarise` after
training, and `finish` at the end, also of a failed run. Nothing here draws a random number, and nothing prints or waits
for a network unless the run is online, so that scores are the same with any logger and with none.
"""

import hashlib
import logging
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from hydra.core.hydra_config import HydraConfig
from lightning_fabric.loggers.logger import rank_zero_experiment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from catsweep.errors import CatsweepError, ConfigError
from catsweep.instantiation import instantiate
from catsweep.runs import RunDir
from catsweep.tracking.trackio_logger import TrackioLogger
from steady.storage import CONFIRMATION

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "disabled"]
Watch = Literal["gradients", "parameters", "all"]
TAGGED = ("model", "data", "loss")  # groups whose option is a tag of the run
WATCH_EVERY = 100  # batches
LONGEST_ID = 64  # wandb allows 128; the id is also part of file names
STEP = "trainer/global_step"  # Lightning's name of the x axis

log = logging.getLogger(__name__)


def build(node: DictConfig, run_dir: Path, study: str | None = None, trial: int | None = None) -> list[Logger]:
    """Make the loggers of one run, of which `study` and `trial` say whether it is a trial, from its `logger` node."""
    logger = instantiate(node, run_dir=run_dir, study=study, trial=trial)
    return [] if logger is None else [logger]


def no_logger(run_dir: Path, study: str | None = None, trial: int | None = None) -> None:
    """Make no logger (`logger=none`): the run folder alone has a record."""


def csv_logger(run_dir: Path, study: str | None = None, trial: int | None = None) -> CSVLogger:
    """Make a logger (`logger=csv`) of one table per session, `<run_dir>/csv/version_<n>/metrics.csv`."""
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
) -> "RunLogger":
    """Make a logger (`logger=wandb`) of one Weights & Biases run, whose id is the same each time the run is started.

    It contacts wandb when it is first used. `conf/logger/wandb.yaml` explains the arguments. The group is the study,
    the name `<study> <trial>` or the run folder's, the job type `trial`, `confirm` or (outside a study) `train`, unless
    they are given.

    Raises:
        ConfigError: the mode, or what to watch, is not known.
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
    _cache_beside(save_dir)
    chosen = choices()
    unique = f"{study}/{'sweep' if trial is None else trial}" if in_study else _relative(run_dir, Path(save_dir))
    return RunLogger(
        mode=resolve_mode(mode), fall_back=mode == "auto", save_dir=save_dir, system=system, watched=watch,
        project=project, entity=entity, group=group or search, job_type=role,
        name=name or (called if in_study or under_agent() else run_dir.name),
        tags=list(dict.fromkeys([*(chosen[group] for group in TAGGED if group in chosen), *tags])),
        id=run_id("/".join([unique, *_record(run_dir)])),
    )  # fmt: skip


def _record(run_dir: Path) -> list[str]:
    """Read by what a run's record is told from that of an earlier run of the name, whose study was deleted since."""
    with suppress(CatsweepError, OSError):
        return [record] if isinstance(record := RunDir(run_dir).provenance().get("record"), str) else []
    return []


def _role(study: str | None, trial: int | None) -> tuple[str, str | None]:
    """The job type of a run, and the name of the search it belongs to."""
    if study is None or trial is None:
        return ("trial" if under_agent() else "train"), study
    if study.endswith(CONFIRMATION):
        return "confirm", study.removesuffix(CONFIRMATION)
    return "trial", study


def _cache_beside(save_dir: str) -> None:
    """Let wandb keep its cache, which has its log, with the records of the runs if the home cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", os.devnull), ".cache")
    try:
        Path(home, "wandb").mkdir(parents=True, exist_ok=True)
    except OSError:
        os.environ.setdefault("WANDB_CACHE_DIR", str(Path(save_dir, "wandb", "cache").resolve()))


def _relative(run_dir: Path, save_dir: Path) -> str:
    """Name a run folder independently of where the project lies."""
    run_dir, save_dir = run_dir.resolve(), save_dir.resolve()
    return (run_dir.relative_to(save_dir) if run_dir.is_relative_to(save_dir) else run_dir).as_posix()


def run_id(name: str) -> str:
    """Turn the name of a run into an id of at most 64 characters of `a-z0-9-`; different names get different ids.

    Other characters become hyphens; when that lost something, 8 digits of the name's SHA-256 are appended.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if slug == name and len(slug) <= LONGEST_ID:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slug[: LONGEST_ID - 9].rstrip('-')}-{digest}".lstrip("-")


def choices() -> dict[str, str]:
    """The option of each config group, `loss: mse`; empty outside a Hydra job."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {str(k): str(v) for k, v in chosen.items() if v is not None and not str(k).startswith("hydra/")}


def log_config(loggers: Sequence[Logger], cfg: DictConfig) -> None:
    """Record the resolved configuration with every logger, and the option of each group as `choices`."""
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
    """Record the scores of the checkpoint that counts, with W&B also the metric card of each, by their names.

    wandb would otherwise summarise a run by its last values. The cards go to the config, where runs can be filtered
    and grouped by them (`cards.val/fid.extractor`): scores under different cards must not be compared. The first of
    the scores to optimise is also `objective`, and all of them are logged, as a sweep of W&B's own needs.
    """
    judged = {name: scores[name] for name in objective}
    if objective:
        judged["objective"] = scores[objective[0]]
    for logger in loggers:
        if isinstance(logger, TrackioLogger):
            logger.close({**scores, **judged})
        if isinstance(logger, RunLogger):
            logger.close_step(judged)
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update(
                {"cards": {k: dict(card) for k, card in cards.items()}}, allow_val_change=True
            )
            logger.experiment.summary.update({**scores, **judged})


def finish(loggers: Sequence[Logger], outcome: str = "complete") -> None:
    """End the record of a run, so that the next job of this process starts its own.

    The outcome (`complete`, `pruned`, `paused`, `interrupted` or `failed`) is part of the summary.
    """
    failed = outcome == "failed"
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        # Not logger.experiment: that would start a run in order to finish it.
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.summary.update({"outcome": outcome})
            logger._experiment.finish(exit_code=int(failed))
            logger._experiment = None


class RunLogger(WandbLogger):
    """Lightning's W&B logger, silent when offline, and not stopped by a server that cannot be reached.

    Its step is the Trainer's. So what a resumed run records comes behind what it recorded before, also when both parts
    are offline and know nothing of each other, and what it repeats since its checkpoint is not recorded twice. Under
    `wandb agent`, id, project and entity are the agent's.

    Args:
        mode: `online`, `offline` or `disabled`.
        fall_back: go on offline if an online run cannot be started.
        save_dir: parent of the `wandb` folder.
        system: record the machine every 15 s.
        watched: what of the model `watch` records; None for nothing.
        **init: further arguments of `wandb.init`.
    """

    def __init__(
        self, mode: str, fall_back: bool, save_dir: str, system: bool, watched: Watch | None, **init: Any
    ) -> None:
        super().__init__(save_dir=save_dir, mode=mode, **init)
        # Lightning always passes it, and wandb warns of it whatever its value.
        del self._wandb_init["anonymous"]
        if under_agent():  # wandb would ignore them, and say so
            for key in ("id", "project", "entity"):
                self._wandb_init.pop(key, None)
        self.watched, self._fall_back, self._system = watched, fall_back, system
        self._step = 0

    @property
    @rank_zero_experiment
    def experiment(self) -> "wandb.Run":
        """The wandb run, started on first use (by rank 0 only)."""
        if self._experiment is None:
            import wandb

            try:
                self._prepare()
                return cast("wandb.Run", super().experiment)
            except wandb.errors.CommError as error:
                if not self._fall_back:
                    raise
                log.warning("Weights & Biases cannot be reached, so this run is recorded offline: %s", error)
                self._wandb_init["mode"] = "offline"
                self._prepare()
        return cast("wandb.Run", super().experiment)

    def _prepare(self) -> None:
        import wandb

        folder = Path(cast(str, self._save_dir))
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"init_timeout": 30}
        if self._wandb_init["mode"] != "online":
            settings = {"silent": True, "console": "off"}
            # wandb 0.31 reports on its own use to its server at exit, also when offline, unless told not to.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            # Files of tables and artifacts wait for their upload beside the runs, not in the user's home.
            os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb").resolve()))
        self._wandb_init["settings"] = wandb.Settings(x_disable_stats=not self._system, **settings)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record values, or media, at a step of the Trainer; without one at the latest."""
        step = self._step if step is None else step
        if step < self.experiment.starting_step:  # the server has it from before this run was resumed
            return
        self._step = max(step, self._step)  # wandb drops what is told of an earlier step
        self.experiment.log({**metrics, STEP: step}, step=self._step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Record the configuration, but for the keys that an agent has set (`loss: mse` instead of the node)."""
        given = vars(params) if isinstance(params, Namespace) else params
        path = os.environ.get("WANDB_SWEEP_PARAM_PATH")  # wandb keeps the values of the agent, and warns of others
        chosen: Any = OmegaConf.load(path) if under_agent() and path and Path(path).is_file() else {}
        super().log_hyperparams({key: value for key, value in given.items() if key not in chosen})

    @rank_zero_only
    def close_step(self, metrics: Mapping[str, float]) -> None:
        """Record last values, and have wandb write them now: a summary given before its row would be overwritten."""
        step = max(self._step, self.experiment.starting_step)  # resumed only to be scored, it has had no step yet
        self.experiment.log({**metrics, STEP: step}, step=step, commit=True)


def under_agent() -> bool:
    """Whether `wandb agent` started this process, for a sweep that W&B itself runs."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def resolve_mode(mode: Mode) -> str:
    """Decide whether a run is `online`, `offline` or `disabled`.

    `auto` follows `WANDB_MODE` and `wandb offline|disabled` where the user has set them; otherwise the run is online
    if wandb has credentials for its server, offline if not. It never asks.

    Raises:
        ConfigError: the mode is not known, or the credentials are malformed.
    """
    if mode in ("online", "offline", "disabled"):
        return mode
    if mode != "auto":
        raise ConfigError(f"logger.mode is auto, online, offline or disabled; got {mode!r}.")
    import wandb

    settings = wandb.setup().settings
    if settings.mode != "online":
        return {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Whether wandb has credentials for its server; a `ConfigError` if they are malformed. Contacts nobody."""
    import wandb
    from wandb.sdk.lib import wbauth

    try:
        # Not wandb.login(prompt=False): with a key it prints, and asks the server who this is.
        found = wbauth.authenticate_session(
            host=wandb.setup().settings.base_url, source="catsweep", prompt=False, update_session=False
        )
    except wandb.errors.AuthenticationError as error:
        raise ConfigError(
            f"Weights & Biases has credentials that it cannot use: {error} Correct them, or set logger.mode=offline."
        ) from error
    return bool(found)
