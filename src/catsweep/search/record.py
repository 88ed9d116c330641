"""What a sweep leaves besides its study: the folder it lives in, a table on the terminal, `leaderboard.csv`.

A Hydra callback (`conf/hydra/callbacks/study.yaml`), since the stock sweeper has no hook of its own.
"""

import csv
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

if TYPE_CHECKING:  # optuna is imported when there is something to read: --help passes through here too
    from optuna import Study
    from optuna.trial import FrozenTrial

SWEEPS = Path("sweeps")
LEADERBOARD = "leaderboard.csv"


class StudyRecord(Callback):
    """Prepare and report the study of a multirun.

    Args:
        study: the study's name; its folder is `sweeps/<study>`.
        objective: names of the objectives, in the order of the study's directions.
    """

    def __init__(self, study: str, objective: list[str]):
        self.study, self.objective = study, list(objective)
        self.folder = SWEEPS / study
        self.refused = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the study's folder, which SQLite will not do; refuse to write over an earlier sweep.

        Raises:
            SystemExit: the study already has trials. The stock sweeper would number its jobs from 0 again and write
                over their folders. (Hydra turns other exceptions of a callback into warnings.)
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "study.db").exists() and (trials := len(self._load().trials)):
            print(
                f"The study {self.study} already holds {trials} trials, and hydra/sweeper=optuna cannot continue it "
                f"without writing over their folders.\nStart another with study=NAME, look at this one with "
                f"`make best-model`, or remove {self.folder} and outputs/{self.study}.",
                file=sys.stderr,
            )
            self.refused = True
            raise SystemExit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `leaderboard.csv` and print the table of results; also of a sweep that was interrupted."""
        if self.refused or not (self.folder / "study.db").exists():  # Hydra calls this after a refusal too
            return
        study = self._load()
        _name_objectives(study, self.objective)
        trials = ranked(study)
        write_leaderboard(self.folder / LEADERBOARD, trials, self.objective)
        print_table(study, trials, self.objective)
        print(f"Study: {self.folder}. Take the best model home: make best-model export STUDY={self.study}")

    def _load(self) -> "Study":
        import optuna

        return optuna.load_study(study_name=self.study, storage=f"sqlite:///{self.folder / 'study.db'}")


def ranked(study: "Study") -> list["FrozenTrial"]:
    """All trials: finished ones by the first objective, best first, then the others by number."""
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1

    def key(trial: "FrozenTrial") -> tuple[bool, float, int]:
        # By state, for a pruned trial has a value too: the last that it reported.
        finished = trial.state.name == "COMPLETE"
        return (not finished, sign * trial.values[0] if finished else 0.0, trial.number)

    return sorted(study.trials, key=key)


def write_leaderboard(path: Path, trials: list["FrozenTrial"], objective: list[str]) -> None:
    """Write one row per trial: number, state, objectives, seconds, parameters."""
    names = sorted({name for trial in trials for name in trial.params})
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["trial", "state", *objective, "seconds", *names])
        for trial in trials:
            values = trial.values or [""] * len(objective)
            parameters = [trial.params.get(name, "") for name in names]
            table.writerow([trial.number, trial.state.name, *values, _seconds(trial), *parameters])


def print_table(study: "Study", trials: list["FrozenTrial"], objective: list[str]) -> None:
    """Print the trials, Pareto-optimal ones marked with a star."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    best = {trial.number for trial in study.best_trials}
    table = Table(title=f"{study.study_name}: {len(trials)} trials, * Pareto-optimal")
    for name in ("trial", *objective, "seconds"):
        table.add_column(name, justify="right")
    table.add_column("parameters", overflow="fold")
    for trial in trials:
        unfinished = [trial.state.name] + [""] * (len(objective) - 1)
        values = [f"{value:.4g}" for value in trial.values] if trial.state.name == "COMPLETE" else unfinished
        parameters = "  ".join(f"{k.rsplit('.', 1)[-1]}={_short(v)}" for k, v in trial.params.items())
        star = "*" if trial.number in best else " "
        # As plain text: a list of choices, [color,translation], would be taken for markup.
        table.add_row(f"{star}{trial.number}", *values, str(_seconds(trial)), Text(parameters))
    Console().print(table)


def _name_objectives(study: "Study", objective: list[str]) -> None:
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        # In Optuna since 3.2 and unchanged; no news for whoever looks at the results of a sweep.
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(objective)


def _seconds(trial: "FrozenTrial") -> int | str:
    return round(trial.duration.total_seconds()) if trial.duration else ""


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
