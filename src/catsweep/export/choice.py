"""Choose the best trial of a study, and copy it to a folder of its own: `python src/best_model.py`.

It has the layout of a run folder, so that `generate` and `export` take it as any run::

    checkpoints/best.ckpt  config.yaml  metrics.json  provenance.json  samples.png     the trial's own
    judge.json                                                                         the judge's scores, if it has any
    choice.json  choice.md                                                             why it was this one
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from catsweep.errors import DataError, ExportError
from catsweep.folders import replacing_folder
from catsweep.metrics import judge
from catsweep.metrics.judge import RunScores, StudyScores, better
from catsweep.ownership import FolderKind
from catsweep.records import require_whole
from catsweep.runs import ANOTHER, BEST_CHECKPOINT, CHOICE, DOCUMENTS, JUDGEMENT, LAST_CHECKPOINT, RunDir
from catsweep.selection import FinishedTrials, Seeds, decide, find_run, read_study_scores, read_trials
from catsweep.templates import with_commands
from steady import printing
from steady.places import check, named
from steady.printing import Markdown, code
from steady.printing import table as markdown_table
from steady.safe_paths import inside
from steady.storage.location import study_folder
from steady.study.select import ScoredTrial, TrialChoice

SAMPLES, EXPLANATION = "samples.png", "choice.md"
RUNNERS_UP = 3  # trials, at most, that are named behind the chosen one; `src/cats.py` trains them on
BEST_MODEL = FolderKind(
    "the best model",
    "out=DIR",
    (*DOCUMENTS, *map(str, (CHOICE, JUDGEMENT, BEST_CHECKPOINT, LAST_CHECKPOINT)), EXPLANATION, SAMPLES),
    sign=str(CHOICE),
    later=("generated_*.png", "interpolation*.png", "reconstructions.png", "attribute_*.png"),  # of generate.py
)


def run(cfg: DictConfig) -> Path:
    """Choose the best trial, copy its run to the folder that is returned, and print why; see `conf/best_model.yaml`.

    Raises:
        ExportError: there is no study, no finished trial, no judged one to select by the judge, or no run folder.
        ConfigError: `select` means nothing for this study.
        PlaceError: `out` cannot be written.
    """
    # A study may be called 2026, which the command line reads as a number.
    folder = study_folder(Path(cfg.sweeps), None if cfg.study is None else str(cfg.study), cfg.get("storage"))
    runs = Path(cfg.outputs) / folder.name
    trials = read_trials(folder, runs)
    decision = decide(cfg.select, trials, folder, runs)
    chosen, remark = decision.choice.candidate, decision.remark
    source = find_run(runs, chosen, trials.objectives, trials.folders.get(chosen.number))
    others = runners_up(trials, decision.choice, runs)
    found = read_study_scores(trials, runs, [chosen.number])
    if (source / JUDGEMENT).exists() and judge.run_scores(source, runs).judged is None:
        left = f"What the judge said of it is left out: {JUDGEMENT} in {source} is damaged, or of other scores."
        remark = f"{remark} {left} {judge.COMMAND}.".strip()
    explanation = Explanation(trials, decision.choice, source, decision.seeds, found, remark, others)
    target = Path(cfg.out)
    for place in (target, target.parent):  # a file there is not a best model of before, and stays
        check(place, cfg)
    copy_run(source, target, explanation)
    console = printing.console()
    explanation.print(console)
    console.print(f"Copied to {target}.", highlight=False, soft_wrap=True)
    return target


def runners_up(trials: FinishedTrials, choice: TrialChoice, runs: Path) -> dict[ScoredTrial, Path]:
    """Find the run folders of the best other configurations by the objective that has chosen, or the first.

    Those whose folder is not there are left out.
    """
    others = [one for one in trials.finished if one.number in trials.ranked and one != choice.candidate]
    axis = choice.objective or 0
    found: dict[ScoredTrial, Path] = {}
    for trial in sorted(others, key=lambda one: (one.losses(trials.objectives)[axis], one.number)):
        with suppress(ExportError):
            found[trial] = find_run(runs, trial, trials.objectives, trials.folders.get(trial.number))
        if len(found) == RUNNERS_UP:
            break
    return found


def copy_run(source: Path, target: Path, explanation: "Explanation") -> None:
    """Copy the files of a run, and the explanation of its choice; all of it, or nothing.

    Raises:
        ExportError: the run folder lacks a part, or has one that is a link out of it.
        TakenError: the target is something that catsweep did not make.
    """
    run = RunDir(source)
    checkpoint = BEST_CHECKPOINT.with_stem(run.scored_checkpoint())
    parts = [Path(name) for name in DOCUMENTS] + [checkpoint]
    if missing := [str(part) for part in parts if not (source / part).is_file()]:
        raise ExportError(
            f"The run folder {source} of the chosen trial lacks {', '.join(missing)}. "
            f"Choose another trial with select=NUMBER, or train this one again."
        )
    page = run.grid("samples", run.metrics().epoch)  # training may have gone on after it, for the worse
    drawn = [] if page is None else [page.relative_to(source)]
    if away := [str(part) for part in (*parts, *drawn) if not inside(source, source / part)]:
        raise ExportError(
            f"In the run folder {source} of the chosen trial, {', '.join(away)} is a link to a file outside. "
            f"Put the file itself there, or choose another trial with select=NUMBER."
        )
    if judge.run_scores(source).judged is not None:
        parts.append(JUDGEMENT)
    try:
        require_whole(source / checkpoint)
    except DataError as error:
        raise ExportError(f"{error} {ANOTHER}") from error
    with named(target), replacing_folder(target, BEST_MODEL) as folder:
        for part in parts:
            (folder / part).parent.mkdir(exist_ok=True)
            shutil.copy2(source / part, folder / part)
        if page is not None:
            shutil.copy2(page, folder / SAMPLES)
        (folder / CHOICE).write_text(json.dumps(explanation.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / EXPLANATION).write_text(explanation.as_markdown(), encoding="utf-8")


@dataclass(frozen=True)
class Explanation:
    """Explanation of a choice."""

    trials: FinishedTrials  # what there was to choose from
    choice: TrialChoice  # what was chosen, and why
    source: Path  # the run folder it was copied from
    seeds: Seeds  # the trial under other seeds
    opinion: StudyScores  # what is known of the trials beside their objectives, above all what the judge says
    remark: str = ""  # why the study's confirmation does not count; may be empty
    runners_up: Mapping[ScoredTrial, Path] = field(
        default_factory=dict
    )  # run folders of the best others, see `runners_up`

    def print(self, console: Console) -> None:
        """Print the tables and the sentences."""
        confirmed = self.seeds.confirmation
        rows = {str(number): self._scores(number).words() for number, _, _ in self._rows()}
        tables = [self._table(), judge.table(judge.TITLE, rows)]
        if confirmed:
            beside = judge.of_confirmation(confirmed, self.opinion.again)
            tables += [confirmed.table(), judge.confirmation_table(confirmed, beside)]
        for part in filter(None, (*tables, self._sentence(), self.seeds.sentence(), self._second())):
            console.print(part, highlight=False, soft_wrap=isinstance(part, str))

    def as_dict(self) -> dict[str, Any]:
        """Convert to the content of `choice.json`."""
        chosen, confirmed = self.choice.candidate, self.seeds.confirmation
        return {
            "study": self.trials.study,
            "trial": chosen.number,
            "selected_by": self.choice.reason,
            "run": self.source.as_posix(),
            "objectives": [
                {"name": o.name, "direction": "maximize" if o.maximise else "minimize"} for o in self.trials.objectives
            ],
            **self._described(chosen),
            "runners_up": [
                {"trial": one.number, "run": run.as_posix(), "values": self._values(one)}
                for one, run in self.runners_up.items()
            ],
            "pareto_set": [{"trial": c.number, **self._described(c)} for c in self.trials.front],
            "finished_trials": len(self.trials.finished),
            "seeds": self.seeds.to_dict(),
            # Only what the choice rests on: the trial that was asked for may not be the confirmed winner.
            **({"confirmation": confirmed.to_dict()} if confirmed and self.seeds.followed else {}),
            **({"remark": self.remark} if self.remark else {}),
            **({"judge": found} if (found := self.opinion.to_dict(chosen.number)) else {}),
        }

    def as_markdown(self) -> str:
        """Compose the content of `choice.md`."""
        overrides = self.trials.overrides[self.choice.candidate.number]
        front = [
            (_bold(n) if chosen else n, *map(_number, values), *self._beside(n)) for n, values, chosen in self._rows()
        ]
        lines = ["# Why this model", "", with_commands(self._sentence()), ""]
        lines += [*markdown_table(self._headings(), front, right=True), ""]
        lines += ["## Under other seeds", ""]
        lines += [with_commands(said), ""] if (said := self.seeds.sentence()) else []
        lines += [*confirmed, ""] if (confirmed := self._confirmed()) else []
        lines += ["## A second opinion", "", with_commands(self._second()), ""]
        lines += ["## Its parameters", "", *(f"- {code(f'{key}={text}')}" for key, text in overrides.items())]
        return "\n".join(lines) + "\n"

    def _sentence(self) -> str:
        remark = f" {self.remark}" if self.remark else ""
        verb = "is" if len(self.trials.front) == 1 else "are"
        return (
            f"Trial {self.choice.candidate.number} of study {self.trials.study}: {self.choice.reason}. "
            f"Of {len(self.trials.finished)} finished trials, {len(self.trials.front)} {verb} Pareto-optimal.{remark}"
        )

    def _second(self) -> str:
        return self.opinion.sentence(self.choice.candidate.number)

    def _rows(self) -> list[tuple[int, tuple[float, ...], bool]]:
        """List the Pareto set, and the chosen trial if it is not in it: number, values, whether it is chosen."""
        chosen = self.choice.candidate
        return [(c.number, c.values, c == chosen) for c in dict.fromkeys((*self.trials.front, chosen))]

    def _headings(self) -> list[str]:
        """List the columns: `trial`, the objectives with arrows to where they are better, and scores beside them."""
        objectives = [f"{o.name} {'↑' if o.maximise else '↓'}" for o in self.trials.objectives]
        return ["trial", *objectives, *(f"{name} {better(name)}" for name in self._columns())]

    def _table(self) -> Table:
        """Tabulate the Pareto set for a terminal, the chosen trial marked."""
        table = Table(title=f"Pareto set of {self.trials.study}", title_justify="left")
        for i, heading in enumerate(self._headings()[: 1 + len(self.trials.objectives)]):
            table.add_column(heading, justify="left" if i == 0 else "right")
        table.add_column("parameters", overflow="fold")
        for number, values, chosen in self._rows():
            drawn = zip(self.trials.params[number].items(), self.trials.overrides[number].values(), strict=True)
            params = " ".join(
                f"{name.rpartition('.')[2]}={f'{value:.3g}' if isinstance(value, float) else text}"
                for (name, value), text in drawn
            )
            cells = [f"{number} ◀" if chosen else str(number), *map(_number, values), params]
            table.add_row(*cells, style="bold green" if chosen else None)
        return table

    def _confirmed(self) -> list[Markdown]:
        """Tabulate the confirmed trials."""
        found = self.seeds.confirmation
        if found is None:
            return []
        objectives = self._headings()[1 : 1 + len(self.trials.objectives)]
        beside = judge.of_confirmation(found, self.opinion.again)
        more = [f"{name} {better(name)}" for name in beside]
        headings = ["trial", *(cell for name in objectives for cell in (name, "in the search")), *more, "seeds", ""]
        rows = []
        for one in found.candidates:
            means = [cell for i, value in enumerate(one.searched) for cell in (one.words(i), f"{value:.5g}")]
            role = "winner" if one is found.winner else "not significantly different" if one.trial in found.tied else ""
            number = _bold(one.trial) if one.trial == self.seeds.trial else one.trial
            means += [words.get(one.trial, "") for words in beside.values()]
            rows.append((number, *means, len(one.values), role))
        return markdown_table(headings, rows, right=True)

    def _columns(self) -> list[str]:
        """Names of the scores that any of the rows has beside the objectives."""
        shown = {name for number, _, _ in self._rows() for name in self._scores(number).beside}
        objectives = [o.name for o in self.trials.objectives]
        return [name for name in judge.BESIDE if name in shown and name not in objectives]

    def _scores(self, number: int) -> RunScores:
        return self.opinion.own.get(number, RunScores())

    def _beside(self, number: int) -> list[str]:
        scores = self._scores(number).values
        return [_number(scores[name]) if name in scores else "" for name in self._columns()]

    def _values(self, trial: ScoredTrial) -> dict[str, float]:
        return dict(zip((o.name for o in self.trials.objectives), trial.values, strict=True))

    def _described(self, candidate: ScoredTrial) -> dict[str, Any]:
        beside = self._scores(candidate.number).beside
        return {
            "values": self._values(candidate),
            **({"beside": beside} if beside else {}),
            "params": self.trials.params[candidate.number],
        }


def _number(value: float) -> str:
    return f"{value:.4g}"


def _bold(number: int) -> Markdown:
    return Markdown(f"**{number}**")
