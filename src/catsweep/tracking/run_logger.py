"""One Weights & Biases run for each run of ours: online or offline, its id, its steps, and who decides on them.

`catsweep.tracking.loggers` makes a `RunLogger` of `conf/logger/wandb.yaml`. Under `wandb agent` the agent has named the
run already, so id, project and entity are left to it.
"""

import hashlib
import logging
import os
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning_fabric.loggers.logger import rank_zero_experiment
from omegaconf import OmegaConf
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from catsweep.errors import ConfigError

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "disabled"]
Watch = Literal["gradients", "parameters", "all"]
LONGEST_ID = 64  # wandb allows 128; the id is also part of file names
STEP = "trainer/global_step"  # Lightning's name of the x axis

log = logging.getLogger(__name__)


class RunLogger(WandbLogger):
    """Lightning's W&B logger, silent when offline, and not stopped by a server that cannot be reached.

    wandb counts what it is told; here its step is the Trainer's. So what a resumed run records comes behind what it
    recorded before, also when both parts are offline and know nothing of each other, and what it repeats since its
    checkpoint is not recorded twice.

    Args:
        mode: `online`, `offline` or `disabled`.
        fall_back: go on offline if an online run cannot be started.
        save_dir: parent of the `wandb` folder.
        system: record the machine (processor, memory, GPUs) every 15 s.
        watched: what of the model `watch` records; None for nothing.
        **init: further arguments of `wandb.init`.
    """

    def __init__(
        self, mode: str, fall_back: bool, save_dir: str, system: bool = True, watched: Watch | None = None, **init: Any
    ) -> None:
        super().__init__(save_dir=save_dir, mode=mode, **init)
        # Lightning always passes it, and wandb warns of it whatever its value.
        del self._wandb_init["anonymous"]
        if under_agent():  # wandb would ignore them, and say so
            for key in ("id", "project", "entity"):
                self._wandb_init.pop(key, None)
        self.watched = watched
        self._fall_back = fall_back
        self._system = system
        self._step = 0

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
            settings: dict[str, Any] = {"x_disable_stats": not self._system}
            if self._wandb_init["mode"] == "online":
                settings |= {"init_timeout": 30}
            else:
                settings |= {"silent": True, "console": "off"}
                # wandb 0.31 reports on its own use to its server at exit, also when offline, unless told not to.
                os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
                # Files of tables and artifacts wait for their upload beside the runs, not in the user's home.
                os.environ.setdefault("WANDB_DATA_DIR", str(Path(cast(str, self._save_dir), "wandb").resolve()))
            self._wandb_init["settings"] = wandb.Settings(**settings)
        return cast("wandb.Run", super().experiment)

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
        set_by_agent = _agents_parameters()
        super().log_hyperparams({key: value for key, value in given.items() if key not in set_by_agent})

    @rank_zero_only
    def close_step(self, metrics: Mapping[str, float]) -> None:
        """Record last values, and have wandb write them now: a summary given before its row would be overwritten."""
        step = max(self._step, self.experiment.starting_step)  # resumed only to be scored, it has had no step yet
        self.experiment.log({**metrics, STEP: step}, step=step, commit=True)


def under_agent() -> bool:
    """Whether `wandb agent` started this process, for a sweep that W&B itself runs."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def _agents_parameters() -> set[str]:
    """Names of what the agent has chosen; wandb keeps its values, and warns of others."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not under_agent() or not path or not Path(path).is_file():
        return set()
    return {str(key) for key in OmegaConf.load(path)}


def resolve_mode(mode: Mode) -> str:
    """Decide whether a run is online.

    `auto` follows `WANDB_MODE` and `wandb offline|disabled` where the user has set them; otherwise the run is online
    if wandb has credentials for its server, offline if not. It never asks.

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

    settings = wandb.setup().settings
    if settings.mode != "online":
        return {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
    return "online" if has_key() else "offline"


def cache_beside(save_dir: str) -> None:
    """Let wandb keep its cache with the records of the runs if the user's home cannot be written.

    Its server has a log there; without one it tells the terminal all that it does.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", os.devnull), ".cache")
    try:
        Path(home, "wandb").mkdir(parents=True, exist_ok=True)
    except OSError:
        os.environ.setdefault("WANDB_CACHE_DIR", str(Path(save_dir, "wandb", "cache").resolve()))


def has_key() -> bool:
    """Whether wandb has credentials for its server (environment, netrc, settings file). Contacts nobody.

    Raises:
        ConfigError: the credentials are malformed.
    """
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
