"""Why a trial is the best model: as data (`choice.json`), as a page (`choice.md`), and for the terminal.

`best_model` makes the choice and copies the run; this says what it was chosen from, and by what.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from catsweep.export.opinion import Opinion
from catsweep.export.seeds import Seeds
from catsweep.export.selection import Choice
from catsweep.export.trials import Trials
from catsweep.metrics.beside import BESIDE, TITLE, Scores, better, confirmation_table, of_confirmation, table
from steady.printing import Markdown, code, plain
from steady.printing import table as markdown_table


@dataclass(frozen=True)
class Explanation:
    """Of a choice.

    Attributes:
        trials: what there was to choose from.
        choice: what was chosen, and why.
        source: the run folder it was copied from.
        seeds: how the trial does under other seeds.
        opinion: what is known of the trials beside their objectives, above all what the judge says.
        remark: why the study's confirmation does not count; may be empty.
    """

    trials: Trials
    choice: Choice
    source: Path
    seeds: Seeds
    opinion: Opinion
    remark: str = ""

    def sentence(self) -> str:
        """Everything in a few words."""
        remark = f" {self.remark}" if self.remark else ""
        return (
            f"Trial {self.choice.candidate.number} of study {self.trials.study}: {self.choice.reason}. "
            f"Of {len(self.trials.finished)} finished trials, {len(self.trials.front)} are Pareto-optimal.{remark}"
        )

    def second(self) -> str:
        """What the judge says, or how to ask it."""
        return self.opinion.sentence(self.choice.candidate.number)

    def print(self, console: Console) -> None:
        """Print the tables and the sentences."""
        confirmed = self.seeds.confirmation
        rows = {str(number): self.opinion.own.get(number, Scores()).words() for number, _, _ in self.rows()}
        tables = [self.table(), table(TITLE, rows)]
        tables += (
            [confirmed.table(), confirmation_table(confirmed, of_confirmation(confirmed, self.opinion.again))]
            if confirmed
            else []
        )
        for one in filter(None, tables):
            console.print(one)
        for said in filter(None, (self.sentence(), self.seeds.sentence(), self.second())):
            console.print(said, highlight=False, soft_wrap=True)

    def as_dict(self) -> dict[str, Any]:
        """The content of `choice.json`."""
        chosen, confirmed = self.choice.candidate.number, self.seeds.confirmation
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
            "seeds": self.seeds.to_dict(),
            # Only what the choice rests on: the trial that was asked for may not be the confirmed winner.
            **({"confirmation": confirmed.to_dict()} if confirmed and self.seeds.followed else {}),
            **({"remark": self.remark} if self.remark else {}),
            **({"judge": found} if (found := self.opinion.to_dict(chosen)) else {}),
        }

    def as_markdown(self) -> str:
        """The content of `choice.md`."""
        overrides = self.trials.overrides[self.choice.candidate.number]
        front = [
            (_bold(n) if chosen else n, *map(_number, values), *self._beside(n)) for n, values, chosen in self.rows()
        ]
        lines = ["# Why this model", "", plain(self.sentence()), ""]
        lines += [*markdown_table(self.headings(), front, right=True), ""]
        seeds = [[plain(said)] if (said := self.seeds.sentence()) else [], self._confirmed()]
        lines += ["## Under other seeds", "", *(line for part in seeds if part for line in (*part, ""))]
        lines += ["## A second opinion", "", plain(self.second()), ""]
        lines += ["## Its parameters", "", *(f"- {code(f'{key}={text}')}" for key, text in overrides.items())]
        return "\n".join(lines) + "\n"

    def rows(self) -> list[tuple[int, tuple[float, ...], bool]]:
        """The Pareto set, then the chosen trial if it is not in it: number, values, whether it is the chosen one."""
        chosen = self.choice.candidate
        shown = [*self.trials.front, *([] if chosen in self.trials.front else [chosen])]
        return [(c.number, c.values, c == chosen) for c in shown]

    def headings(self) -> list[str]:
        """`trial`, then each objective with an arrow to where it is better, and what is known beside them."""
        objectives = [f"{o.name} {'↑' if o.maximise else '↓'}" for o in self.trials.objectives]
        return ["trial", *objectives, *(f"{name} {better(name)}" for name in self._columns())]

    def table(self) -> Table:
        """The Pareto set for a terminal, the chosen trial marked."""
        table = Table(title=f"Pareto set of {self.trials.study}", title_justify="left")
        for i, heading in enumerate(self.headings()[: 1 + len(self.trials.objectives)]):
            table.add_column(heading, justify="left" if i == 0 else "right")
        table.add_column("parameters", overflow="fold")
        for number, values, chosen in self.rows():
            params = " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in _short(self.trials, number))
            cells = [f"{number} ◀" if chosen else str(number), *map(_number, values), params]
            table.add_row(*cells, style="bold green" if chosen else None)
        return table

    def _confirmed(self) -> list[Markdown]:
        """The confirmed trials as a table."""
        found = self.seeds.confirmation
        if found is None:
            return []
        objectives = self.headings()[1 : 1 + len(self.trials.objectives)]
        beside = of_confirmation(found, self.opinion.again)
        more = [f"{name} {better(name)}" for name in beside]
        headings = ["trial", *(cell for name in objectives for cell in (name, "in the search")), *more, "seeds", ""]
        rows = []
        for one in found.candidates:
            means = [cell for i, value in enumerate(one.searched) for cell in (one.words(i), f"{value:.5g}")]
            role = "winner" if one is found.winner else "not significantly different" if one.trial in found.tied else ""
            number = _bold(one.trial) if one.trial == self.seeds.trial else one.trial
            means += [words.get(one.trial, "") for words in beside.values()]
            rows.append((number, *means, str(len(one.values)), role))
        return markdown_table(headings, rows, right=True)

    def _columns(self) -> list[str]:
        """Names of the scores that any of the rows has beside the objectives."""
        shown = [self.opinion.own[number].beside for number, _, _ in self.rows() if number in self.opinion.own]
        objectives = [o.name for o in self.trials.objectives]
        return [name for name in BESIDE if name not in objectives and any(name in scores for scores in shown)]

    def _beside(self, number: int) -> list[str]:
        scores = self.opinion.own.get(number, Scores()).values
        return [_number(scores[name]) if name in scores else "" for name in self._columns()]

    def _described(self, number: int) -> dict[str, Any]:
        values = next(c.values for c in self.trials.finished if c.number == number)
        names = [o.name for o in self.trials.objectives]
        beside = self.opinion.own.get(number, Scores()).beside
        return {
            "values": dict(zip(names, values, strict=True)),
            **({"beside": beside} if beside else {}),
            "params": self.trials.params[number],
        }


def _short(trials: Trials, number: int) -> list[tuple[str, Any]]:
    texts = trials.overrides[number].values()
    params = trials.params[number].items()
    return [(n, f"{v:.3g}" if isinstance(v, float) else t) for (n, v), t in zip(params, texts, strict=True)]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _bold(number: int) -> Markdown:
    return Markdown(f"**{number}**")
