"""The logger of `logger=trackio`: curves and pictures in a local database, `trackio show` opens them in the browser.

trackio (Hugging Face) has wandb's calls, and needs neither an account nor a network: it writes SQLite and PNG to a
folder, unless `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` say otherwise.
"""

import io
import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from catsweep.errors import ConfigError
from catsweep.grids import Images


def trackio_logger(
    run_dir: Path, study: str | None = None, trial: int | None = None, *, project: str, save_dir: str, system: bool
) -> "TrackioLogger":
    """Make a logger of one trackio run, which goes on when the run is started again; `conf/logger/trackio.yaml`.

    It writes when it is first used. The group is the study; the name is that of the study and the trial, or
    of the folders below `save_dir`.

    Raises:
        ConfigError: trackio is not installed.
    """
    if find_spec("trackio") is None:
        raise ConfigError("logger=trackio needs the package trackio: pip install 'catsweep[trackio]'.")
    name = f"{study} {trial}"
    if study is None or trial is None:  # a run of its own, as `2026-11-28 12-00-00`, or `cats mine longer`
        place, outputs = run_dir.resolve(), Path(save_dir).resolve()
        above = [folder for folder in (outputs / "runs", outputs, Path(place.anchor)) if place.is_relative_to(folder)]
        name = " ".join(place.relative_to(above[0]).parts)
    return TrackioLogger(project, name, study, Path(save_dir, "trackio"), system)


class TrackioLogger(Logger):
    """A Lightning logger of one trackio run. Steps that the run has from before it was resumed are not recorded twice.

    Args:
        project: name of the database.
        name: of the run, unique in its project.
        group: of runs, or None.
        folder: of the databases.
        system: record the machine every 10 s.
    """

    def __init__(self, project: str, name: str, group: str | None, folder: Path, system: bool) -> None:
        super().__init__()
        self._project, self._name, self._group, self._folder, self._system = project, name, group, folder, system
        self._run: Any = None
        self._begun = -1  # the last step that it had before it was resumed
        self._step = 0

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str:
        """The run."""
        return self._name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The trackio run, begun on first use, silently."""
        if self._run is None:
            os.environ.setdefault("TRACKIO_DIR", str(self._folder.resolve()))  # read when it is imported
            import trackio
            from trackio.sqlite_storage import SQLiteStorage

            last = SQLiteStorage.get_max_step_for_run(self._project, self._name)
            self._begun = -1 if last is None else last
            watched = None if self._system else False  # None: whatever there is
            with redirect_stdout(io.StringIO()):
                self._run = trackio.init(
                    self._project, self._name, self._group, resume="allow", embed=False, auto_log_cpu=watched,
                    auto_log_gpu=watched,
                )  # fmt: skip
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *others: Any, **more: Any) -> None:
        """Record the configuration."""
        self.experiment.config.update(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record values at a step of the Trainer; without one at the latest."""
        run, step = self.experiment, self._step if step is None else step
        self._step = max(self._step, step)
        if step > self._begun:
            run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_image(self, key: str, image: Images, step: int) -> None:
        """Record an image, uint8 (H, W, 3)."""
        run = self.experiment
        import trackio

        if step > self._begun:
            run.log({key: trackio.Image(image)}, step=step)

    @rank_zero_only
    def close(self, scores: Mapping[str, float]) -> None:
        """Record the scores of the checkpoint that counts, behind all others."""
        run = self.experiment
        run.log(dict(scores), step=max(self._step, self._begun) + 1)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what waits, and end the run; one that was not begun is not begun for it."""
        if self._run is not None:
            from trackio import context_vars

            with redirect_stdout(io.StringIO()):
                self._run.finish()
            context_vars.current_run.set(None)  # else trackio ends it once more at exit, and says so
            self._run = None
