"""The search of `compare.py` by Ray Tune: ASHA, and OptunaSearch over a space with conditions (define-by-run).

    python tests/benchmarks/search/ray_tune.py '{"seconds": 60, "seed": 0, "slots": 2, "words": ["data=ready", …]}'

A trial runs `catsweep.training.fit.run` in outputs/bench/ID, as a trial of ours does; in place of a study it reports to
Ray. Ray needs no more than `pip install 'ray[tune]'`.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import yaml
from ray import init, tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
from tests.benchmarks.search.compare import ETA, RUNGS, SEARCH  # noqa: E402

from steady.propose.space import Space  # noqa: E402
from steady.reporting import TrialReporter  # noqa: E402

SWEEPER = yaml.safe_load(SEARCH.read_text())["hydra"]["sweeper"]
SPACE = Space.parse(SWEEPER["params"], [], SWEEPER["conditions"])
METRIC = "kid"  # what is scored at rungs; no slash, which Ray would make folders of


class Reporter(TrialReporter):
    """Tells Ray, and no study, the score at a rung; Ray ends a trial by itself."""

    def __init__(self) -> None:
        study = optuna.create_study()
        super().__init__(study, study.ask().number)
        self.judged_by = ("val/kid",), ("minimize",)

    def report(self, step: int, scores: Mapping[str, float]) -> bool:
        """Report the score at a rung, counted from 1."""
        tune.report({METRIC: scores["val/kid"], "rung": RUNGS[step - 1]})
        return False


def draw(trial: Any) -> dict[str, Any]:
    """Draw the parameters of a trial, and write them as Hydra's words."""
    return {"overrides": list(SPACE.overrides(SPACE.suggest(trial)))}


def train(config: dict[str, Any], words: list[str], place: str) -> None:
    """Train one configuration."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from catsweep import runs
    from catsweep.training import fit

    os.chdir(place)
    runs.register()
    name = tune.get_context().get_trial_id()
    folder = Path("outputs/bench") / name
    shares = f"rungs=[{','.join(str(rung / RUNGS[-1]) for rung in RUNGS[:-1])}]"
    own = ["epochs=100000", "patience=null", "objective=[val/kid]", "trial.number=0", shares]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.4"):
        cfg = compose(
            "train",
            [*config["overrides"], *words, *own, f"hydra.run.dir={folder}", "hydra.job.num=0"],
            return_hydra_config=True,
        )
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        cfg.hydra.job.id = name
        HydraConfig.instance().set_config(cfg.copy())
        del cfg["hydra"]
    folder.mkdir(parents=True)
    with patch("catsweep.training.fit.TrialReporter.from_config", lambda trial: Reporter()):
        kid = fit.run(cfg, folder)
    tune.report({METRIC: kid, "rung": RUNGS[-1]})


def main() -> None:
    """Search for so many seconds."""
    given = json.loads(sys.argv[1])
    init("local", num_cpus=given["slots"], include_dashboard=False, log_to_driver=False)
    search = OptunaSearch(draw, metric=METRIC, mode="min",
                          seed=given["seed"])  # fmt: skip
    tuner = tune.Tuner(
        tune.with_parameters(train, words=given["words"], place=os.getcwd()),
        tune_config=tune.TuneConfig(
            metric=METRIC, mode="min", num_samples=-1, time_budget_s=given["seconds"],
            search_alg=ConcurrencyLimiter(search, max_concurrent=given["slots"]),
            scheduler=ASHAScheduler("rung", max_t=RUNGS[-1], grace_period=RUNGS[0], reduction_factor=ETA),
        ),
        run_config=tune.RunConfig(storage_path=str(Path("ray").resolve()), verbose=1),
    )  # fmt: skip
    tuner.fit()


if __name__ == "__main__":
    main()
