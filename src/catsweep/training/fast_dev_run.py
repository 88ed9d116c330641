"""Try a configuration before it trains: build all that a run builds, train on one batch, and score.

As Lightning's `fast_dev_run`: what takes a run its time (photos, epochs, samples) is left out; what can be wrong with
it (a loss that does not fit, a GPU that is not there, a score that nobody takes) shows.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from catsweep import configuration
from catsweep.data.datamodule import CatDataModule
from catsweep.data.ready import TRAIN
from catsweep.devices import require, require_one_process
from catsweep.errors import CatsweepError, DivergedError
from catsweep.instantiation import instantiate
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import Generator
from catsweep.tracking import loggers
from catsweep.training.trainer import build_trainer, without_idle_hooks
from steady.study.failures import is_out_of_memory

IMAGES = 4  # in the batch, at most
SAMPLES = 8  # of the rung score
# One process, one batch; the real trainer of several is only built.
SMALL: dict[str, Any] = {
    "limit_train_batches": 1, "limit_val_batches": 1, "devices": 1, "num_nodes": 1, "strategy": "auto",
}  # fmt: skip
T = TypeVar("T")


class FastDevRun:
    """Tries configurations of a study; photos and statistics that several have in common are made once.

    Args:
        pruned_by: scores.
        objectives: the number of values that the study expects of a trial; None if unknown.
        steps: rungs of a promotion.
        elsewhere: trials train on other machines. What needs a GPU is tried on the processor where there is none.
    """

    def __init__(
        self,
        pruned_by: Sequence[str] = (),
        objectives: int | None = None,
        steps: Sequence[int] = (),
        elsewhere: bool = False,
    ) -> None:
        self.pruned_by, self.objectives, self.steps = list(pruned_by), objectives, list(steps)
        self.elsewhere = elsewhere
        self._data: dict[str, CatDataModule] = {}
        self._scorers: dict[str, Scorer] = {}

    def problems(self, cfg: DictConfig) -> list[str]:
        """List what a run of this configuration would fail of, each fault as far as it shows beside the others."""
        said: list[str] = []

        def tried(step: Callable[[], T]) -> T | None:
            try:
                return step()
            except DivergedError:  # others may not; the search is there to find out
                return None
            except Exception as error:  # whatever the user's configuration makes a library raise
                if not is_out_of_memory(error):  # likewise
                    text = " ".join(str(error).split())
                    said.append(text if isinstance(error, CatsweepError) else f"{type(error).__name__}: {text[:500]}")
                return None

        tried(lambda: self._check(cfg))
        is_sound = not said
        tried(lambda: require_one_process(cfg.trainer))
        cfg = self._for_this_machine(cfg)
        tried(lambda: require(cfg.trainer.accelerator))
        tried(lambda: loggers.build(cfg.logger, Path("preflight"), "preflight", 0))
        before = len(said)
        model = tried(lambda: instantiate(cfg.model).to(memory_format=torch.channels_last))
        if not is_sound:  # then it may not be buildable either, which need not be said twice
            del said[before:]
        data = tried(lambda: self._prepared(cfg))
        if data is None:
            return said
        tried(lambda: configuration.check_photos(cfg, len(data.ready.indices(TRAIN))))
        scorer = tried(lambda: self._scorer(cfg, data))
        if scorer is not None and self.pruned_by:
            tried(lambda: configuration.check_rungs(cfg, self.pruned_by, scorer.rung_names(), self.steps))
        if scorer is not None and isinstance(model, Generator):
            tried(lambda: configuration.check_objective(cfg, scorer.names(model)))
        if not said and model is not None and scorer is not None:
            tried(lambda: train_one_batch(cfg, model, data, scorer))
        return said

    def _for_this_machine(self, cfg: DictConfig) -> DictConfig:
        if not self.elsewhere or cfg.trainer.accelerator not in ("gpu", "cuda") or torch.cuda.is_available():
            return cfg
        changed = copy.deepcopy(cfg)
        with read_write(changed):
            changed.trainer.update(accelerator="cpu", precision="auto")
        return changed

    def _check(self, cfg: DictConfig) -> None:
        configuration.check(cfg)
        configuration.complete(cfg)
        n = 1 if isinstance(cfg.objective, str) else len(cfg.objective)
        if self.objectives not in (None, n):
            raise CatsweepError(
                f"objective names {n} scores, and hydra.sweeper.direction has {self.objectives}: it needs minimize or "
                "maximize for each of them."
            )

    def _prepared(self, cfg: DictConfig) -> CatDataModule:
        key = _key(cfg.data)
        if key not in self._data:
            data: CatDataModule = instantiate(cfg.data)
            data.prepare_data()
            data.setup()
            self._data[key] = data
        return self._data[key]

    def _scorer(self, cfg: DictConfig, data: CatDataModule) -> Scorer:
        key = f"{data.ready.digest} {_key(cfg.metrics)}"
        if key not in self._scorers:
            self._scorers[key] = instantiate(cfg.metrics)(ready=data.ready)
        return self._scorers[key]


def train_one_batch(cfg: DictConfig, model: pl.LightningModule, data: CatDataModule, scorer: Scorer) -> None:
    """Train on one batch, and score; its files go to a folder that is removed."""
    small, few, batch = copy.deepcopy(cfg), copy.copy(scorer), copy.copy(data)
    batch.batch_size = min(data.batch_size, IMAGES)
    few.rung_samples = few.samples = min(scorer.rung_samples, SAMPLES)
    with read_write(small), open_dict(small):
        small.epochs = small.eval_every = 1
        small.minutes = small.samples = small.patience = None
        small.trainer.update(SMALL)
    with tempfile.TemporaryDirectory(prefix="catsweep-") as folder:
        if any(cfg.trainer.get(key) not in (None, SMALL[key]) for key in ("devices", "num_nodes", "strategy")):
            build_trainer(cfg, Path(folder), scorer, [])
        trainer = build_trainer(small, Path(folder), few, [])
        without_idle_hooks([model])
        trainer.fit(model, batch)


def _key(node: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(node, resolve=True), sort_keys=True, default=str)
