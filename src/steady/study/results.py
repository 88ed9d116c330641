"""Results of a study: `optimization_results.yaml`, `leaderboard.csv`, a table on the terminal.

All are made from the study, atomically: after each trial of a small study, in at most 0.5 % of the time of a large one
(`steady.run.scheduler`), and always at the end. So a running sweep can be read at any moment, also one that several
controllers drive.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steady import grammar, printing
from steady.atomic import write_text
from steady.printing import escaped
from steady.study import constraints, meta, select
from steady.study.failures import Kind, headline

RESULTS = "optimization_results.yaml"
LEADERBOARD = "leaderboard.csv"
# Columns of the leaderboard between "attempts" and the parameters, and where they are on a trial.
TOLD = {"duplicate_of": meta.DUPLICATE_OF, "log": meta.LOG, "message": meta.MESSAGE}
SHOWN = ("cpu_seconds", "samples")  # amounts that the table on the terminal has columns of, where they are known
MOST = 1e18  # of an amount
UNEVEN = 1.3  # ratio of two quarters' shares of the processor, above which trials have had unequal chances
LEAST = 4  # trials to compare
WORDS = {Kind.COMPLETE.value: "finished", "fail": Kind.FAILED.value}  # states, as the summary calls them


class ExtraScores(Protocol):
    """Scores of runs beside the objectives, read from the run folders; named by `hydra.sweeper.extra_scores`.

    A run folder may be a stranger's, damaged or missing: then it has no scores, and nothing is raised.
    """

    names: Sequence[str]  # of all scores there may be, in the order of columns

    def read(self, runs: Mapping[int, Path], within: Path) -> Mapping[int, Mapping[str, float]]:
        """Read the scores of runs by number. Their files may not lead out of the folder `within`."""

    def table(self, runs: Mapping[int, Path], within: Path, best: Collection[int]) -> Table | None:
        """Make a table for a terminal of the trials that are worth a row; None without any."""

    def confirmed(self, found: Any, runs: Mapping[int, Mapping[int, Path]], within: Path) -> Table | None:
        """Make a table of the runs by trial and seed that confirm a winner; `found` is a `Confirmation`."""


def write_results(study: optuna.Study, folder: Path) -> None:
    """Write `optimization_results.yaml` into a folder, as hydra-optuna-sweeper does.

    With no finished trial the best value is null, or the list of solutions is empty.

    >>> study = optuna.create_study()
    >>> study.add_trial(optuna.trial.create_trial(value=0.5))
    >>> write_results(study, Path("sweep"))
    >>> OmegaConf.load("sweep/optimization_results.yaml").best_value
    0.5
    """
    _write(folder / RESULTS, lambda: _results(study))


def write_leaderboard(
    study: optuna.Study,
    path: Path,
    objective: Sequence[str],
    runs: Path | None = None,
    extra: ExtraScores | None = None,
) -> None:
    """Write a CSV file with a row per trial, the best first.

    `objective` are names, or none for `value`, or `value 0`, `value 1`, …. What `extra` reads in the folders in `runs`
    beside them has columns of its own.

    >>> study = optuna.create_study()
    >>> study.add_trial(optuna.trial.create_trial(value=0.5))
    >>> write_leaderboard(study, Path("leaderboard.csv"), ["loss"])
    >>> Path("leaderboard.csv").read_text().splitlines()[0]
    'trial,state,loss,seconds,attempts,duplicate_of,log,message'
    """
    _write(path, lambda: _leaderboard(study, objective, runs, extra))


def print_table(
    study: optuna.Study,
    objective: Sequence[str],
    console: Console | None = None,
    runs: Path | None = None,
    extra: ExtraScores | None = None,
) -> None:
    """Print the trials, Pareto-optimal ones with a star, and below each distinct failure once.

    >>> print_table(optuna.create_study(study_name="cats"), ["loss"])  # doctest: +ELLIPSIS
         cats: 0 trials, * best
    ...
    """
    console = console or printing.console()
    trials, exact = select.ranked(study), meta.has(study, meta.SPELLING)
    best = {trial.number for trial in select.best_trials(study, trials)}
    directions = study.directions
    mark = "* best" if len(directions) == 1 else "* Pareto-optimal"
    # All as plain text: a list of choices, [color,translation], would be taken for markup.
    table = Table(title=_text(f"{study.study_name}: {_count(len(trials), 'trial')}, {mark}"))
    used = {trial.number: usage(trial) for trial in trials}
    amounts = [name for name in SHOWN if any(name in own for own in used.values())]
    for name in ("trial", *select.objective_names(study, objective), "seconds", *amounts):
        table.add_column(_text(name.replace("_", " ") if name in amounts else name), justify="right")
    table.add_column("parameters", overflow="fold")
    for trial in trials:
        unfinished = [state(trial)] + [""] * (len(directions) - 1)
        values = [f"{v:.4g}" for v in trial.values] if trial.state == TrialState.COMPLETE else unfinished
        words = "  ".join(f"{k.rsplit('.', 1)[-1]}={_short(v, exact)}" for k, v in trial.params.items())
        star = "*" if trial.number in best else " "
        more = [f"{own[name]:.0f}" if name in (own := used[trial.number]) else "" for name in amounts]
        table.add_row(f"{star}{trial.number}", *map(_text, values), str(_rounded(trial)), *more, _text(words))
    console.print(table)
    if extra is not None and runs is not None and (beside := extra.table(_runs(trials, runs), runs, best)) is not None:
        console.print(beside)
    if remark := uneven(study):
        console.print(_text(remark))
    for (kind, message), failed in _failures(trials).items():
        they = printing.trials(trial.number for trial in failed)
        log = meta.get(failed[0], meta.LOG)
        where = f" (log: {log})" if log else ""
        console.print(_text(f"{kind}, {they}: {message}{where}"))


def summary(study: optuna.Study, objective: Sequence[str]) -> str:
    """Summarize in a line how many trials ended how, and the best.

    >>> study = optuna.create_study()
    >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (0.5, 0.25)])
    >>> summary(study, ["loss"])
    '2 trials: 2 finished; best loss 0.25 (trial 1)'
    """
    trials = study.get_trials(deepcopy=False)
    counts = Counter(WORDS.get(state(trial), state(trial)) for trial in trials)
    order = [WORDS.get(kind.value, kind.value) for kind in Kind]  # others, running and waiting ones, behind them
    names = sorted(counts, key=lambda name: (order.index(name) if name in order else len(order), name))
    how = ", ".join(f"{counts[name]} {name}" for name in names)
    best = best_words(study, objective, trials)
    said = f"; best {best}" if best else ""
    if not best and Kind.INFEASIBLE.value in counts:
        said = f"; none satisfies {', '.join(map(str, constraints.of(study)))}"
    return f"{_count(len(trials), 'trial')}{f': {how}' if how else ''}{said}"


def best_words(study: optuna.Study, objective: Sequence[str], among: Sequence[FrozenTrial] | None = None) -> str:
    """Describe the best finished trial by the first objective, of all or `among` some; empty without one.

    >>> study = optuna.create_study()
    >>> study.add_trial(optuna.trial.create_trial(value=0.5))
    >>> best_words(study, [])
    'value 0.5 (trial 0)'
    """
    best = select.best_trials(study, among)
    if not best:
        return ""
    values = ", ".join(
        f"{n} {v:.4g}" for n, v in zip(select.objective_names(study, objective), best[0].values, strict=True)
    )
    return f"{values} (trial {best[0].number})"


def state(trial: FrozenTrial) -> str:
    """Get how a trial ended, in a word: its outcome (see `steady.study.failures.Kind`), or Optuna's state.

    >>> state(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={meta.OUTCOME: "timed out"}))
    'timed out'
    """
    if meta.paused_at(trial) is not None:
        return str(Kind.PAUSED)
    told = meta.get(trial, meta.OUTCOME)
    # One that goes on still carries how its last attempt ended. Of a controller killed between telling the outcome
    # and ending the trial there may even be "complete" on one that is not.
    known = {
        TrialState.PRUNED: list(Kind),
        TrialState.FAIL: list(Kind),
        TrialState.COMPLETE: [Kind.INFEASIBLE],
        TrialState.WAITING: [Kind.LOST, Kind.INTERRUPTED, Kind.DISK_FULL],
    }
    if told in known.get(trial.state, []) and told != Kind.COMPLETE:
        return str(told)
    return trial.state.name.lower()


def paused_words(trials: Iterable[FrozenTrial]) -> str:
    """Describe how many trials are paused, and at which rungs; empty if none is.

    >>> noted = {meta.ATTEMPT: 0, meta.PAUSED: {"rung": 3, "attempt": 0}}
    >>> paused_words([optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=noted)] * 2)
    '2 trials are paused (2 at rung 3)'
    """
    rungs = Counter(rung for trial in trials if (rung := meta.paused_at(trial)) is not None)
    where = ", ".join(f"{rungs[rung]} at rung {rung}" for rung in sorted(rungs, reverse=True))
    return f"{_count(n, 'trial')} {'is' if n == 1 else 'are'} paused ({where})" if (n := rungs.total()) else ""


def seconds(trial: FrozenTrial) -> float | None:
    """Get how long a trial ran, over all its attempts; None if that is not known.

    >>> seconds(optuna.trial.create_trial(value=1.0, user_attrs={meta.RUNS: [{"start": 10, "end": 15.5}]}))
    5.5
    """
    if runs := meta.get(trial, meta.RUNS):
        return float(sum(run["end"] - run["start"] for run in runs))
    return None if trial.duration is None else trial.duration.total_seconds()


def usage(trial: FrozenTrial) -> dict[str, float]:
    """Get what a trial's task says that it has used (`TrialReporter.note_usage`), over all its attempts.

    >>> usage(optuna.trial.create_trial(value=1.0, user_attrs={meta.USAGE: {"samples": 640, "unit": "samples"}}))
    {'samples': 640}
    """
    noted = meta.get(trial, meta.USAGE)
    found = noted if isinstance(noted, dict) else {}  # a study may be a stranger's
    return {str(name): value for name, value in found.items() if type(value) in (int, float) and 0 <= value < MOST}


def uneven(study: optuna.Study) -> str:
    """Say so if finished trials had the same time, and very unequal shares of the processor; else an empty text.

    Two quarters of them are compared: those that the machine worked most for, and least, in a second.
    """
    shares = sorted(
        own["cpu_seconds"] / own["seconds"]
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if (own := usage(trial)).get("seconds", 0) > 0 and own.get("cpu_seconds", 0) > 0 and _unit(trial) == "seconds"
    )
    quarter = len(shares) // LEAST
    if not quarter:
        return ""
    least, most = (sum(part) / quarter for part in (shares[:quarter], shares[-quarter:]))
    if most <= UNEVEN * least:
        return ""
    return (
        f"Trials had the same time, but not the same of the machine: the best served quarter {most:.2f} processor "
        f"seconds a second, the worst {least:.2f}. If it was busy with other things, some have trained less than "
        "others, and their scores compare badly; a budget of samples or of processor seconds is the same for all."
    )


def _unit(trial: FrozenTrial) -> Any:
    noted = meta.get(trial, meta.USAGE)
    return noted.get("unit") if isinstance(noted, dict) else None


def _results(study: optuna.Study) -> str:
    front = sorted(select.best_trials(study), key=lambda trial: trial.number)  # as upstream's list
    if len(study.directions) == 1:
        params, value = (front[0].params, front[0].value) if front else ({}, None)
        best: dict[str, Any] = {"best_params": params, "best_value": value}
    else:
        best = {"solutions": [{"params": trial.params, "values": trial.values} for trial in front]}
    return OmegaConf.to_yaml(OmegaConf.create({"name": "optuna", **best}))


def _leaderboard(study: optuna.Study, objective: Sequence[str], runs: Path | None, extra: ExtraScores | None) -> str:
    trials, exact = select.ranked(study), meta.has(study, meta.SPELLING)
    names = select.objective_names(study, objective)
    parameters = sorted({name for trial in trials for name in trial.params})
    folders = [meta.get(trial, meta.FOLDER, str(trial.number)) for trial in trials]
    named = ["folder"] if any(meta.has(trial, meta.FOLDER) for trial in trials) else []
    scores = extra.read(_runs(trials, runs), runs) if extra is not None and runs is not None else {}
    there = {name: None for own in scores.values() for name in own if name not in objective}
    columns = [name for name in (extra.names if extra is not None else ()) if name in there]
    noted = [constraints.noted(trial) for trial in trials]
    values_noted = sorted({name for own in noted for name in own} - {*names, *columns})
    used = {trial.number: usage(trial) for trial in trials}
    amounts = sorted({name for own in used.values() for name in own} - {"seconds"})
    text = io.StringIO()
    table = csv.writer(text)
    rungs = (meta.get(study, meta.PROMOTION) or {}).get("rungs", [])
    where = ["rung"] if rungs else []
    header = ["trial", "state", *where, *names, *values_noted, *columns, "seconds", *amounts, "attempts"]
    header += [*TOLD, *named, *parameters]
    table.writerow([escaped(name) for name in header])
    for trial, folder, own in zip(trials, folders, noted, strict=True):
        values = trial.values if trial.state == TrialState.COMPLETE else [""] * len(names)
        attempt = meta.get(trial, meta.ATTEMPT)
        notes = ["" if attempt is None else attempt + 1, *(meta.get(trial, key, "") for key in TOLD.values())]
        notes += [folder] if named else []
        drawn = [_cell(trial.params[name], exact) if name in trial.params else "" for name in parameters]
        more = [scores.get(trial.number, {}).get(name, "") for name in columns]
        values = [*values, *(own.get(name, "") for name in values_noted)]
        spent = [round(used[trial.number][name], 1) if name in used[trial.number] else "" for name in amounts]
        reached = [step for step in rungs if str(step) in meta.get(trial, meta.RUNGS, {})]
        whole = trial.state == TrialState.COMPLETE and not meta.has(trial, meta.DUPLICATE_OF)
        rung = [rungs[-1] if whole else max(reached, default="")] if rungs else []
        cells = [trial.number, state(trial), *rung, *values, *more, _rounded(trial), *spent, *notes, *drawn]
        table.writerow([escaped(cell) for cell in cells])
    return text.getvalue()


def _runs(trials: Sequence[FrozenTrial], folder: Path) -> dict[int, Path]:
    """Find the folders of finished trials by number; one that took the values of another has no own folder."""
    by_number = {trial.number: trial for trial in trials}
    found = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            twin = meta.get(trial, meta.DUPLICATE_OF)
            own = by_number.get(twin, trial) if isinstance(twin, int) else trial
            found[trial.number] = folder / str(meta.get(own, meta.FOLDER, own.number))
    return found


def _failures(trials: Sequence[FrozenTrial]) -> dict[tuple[str, str], list[FrozenTrial]]:
    """Group the failed and the infeasible trials by kind and first line of the message."""
    found: dict[tuple[str, str], list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        kind = state(trial)
        ended = trial.state in (TrialState.FAIL, TrialState.PRUNED) and kind != Kind.PRUNED
        if ended or kind == Kind.INFEASIBLE:
            found.setdefault((kind, headline(meta.get(trial, meta.MESSAGE, ""))), []).append(trial)
    return found


def _rounded(trial: FrozenTrial) -> int | str:
    known = seconds(trial)
    return "" if known is None else round(known)


def _short(value: Any, exact: bool) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(_cell(value, exact))


def _cell(value: Any, exact: bool) -> Any:
    """Format a parameter's value, null and strings as Hydra takes them: an empty cell is no parameter.

    `exact`: the study tells strings from other values (`meta.SPELLING`).
    """
    return grammar.as_text(value) if value is None or (exact and isinstance(value, str)) else value


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _text(words: str) -> Text:
    return Text(_encodable(words))


def _encodable(text: str) -> str:
    """Escape lone surrogates, which messages about strange file names hold, and which no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write(path: Path, content: Callable[[], str]) -> None:
    """Replace a file by what the study holds now.

    Another controller may write the same file meanwhile. Reading the study once more after writing makes sure that an
    older content never stays in the place of a newer one.
    """
    text, written = _encodable(content()), None
    while text != written:
        write_text(path, text)
        text, written = _encodable(content()), text
