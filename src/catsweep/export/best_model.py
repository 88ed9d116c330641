"""The best trial of a study, copied to a folder of its own: `python src/best_model.py`.

Reads `sweeps/<study>/study.db`, beside it `confirmation.json` if the sweep has confirmed its winner, and
`outputs/<study>/<trial>/`; writes `outputs/best_model/`, which has the layout of
a run folder, so that `generate` and `export` (the next steps) take it as they would take any run::

    checkpoints/best.ckpt  config.yaml  metrics.json  provenance.json  samples.png     the trial's own
    choice.json  choice.md                                                             why it was this one
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catsweep.errors import ExportError
from catsweep.export.confirmed import confirmation_for, confirmed_choice
from catsweep.export.selection import Choice, choose
from catsweep.export.swap import replacing
from catsweep.export.trials import Trials, find_run, find_study, read_trials
from catsweep.search.confirmation import Confirmation

DOCUMENTS = ("config.yaml", "metrics.json", "provenance.json")
CHOICE = "choice.json"


def run(cfg: DictConfig) -> Path:
    """Choose, copy, and say why.

    Args:
        cfg: as in `conf/best_model.yaml`.

    Returns:
        The folder with the best model.

    Raises:
        ExportError: there is no study, no finished trial, or no run folder to copy from.
        ConfigError: `select` means nothing for this study.
    """
    # A study may be called 2026, which the command line reads as a number.
    folder = find_study(Path(cfg.sweeps), None if cfg.study is None else str(cfg.study))
    runs = Path(cfg.outputs) / folder.name
    trials = read_trials(folder, runs)
    choice = choose(cfg.select, trials.front, trials.finished, trials.objectives)
    confirmed, remark = confirmation_for(cfg.select, trials, folder)
    if confirmed:
        choice = confirmed_choice(confirmed, trials)
    source = find_run(runs, choice.candidate, trials.objectives)
    record = Record(trials, choice, source, confirmed, remark)
    target = Path(cfg.out)
    copy_run(source, target, record)
    console = Console()
    console.print(record.table())
    if confirmed:
        console.print(confirmed.table())
    console.print(f"{record.sentence()} Copied to {target}.", highlight=False, soft_wrap=True)
    return target


@dataclass(frozen=True)
class Record:
    """Why a trial is the best model, as data, as a page and as a table.

    Attributes:
        trials: what there was to choose from.
        choice: what was chosen, and why.
        source: the run folder it was copied from.
        confirmed: the comparison under other seeds, if the choice follows it.
        remark: why it does not follow the one that there is.
    """

    trials: Trials
    choice: Choice
    source: Path
    confirmed: Confirmation | None = None
    remark: str = ""

    def sentence(self) -> str:
        """Everything in a few words."""
        remark = f" {self.remark}" if self.remark else ""
        return (
            f"Trial {self.choice.candidate.number} of study {self.trials.study}: {self.choice.reason}. "
            f"Of {len(self.trials.finished)} finished trials, {len(self.trials.front)} are Pareto-optimal.{remark}"
        )

    def rows(self) -> list[tuple[int, tuple[float, ...], bool]]:
        """The Pareto set, then the chosen trial if it is not in it: number, values, whether it is the chosen one."""
        chosen = self.choice.candidate
        shown = [*self.trials.front, *([] if chosen in self.trials.front else [chosen])]
        return [(c.number, c.values, c == chosen) for c in shown]

    def headings(self) -> list[str]:
        """`trial`, then each objective with an arrow to where it is better."""
        return ["trial", *(f"{o.name} {'↑' if o.maximise else '↓'}" for o in self.trials.objectives)]

    def as_dict(self) -> dict[str, Any]:
        """The content of `choice.json`."""
        chosen = self.choice.candidate.number
        return {
            "study": self.trials.study,
            "trial": chosen,
            "selected_by": self.choice.reason,
            "run": self.source.as_posix(),
            "objectives": [
                {"name": o.name, "direction": "maximize" if o.maximise else "minimize"} for o in self.trials.objectives
            ],
            **self._described(chosen),
            "pareto_set": [{"trial": c.number, **self._described(c.number)} for c in self.trials.front],
            "finished_trials": len(self.trials.finished),
            **({"confirmation": self.confirmed.to_dict()} if self.confirmed else {}),
            **({"remark": self.remark} if self.remark else {}),
        }

    def as_markdown(self) -> str:
        """The content of `choice.md`."""
        headings = self.headings()
        lines = ["# Why this model", "", self.sentence(), "", _markdown_row(headings)]
        lines.append(_markdown_row(["---"] + ["---:"] * (len(headings) - 1)))
        for number, values, chosen in self.rows():
            lines.append(_markdown_row([f"**{number}**" if chosen else str(number), *map(_number, values)]))
        params = self.trials.params[self.choice.candidate.number]
        lines += ["", "Its parameters:", "", *(f"- `{name}={value}`" for name, value in params.items())]
        return "\n".join(lines) + "\n"

    def table(self) -> Table:
        """The Pareto set for a terminal, the chosen trial marked."""
        table = Table(title=f"Pareto set of {self.trials.study}", title_justify="left")
        for i, heading in enumerate(self.headings()):
            table.add_column(heading, justify="left" if i == 0 else "right")
        table.add_column("parameters", overflow="fold")
        for number, values, chosen in self.rows():
            params = " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in _short(self.trials, number))
            # As plain text: a list of choices, [color,translation], would be taken for markup.
            cells: list[str | Text] = [f"{number} ◀" if chosen else str(number), *map(_number, values), Text(params)]
            table.add_row(*cells, style="bold green" if chosen else None)
        return table

    def _described(self, number: int) -> dict[str, Any]:
        values = next(c.values for c in self.trials.finished if c.number == number)
        names = [o.name for o in self.trials.objectives]
        return {"values": dict(zip(names, values, strict=True)), "params": self.trials.params[number]}


def copy_run(source: Path, target: Path, record: Record) -> None:
    """Copy what a model consists of, and the record of its choice; all of it, or nothing.

    Args:
        source: the run folder.
        target: replaced as a whole; an error leaves the earlier one untouched.
        record: of the choice.

    Raises:
        ExportError: the run folder lacks a part.
    """
    checkpoint = Path("checkpoints") / f"{scored_checkpoint(source)}.ckpt"
    parts = [Path(name) for name in DOCUMENTS] + [checkpoint]
    if missing := [str(part) for part in parts if not (source / part).is_file()]:
        raise ExportError(
            f"The run folder {source} of the chosen trial lacks {', '.join(missing)}. "
            f"Choose another trial with select=NUMBER, or train this one again."
        )
    with replacing(target) as folder:
        for part in parts:
            (folder / part).parent.mkdir(exist_ok=True)
            shutil.copy2(source / part, folder / part)
        if page := samples_of(source):
            shutil.copy2(page, folder / "samples.png")
        (folder / CHOICE).write_text(json.dumps(record.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "choice.md").write_text(record.as_markdown(), encoding="utf-8")


def scored_checkpoint(run: Path) -> str:
    """Name of the checkpoint that the scores in a run's `metrics.json` were measured on (`best` or `last`).

    Raises:
        ExportError: the run has no scores.
    """
    try:
        name = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{run}/metrics.json is not the record of a finished run ({error!r}).") from error
    return str(name)


def samples_of(run: Path) -> Path | None:
    """The sample grid that shows a run's scored checkpoint best: the latest one drawn up to its epoch.

    Training may have gone on after it, for the worse. `None` if the run was too short to draw one.
    """
    scored_at = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("epoch", math.inf)
    grids = sorted((run / "samples").glob("epoch_*.png"))
    drawn_by_then = [page for page in grids if int(page.stem.removeprefix("epoch_")) <= scored_at]
    return max(drawn_by_then or grids, default=None)


def _short(trials: Trials, number: int) -> list[tuple[str, Any]]:
    return [(n, f"{v:.3g}" if isinstance(v, float) else v) for n, v in trials.params[number].items()]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
