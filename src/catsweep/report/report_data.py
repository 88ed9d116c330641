"""Collect what a report says of a study: the winner, importances, timeline, judge, images and commands to repeat it."""

import re
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from catsweep.data.ready import find_ready_set
from catsweep.errors import DataError, ExportError
from catsweep.grids import Images
from catsweep.metrics.judge import BESIDE, FID, JUDGED, RunScores, better
from catsweep.report import sample_images
from catsweep.report.exported import Exported
from catsweep.report.formatting import counted, shown
from catsweep.report.optuna_plots import OptunaPlot, optuna_plots
from catsweep.report.report_charts import StudyCharts, Timeline, timeline
from catsweep.runs import RunDir
from catsweep.selection import FinishedTrials, Seeds, decide, read_trials
from catsweep.study_record import Entry, Importance, StudyRecord, importances, read
from steady import grammar
from steady.confirm.confirmation import Confirmation
from steady.printing import readable
from steady.storage.location import open_study
from steady.study.select import TrialChoice
from steady.study.untrusted import SCRIPT, is_plain

SHOWN = 36  # of the winner's samples, and of the real cats beside them
SWEPT = ("study", "trials")  # keys of a sweep that a single run does not take
OF_SWEEP = re.compile(r"-|\+*(study|trials|hydra)\b")  # words likewise
THREADS = "trainer.threads"
COLUMNS = (FID, *BESIDE, "judge/copied")  # of the judge's table
SEED_SAMPLES = 16  # of each run under another seed
SEED_TRIALS = 5  # confirmed trials whose samples are shown


@dataclass(frozen=True)
class Winner:
    """The winning trial."""

    trials: FinishedTrials | None = None  # candidates; None if no trial has finished
    choice: TrialChoice | None = None  # the winner; None if no trial has finished
    seeds: Seeds | None = None  # its scores under other seeds, as far as known; None if no trial has finished
    remark: str = ""  # why the confirmation is ignored, or why there is no winner; may be empty

    @property
    def number(self) -> int | None:
        """Number of the trial."""
        return self.choice.candidate.number if self.choice else None

    @property
    def confirmed(self) -> Confirmation | None:
        """The comparison under other seeds, also where the choice does not follow it."""
        return self.seeds.confirmation if self.seeds else None

    def role(self, number: int) -> str:
        """Compare a confirmed trial with the winner, in words; empty if the winner is not confirmed."""
        if number == self.number:
            return "winner"
        if self.seeds is None or self.seeds.own is None:
            return ""
        return f"{'not ' * (number in self.seeds.not_different_from(0))}significantly different"

    @property
    def front(self) -> tuple[int, ...]:
        """Numbers of the Pareto-optimal trials, best first by the first objective."""
        return tuple(candidate.number for candidate in self.trials.front) if self.trials else ()


class Reproduction(NamedTuple):
    """Commands that repeat a study."""

    sweep: str  # command of the sweep; empty if unknown
    exact: bool  # whether it was recorded; else it is composed of what the study keeps
    winner: str  # command that trains the winner alone; empty without one
    commit: str  # of the code; empty if unknown


class JudgedTrial(NamedTuple):
    """A trial in the judge's table."""

    trial: int  # its number
    role: str  # `winner`, `Pareto-optimal` or `confirmed`
    cells: tuple[tuple[str, str], ...]  # by column: score in the search, mean ± deviation over seeds; may be empty


@dataclass(frozen=True)
class SeedSamples:
    """Samples of one run of a confirmed trial."""

    seed: int | None  # of the run; None for the run of the search
    images: Images  # uint8 (N, side, side, 3), N at least 1
    words: str  # scores of the run

    @property
    def name(self) -> str:
        """Name of the run: `the search`, `seed 1`."""
        return "the search" if self.seed is None else f"seed {self.seed}"


@dataclass(frozen=True)
class SecondOpinion:
    """Scores by the judge, and confirmed trials under each seed."""

    sentence: str  # whether the judge agrees with the choice, or how to run it
    columns: tuple[str, ...]  # labels of the table's scores, with arrows to where they are better
    rows: tuple[JudgedTrial, ...]  # the winner, confirmed and Pareto-optimal trials; empty if nothing was judged
    photos: tuple[str, ...]  # scores of real photos in the place of samples, by column; empty if unknown
    seeds: dict[int, tuple[SeedSamples, ...]]  # runs by confirmed trial, the best mean first


@dataclass(frozen=True)
class ReportData:
    """The content of a report."""

    record: StudyRecord  # the study
    winner: Winner  # the winning trial
    importances: list[Importance]  # of the parameters, for each objective
    timeline: Timeline | None  # None if no time is known
    reproduction: Reproduction  # commands that repeat the study
    samples: Images  # the winner's, uint8 (N, side, side, 3); N may be 0
    real: Images  # as many real cats of the same size; N may be 0
    reconstructions: Images | None  # held-out photos above their reconstructions, uint8 (H, W, 3), or None
    photos: str  # number and digest of the photos, in words
    exported: Exported | None  # what `src/cats.py` has made of the study, if it has
    drawn: Images  # samples of that model, as `samples`
    plots: tuple[OptunaPlot, ...] = ()  # Optuna's own plots; may be none
    second: SecondOpinion | None = None  # the judge's opinion; None if no trial has finished

    @property
    def names(self) -> list[str]:
        """Parameters by importance for the first objective."""
        return _by_importance(self.record, self.importances)

    @property
    def best(self) -> Entry | None:
        """The winner's trial; None if no trial has finished."""
        return next((trial for trial in self.record.trials if trial.number == self.winner.number), None)

    @property
    def charts(self) -> StudyCharts:
        """Charts of the scores."""
        return StudyCharts(self.record, self.winner.front, self.winner.number)

    @property
    def reason(self) -> str:
        """Why the winner was chosen; empty without one."""
        return self._labelled(self.winner.choice.reason if self.winner.choice else "")

    @property
    def doubt(self) -> str:
        """How much the winner varies over seeds, or how to find out; empty if `reason` says so."""
        return self._labelled(self.winner.seeds.sentence() if self.winner.seeds else "")

    @property
    def judged(self) -> str:
        """Whether the judge agrees, or how to run it; empty if no trial has finished."""
        return self._labelled(self.second.sentence if self.second else "")

    @property
    def before_and_after(self) -> list[tuple[str, str, str]]:
        """Rows on the exported model: label of a score, its value in the search and trained on; may be empty."""
        if self.exported is None:
            return []
        before, after = self.exported.before, self.exported.after
        names = dict.fromkeys([*(one.name for one in self.record.objectives), *BESIDE])
        return [
            (
                f"{self.record.label(name)} {better(name)}",
                shown(before[name]) if name in before else "",
                shown(after[name]) if name in after else "",
            )
            for name in names
            if name in before or name in after
        ]

    @property
    def budget(self) -> str:
        """Budget of each trial; empty if unknown."""
        config = self.record.contract.get("config") or {}
        minutes, samples, epochs = (config.get(key) for key in ("minutes", "samples", "epochs"))
        processor = " of processor time" if config.get("budget_unit") == "cpu_seconds" else ""
        bounds = [f"{shown(minutes)} min{processor}"] if minutes else []
        bounds += [counted(samples, "image")] if isinstance(samples, int) else []
        bounds += [counted(epochs, "epoch")] if isinstance(epochs, int) else []
        both = ", whichever ends first" if len(bounds) > 1 else ""
        return f"{' or '.join(bounds)} of training each{both}" if bounds else ""

    @property
    def trials(self) -> str:
        """Number of trials that the search may have, or had when its time was over."""
        n, total = len(self.record.trials), max(self.record.total or 0, len(self.record.trials))
        ended = n - len(self.record.named("waiting"))
        if self.record.out_of_time and ended < total:
            return f"{counted(ended, 'trial')} until its time was over, of {total:,} at most"
        return counted(total, "trial")

    @property
    def pruned_by(self) -> str:
        """Rung metrics and the pruner's name; empty without pruning."""
        pruning = self.record.pruning or {}
        pruner = pruning.get("pruner")
        name = str(pruner.get("_target_", "")).rpartition(".")[2] if isinstance(pruner, dict) else ""
        return readable(", ".join(word for word in (*self._scores(pruning), name) if word))

    @property
    def promoted_by(self) -> str:
        """Rung metrics, how many go on, and from where; empty without promotion."""
        promotion = self.record.promotion or {}
        rungs, eta, scores = promotion.get("rungs"), promotion.get("eta"), self._scores(promotion)
        if not isinstance(rungs, list) or len(rungs) < 2 or type(eta) not in (int, float) or not scores:
            return ""
        *pausing, last = map(str, rungs)
        at = f"{'rung' if len(pausing) == 1 else 'each of the rungs'} {', '.join(pausing)}"
        return readable(f"{', '.join(scores)}; one of {eta:g} goes on from {at} to {last}")

    def _scores(self, judging: Mapping[str, Any]) -> list[str]:
        return [self.record.label(str(score)) for score in judging.get("metrics") or []]

    @property
    def unfinished(self) -> str:
        """A sentence of what is still to come; empty if the study is complete, or its time is over."""
        record, n = self.record, len(self.record.trials)
        total, running = max(record.total or 0, n), record.named("running")
        waiting = [*record.named("waiting"), *record.named("paused")]
        open_ones = len(running) + len(waiting)
        if running or ((waiting or n < total) and not record.out_of_time):
            under_way = f", and {open_ones} {'is' if open_ones == 1 else 'are'} under way" if open_ones else ""
            return f"Of {counted(total, 'trial')}, {n - open_ones} have ended{under_way}."
        if any(run.role in ("running", "waiting") for run in record.confirmations):
            return "The search is, and its best are being trained again under other seeds."
        return ""

    def _labelled(self, said: str) -> str:
        """Add its extractor to each score in a sentence, but not in a command at its end."""
        names = [*(objective.name for objective in self.record.objectives), FID, JUDGED]
        labels = {name: self.record.label(name) for name in names}
        text, start, command = said.partition("python src/")
        return readable(re.sub(r"[^\s,;:]+", lambda word: labels.get(word[0], word[0]), text) + start + command)


def collect(folder: Path, runs: Path, ready: Path, select: str | int | None = None, plotly: bool = True) -> ReportData:
    """Collect the content of a study's report from its folder, and the folders of its runs and of ready sets.

    Args:
        folder: of the study.
        runs: need not exist.
        ready: need not exist.
        select: rule of choosing the winner, see `catsweep.selection.decide`; None for the first objective.
        plotly: whether to draw Optuna's own plots.

    Raises:
        ConfigError: `select` means nothing for this study.
        ExportError: there is no such study, or `select` is the number of no finished trial, or none was judged.
    """
    study = open_study(folder)
    winner = pick_winner(select, folder, runs)
    record = read(study, runs, winner.trials.objectives if winner.trials else None)
    best = next((trial for trial in record.trials if trial.number == winner.number), None)
    run = best.run if best else None
    digest = (record.contract.get("facts") or {}).get("data") or _digest(run)  # of a sweep without a preflight
    found = find_ready_set(None if digest is None else str(digest), [ready])
    important = importances(study)
    samples = sample_images.samples(run)[:SHOWN]
    exported = Exported.read(folder)
    drawn = sample_images.samples(exported.run_within(runs.parent) if exported else None)[:SHOWN]
    return ReportData(
        record=record,
        winner=winner,
        importances=important,
        timeline=timeline(record),
        reproduction=reproduction(record, best),
        samples=samples,
        real=sample_images.real_cats(found, len(samples) or SHOWN),
        reconstructions=sample_images.read_grid(run, "reconstructions"),
        photos=_photos(record, len(found.originals()) if found else None, str(digest or "")),
        plots=optuna_plots(study, _by_importance(record, important), record.labels[0]) if plotly else (),
        second=None if best is None else second_opinion(record, best.number, winner),
        exported=exported,
        drawn=drawn,
    )


def pick_winner(select: str | int | None, folder: Path, runs: Path) -> Winner:
    """Choose the winner of a study by the rule of `make best-model`; arguments and errors as of `collect`."""
    try:
        trials = read_trials(folder, runs)
    except ExportError as error:  # nothing has finished yet
        return Winner(remark=str(error))
    decision = decide(select, trials, folder, runs)
    return Winner(trials, decision.choice, decision.seeds, decision.remark)


def reproduction(record: StudyRecord, winner: Entry | None) -> Reproduction:
    """Compose the commands of a study and of its winner, from recorded commands or else from the study's contract.

    The winner's has what the contract leaves free, such as `rungs`, and the number of threads, on which sums depend.
    """
    fixed = dict(record.contract.get("fixed") or {})
    composable = bool(fixed) and is_plain([SCRIPT, *_overrides(fixed)])
    exact = is_plain(record.command)
    sweep = alone = ""
    if record.command and exact:
        sweep = shlex.join(["python", *map(readable, record.command)])
    elif composable:
        asked = {"trials": record.total} if record.total is not None and "trials" not in fixed else {}
        sweep = shlex.join(["python", "src/train.py", "-m", *_overrides({**fixed, **asked})])
    if winner is not None and composable:
        kept = {key: value for key, value in fixed.items() if key not in SWEPT}
        # The search's option also says what a run returns and how often it is looked at, so it stays.
        drawn = grammar.as_overrides(winner.params, record.contract.get("space") or {}, record.exact)
        free = _free(winner.run, {grammar.bare(key) for key in (*fixed, *drawn, *(record.contract.get("space") or {}))})
        alone = shlex.join(["python", "src/train.py", *_overrides({**kept, **drawn}), *free])
    return Reproduction(sweep, exact, alone, readable(record.commit or ""))


def second_opinion(record: StudyRecord, chosen: int, winner: Winner) -> SecondOpinion:
    """Compare the judge's scores with the choice: the chosen, confirmed and Pareto-optimal trials, the best first."""
    opinion = record.opinion
    every = [*opinion.own.values(), *(one for runs in opinion.again.values() for one in runs.values())]
    names = [name for name in COLUMNS if opinion.judged and any(name in one.values for one in every)]
    confirmed = [one.trial for one in winner.confirmed.candidates] if winner.confirmed else []
    roles = dict.fromkeys(confirmed, "confirmed") | dict.fromkeys(winner.front, "Pareto-optimal") | {chosen: "winner"}
    trials = dict.fromkeys([chosen, *confirmed, *winner.front]) if names else {}
    photos = tuple(shown(opinion.reals[name]) if name in opinion.reals else "" for name in names)
    return SecondOpinion(
        sentence=opinion.sentence(chosen),
        columns=tuple(f"{record.label(name)} {better(name)}".strip() for name in names),
        rows=tuple(JudgedTrial(n, roles[n], tuple(_cell(record, n, name) for name in names)) for n in trials),
        photos=photos if any(photos) else (),
        seeds={trial: runs for trial in confirmed[:SEED_TRIALS] if (runs := _seed_samples(record, trial))},
    )


def _by_importance(record: StudyRecord, found: Sequence[Importance]) -> list[str]:
    shares, known = found[0].shares if found else {}, list(record.distributions)
    return sorted(known, key=lambda name: (-shares.get(name, 0.0), known.index(name)))


def _photos(record: StudyRecord, originals: int | None, digest: str) -> str:
    sizes = [int(size) for card in record.cards.values() if (size := card.get("reference_size"))]
    n = originals if originals is not None else max(sizes, default=None)
    named = f"digest {digest[:16]}…" if digest else ""
    return ", ".join(part for part in (counted(n, "photo") if n is not None else "", named) if part)


def _digest(run: Path | None) -> str | None:
    """Read of which photos a run was trained on."""
    try:
        return None if run is None else str(RunDir(run).provenance()["data_digest"])
    except (DataError, KeyError):
        return None


def _free(run: Path | None, set_: Set[str]) -> list[str]:
    """List the overrides of a run's command that are not set by the study, and the threads that it ran on."""
    try:
        found = {} if run is None else RunDir(run).provenance()
    except DataError:
        found = {}
    command, machine = found.get("command"), found.get("machine")
    typed = [word for word in command if is_plain([SCRIPT, word])] if isinstance(command, list) else []
    words = {word.partition("=")[0]: word for word in typed}
    free = [word for key, word in words.items() if not (OF_SWEEP.match(key) or grammar.bare(key) in set_)]
    threads = machine.get("threads") if isinstance(machine, dict) else None
    if THREADS not in {*words, *set_} and type(threads) is int:
        free.append(f"{THREADS}={threads}")
    return free


def _overrides(values: dict[str, Any]) -> list[str]:
    """Format overrides as `steady.propose.space.Space.overrides` does: values as they were typed."""
    deleted = [key for key, value in values.items() if value == "deleted" and key.startswith("~")]
    return [*(f"{key}={_typed(value)}" for key, value in values.items() if key not in deleted), *deleted]


def _typed(value: Any) -> str:
    return shown(value) if value is None or isinstance(value, bool) else readable(str(value))


def _cell(record: StudyRecord, trial: int, name: str) -> tuple[str, str]:
    own = record.opinion.own.get(trial, RunScores()).values
    over_seeds = [one.values[name] for one in record.opinion.again.get(trial, {}).values() if name in one.values]
    spread = f" ± {stdev(over_seeds):.2g}" if len(over_seeds) > 1 else ""
    return shown(own[name]) if name in own else "", f"{shown(fmean(over_seeds))}{spread}" if over_seeds else ""


def _seed_samples(record: StudyRecord, trial: int) -> tuple[SeedSamples, ...]:
    """Read samples of the runs of a trial: that of the search, then by seed."""
    runs: dict[int | None, Path | None] = {None: next(one.run for one in record.trials if one.number == trial)}
    again = [one for one in record.confirmations if one.confirms == trial and one.scored and one.seed is not None]
    runs |= {one.seed: one.run for one in sorted(again, key=lambda one: one.seed or 0)}
    found = []
    for seed, run in runs.items():
        one = record.opinion.own.get(trial) if seed is None else record.opinion.again.get(trial, {}).get(seed)
        values = one.values if one else {}
        if len(images := sample_images.samples(run)):
            words = ", ".join(f"{record.label(name)} {shown(values[name])}" for name in (FID, JUDGED) if name in values)
            found.append(SeedSamples(seed, images[:SEED_SAMPLES], words))
    return tuple(found)
