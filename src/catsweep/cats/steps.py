"""From photos to a generator within a budget of time: `python src/cats.py`.

Each step is a command of its own, as a person would type it: `src/prepare.py`, a sweep by `src/train.py -m`,
`src/best_model.py`, `src/train.py` again on copies of the best, `src/export.py`, `src/report.py`. This module calls
them in their order, keeps the time (`catsweep.cats.plan` divides it) and shows how far they are. What it has to know is
in `<out>/<name>/cats.json`, so a run that was killed goes on with the step that it was at.
"""

import csv
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.table import Column, Table

from catsweep.cats.display import Lines, Progress, display_for, tail
from catsweep.cats.finalists import LONGER, Finalist, best, copy_to_train, read, verdict
from catsweep.cats.hardware import Hardware, gpus_of, require
from catsweep.cats.plan import ALONE, AROUND, JUDGED_SECONDS, START_UNCHECKED, Plan
from catsweep.data.ready import ReadySet, no_photos_message
from catsweep.data.sources import Photos
from catsweep.errors import CatsweepError, ConfigError, DataError, TrainingError
from catsweep.metrics.judge import JUDGED, NAMES, read_judged, run_scores
from catsweep.prepare.pipeline import slug
from catsweep.records import read_json
from catsweep.report.exported import Exported
from steady import grammar, places, printing, resources
from steady.atomic import write_json
from steady.confirm.confirmation import RUN_FOLDER
from steady.jobs.detached import PR_SET_PDEATHSIG, prctl
from steady.safe_paths import checked_name
from steady.signals import COMMAND, SAID
from steady.watch.progress import duration

COMMANDS = Path(__file__).parents[2]  # the folder of their scripts
OUTPUTS, SWEEPS, READY, STAGES = Path("outputs"), Path("sweeps"), Path("data/ready"), Path("data/stages")
EXPORTS = OUTPUTS / "exports"
STATE, LOCK, WINNER = "cats.json", ".lock", "winner"  # in the run's folder
SAVED_EVERY, LOOK_EVERY = 5.0, 0.2  # seconds
PATIENCE = 60.0  # seconds in which the steps of a start that was killed must end
SHOWN = 12  # lines of the log of a step that failed
ENOUGH = 100  # photos
NEVER = "zoom.whole=never"  # a word for src/prepare.py
HALVINGS = 5  # of an image, by the deepest network that the search tries
LEAST_MORE = 0.1  # as a share of the time that the best was trained for: less is not worth another training's start
JUDGED_SHARE = 0.1  # of the time for training on, at most, for the judge
BUSY = 180.0  # seconds to the first trial that a busy machine is given
SLOWEST = 6.0  # times as slow as alone that a machine is taken for, at most
OWN = {  # words for other commands that a run has of its own
    "prepare": {"name", "size", "data.source"},
    "train": {"study", "data", "data.source", "data.size", "samples", "budget_unit=samples"},
}
TITLES = {
    "prepare": "prepare the photos",
    "search": "search and confirm",
    "choose": "choose the best",
    "train": "train the best on",
    "export": "export",
    "report": "report",
}


def run(cfg: DictConfig) -> None:
    """Do the steps that are not done yet, and say where everything is; see `conf/cats.yaml`.

    Raises:
        ConfigError: the budget is too small, the images cannot be of that size, or the run of that name was begun with
            another line.
        DataError: the source holds no photos, or only one.
        TrainingError: a step failed.
    """
    if not any(str(word).startswith(("depth=", "depth.")) for word in cfg.train):  # else none is searched
        check_size(cfg.size)
    for command, own in OWN.items():
        for word in map(str, cfg[command]):
            key, _, value = word.partition("=")
            if own & {grammar.bare(key), f"{grammar.bare(key)}={value}"}:
                raise ConfigError(
                    f"{command} has {word}, which follows from the run's own source=, size=, name= and budget=: "
                    "give those."
                )
    photos = count_photos(cfg.source)
    hardware, judged = Hardware.of(cfg.train, cfg.size), _judge_is_there(cfg)
    plan = Plan.of(60 * cfg.budget, hardware.slots, photos, judged)
    source = "demo_cats" if cfg.source is None else slug(str(cfg.source))
    name = checked_name(f"{source}-{cfg.budget:g}min" if cfg.name is None else cfg.name, "name")
    folder = Path(cfg.out) / name
    places.check(folder, cfg)
    with alone(folder) as lock, closing(display_for()) as display:
        state = State.read(folder / STATE, {key: cfg[key] for key in State.ASKED})
        if not state.photos:  # earlier versions named no set, and made it by the source's name
            state.photos = source if cfg.name is None or "prepare" in state.done else name
        Run(cfg, folder, hardware, judged, state, lock, display).go(plan)


def check_size(size: int) -> None:
    """Refuse a size that a network of the search cannot halve as often as it does.

    >>> check_size(96)
    """
    step = 2**HALVINGS
    if size % step:
        below = size // step * step
        sizes = " or ".join(str(one) for one in (below, below + step) if one)
        raise ConfigError(
            f"The search needs images of a multiple of {step} pixels; got size={size}. Take size={sizes}."
        )


def count_photos(source: str | None) -> int:
    """Count the files of a source that may be photos, 0 for drawn cats; a DataError if there are fewer than two."""
    if source is None:
        return 0
    reader = Photos(source)
    try:
        count = sum(1 for _ in reader.files)
        if count == 0:
            raise DataError(no_photos_message(reader, Counter(), reader.passed_over()))
    except DataError as error:  # it names the key of the other commands
        raise DataError(str(error).replace("data.source=", "source=")) from error
    if count == 1:
        raise DataError(f"Expected many photos of cats in {source}, and at least 2, but 1 is there. Add photos.")
    return count


def _judge_is_there(cfg: DictConfig) -> bool:
    file = OmegaConf.select(cfg, "judge.extractor.file")
    return file is not None and Path(file).expanduser().exists()


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Lock a run's folder, and yield the descriptor that holds the lock; steps inherit it, so it outlives a kill.

    A ConfigError if another start has it and does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        until = time.monotonic() + PATIENCE
        while not _take(lock):
            if time.monotonic() > until:
                raise ConfigError(f"Another process works in {folder}. Wait for it, or begin another run: name=NAME.")
            time.sleep(LOOK_EVERY)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@dataclass
class State:
    """What a run has to know when it goes on."""

    ASKED = ("source", "budget", "size", "prepare", "train")  # keys whose change makes another run

    file: Path
    asked: dict[str, Any]
    spent: dict[str, float] = field(default_factory=dict)  # seconds of each step, over all starts
    starts: dict[str, int] = field(default_factory=dict)  # of each step
    done: dict[str, str] = field(default_factory=dict)  # finished steps, and what there is to say of them
    plan: dict[str, Any] | None = None  # of the search and what follows it, once the search has begun
    taken: str | None = None  # folder of the copy that is exported, "" for the trial as it was; None: not known yet
    hardware: list[str] = field(default_factory=list)  # the words of `Hardware` that it has begun with
    photos: str = ""  # name of the photos in `data`
    digest: str | None = None  # of the images that they became

    @classmethod
    def read(cls, file: Path, asked: dict[str, Any]) -> "State":
        """Read what an earlier start has left; a ConfigError if that is damaged, or was asked for something else."""
        asked = json.loads(json.dumps(asked, default=list))
        if not file.exists():
            return cls(file, asked)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            state = cls(file, dict(found["asked"]), plan=found["plan"] and asdict(Plan(**found["plan"])))
            state.hardware = found.get("hardware", [])  # earlier versions knew none
            if not isinstance(state.hardware, list) or not all(isinstance(word, str) for word in state.hardware):
                raise TypeError(f"hardware is {state.hardware!r}")
            state.taken, state.digest, state.photos = found.get("taken"), found.get("digest"), found.get("photos", "")
            if not isinstance(state.taken, str | None) or not isinstance(state.digest, str | None):
                raise TypeError(f"taken is {state.taken!r}, digest is {state.digest!r}")
            state.photos = state.photos and checked_name(state.photos, "photos")
            state.spent = {step: max(0.0, float(found["spent"].get(step, 0))) for step in TITLES}
            state.starts = {step: int(found["starts"].get(step, 0)) for step in TITLES}
            state.done = {step: str(found["done"][step]) for step in TITLES if step in found["done"]}
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{file} is damaged ({error!r}). Begin another run: name=NAME.") from error
        changed = [
            f"{key}: {state.asked.get(key)} → {asked[key]}" for key in asked if state.asked.get(key) != asked[key]
        ]
        if changed:
            raise ConfigError(
                f"The run in {file.parent} was begun with another line ({', '.join(changed)}). Give the same line to "
                "go on with it, or begin another run: name=NAME."
            )
        return state

    def save(self) -> None:
        """Write it."""
        write_json(self.file, {key: value for key, value in vars(self).items() if key != "file"})


@dataclass
class Run:
    """One start of a run."""

    cfg: DictConfig
    folder: Path
    hardware: Hardware
    judged: bool  # whether the judge's network is there
    state: State
    lock: int
    display: Lines

    def __post_init__(self) -> None:
        self.clock = self.saved = time.monotonic()
        self.budget: float = 60.0 * self.cfg.budget
        choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
        self.judge = f"metrics/judge={choices.get('metrics/judge', 'auto')}"

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; below 0 if it is overdrawn."""
        return self.budget - sum(self.state.spent.values())

    @property
    def plan(self) -> Plan:
        """Plan of the search and what follows it."""
        assert self.state.plan is not None
        return Plan(**self.state.plan)

    def go(self, plan: Plan) -> None:
        """Do the steps; `plan` is that of the whole budget."""
        if not self.state.done and not any(self.state.spent.values()):
            self._announce(plan)
        elif len(self.state.done) < len(TITLES):
            self.display.say(
                f"{self.folder.name} goes on: {duration(self.left)} are left of {duration(self.budget)} (the time "
                "between two starts does not count)"
            )
        planned = {"prepare": plan.prepare, "search": plan.search + plan.confirm, "choose": 0.0, "train": plan.train}
        self.planned = {**planned, "export": plan.finish, "report": 0.0}
        try:
            for step in TITLES:
                if step not in self.state.done:
                    self.clock = time.monotonic()
                    self.state.starts[step] = self.state.starts.get(step, 0) + 1
                    self.state.save()
                    said = getattr(self, f"_{step}")()
                    self._tick(step)
                    self.state.done[step] = said
                    self.state.save()
                    if said:
                        self.display.say(said)
        except KeyboardInterrupt:
            COMMAND.said = f"{SAID} The same line goes on; {duration(self.left)} are left of {duration(self.budget)}."
            raise
        finally:
            self.state.save()
            self.display.close()
        self._farewell()

    def _announce(self, plan: Plan) -> None:
        title = f"{self.folder.name}: how {duration(self.budget)} will be spent, {self.hardware.said}"
        table = Table("", Column("time", justify="right"), "what", title=title, title_justify="left")
        for row, seconds, remark in plan.rows():
            table.add_row(row, duration(seconds), remark)
        printing.console().print(table)

    def _prepare(self) -> str:
        if self.cfg.source is None:
            return ""
        ready = self._prepared()
        self.state.digest = ready.digest
        if len(ready) < 2:
            raise DataError(
                f"Only {len(ready)} image is left of the photos, and training needs at least 2. Add photos."
            )
        kept = len({row.source for row in ready.rows if row.kept})
        left = len({row.source for row in ready.rows}) - kept
        how = f"which of {left} photos were left out, and why" if left else "them"
        few = f" So few are learned by heart; {ENOUGH} and more make new cats." if kept < ENOUGH else ""
        said = f"{len(ready)} images are ready; {self._ready() / 'report.html'} shows {how}.{few}"
        return " ".join([said, *self._zoomed()])

    def _prepared(self) -> ReadySet:
        words = [_word("data.source", self.cfg.source), _word("name", self.state.photos), f"size={self.cfg.size}"]
        self._call("prepare", "prepare.py", "data=photos", *words, *self.cfg.prepare)
        return ReadySet.open(self._ready())

    def _keep_photos(self) -> None:
        """Prepare the photos again if another run with a source of that name has replaced them."""
        if self.state.digest is None:
            return
        with suppress(DataError):
            if ReadySet.open(self._ready()).digest == self.state.digest:
                return
        self.display.say(f"{self._ready()} was replaced or removed, so the photos are prepared again.")
        if self._prepared().digest != self.state.digest:
            raise ConfigError(
                f"{self.cfg.source} makes other images than when this run began. Restore what it held, or begin "
                "another run: name=NAME."
            )

    def _zoomed(self) -> list[str]:
        """Read what the preparation remarks on the faces: in a folder without cats it has found none."""
        for card in sorted((STAGES / self.state.photos).glob("*/card.json")):
            with suppress(DataError):
                found = read_json(card)
                if found.get("stage") == "zoom" and isinstance(notes := found.get("notes"), list):
                    return [str(note).replace(NEVER, f'prepare=["{NEVER}"]') for note in notes]
        return []

    def _ready(self) -> Path:
        return READY / f"{self.state.photos}-{self.cfg.size}"

    def _search(self) -> str:
        if self.state.plan is None:  # again, for the preparation may have taken more or less than was thought
            self.state.plan = asdict(Plan.of(self.left, self.hardware.slots, judge=self.judged))
            self.state.hardware = self.hardware.words  # a study goes on with the trainer that it has begun with
        require(self.state.hardware)
        self._keep_photos()
        plan, began = self.plan, time.monotonic()
        timeout = min(plan.timeout - self.state.spent.get("search", 0.0), self.left - plan.finish)
        timeout = max(timeout, plan.least_timeout + 1, START_UNCHECKED + 1)  # or what was interrupted would not go on
        # An earlier start may have ended the search; the least timeout would begin other trials at each start after it.
        confirming = any((OUTPUTS / self.folder.name / RUN_FOLDER).parent.glob("*"))
        begun = self._trials() if confirming else []
        trials = len(begun) or 10 * max(plan.trials, 10)
        data = ["data=demo_cats"] if self.cfg.source is None else ["data=ready", _word("data.source", self._ready())]
        words = [
            *data, f"data.size={self.cfg.size}", _word("study", self.folder.name), f"minutes={plan.minutes}",
            f"trials={trials}", f"hydra.sweeper.confirm={plan.confirm_word}",
            self.judge if plan.judged else "metrics/judge=none",
            # The best are trained on afterwards, so trials are short, and a third of one would tell nothing.
            "hydra/sweeper/pruner=lenient", "hydra.sweeper.promotion=null",
            *([] if plan.checked else ["hydra.sweeper.preflight=null"]), *self.state.hardware, *self.cfg.train,
        ]  # fmt: skip
        line = ("search", "train.py", "-m", "hparams_search=cats_optuna", *words)
        try:
            self._call(*line, f"hydra.sweeper.timeout={timeout:.0f}")
        except TrainingError:
            if time.monotonic() - began < timeout or any(row["state"] == "complete" for row in self._trials()):
                raise
            # A machine so busy that the time was over before a trial had begun.
            self._call(*line, f"hydra.sweeper.timeout={BUSY + plan.least_timeout:.0f}")
        states = Counter(row["state"] for row in self._trials() if row["state"] != "waiting")
        return f"Searched: {', '.join(f'{count} {state}' for state, count in states.items())}."

    def _choose(self) -> str:
        words = [_word("study", self.folder.name), _word("out", self.folder / WINNER)]
        self._call("choose", "best_model.py", *words)
        first = self._finalists()[0]
        found = ", ".join(f"{name} {value:.4g}" for name, value in first.values.items())
        return f"The best is trial {first.trial}: {found} after {self.plan.minutes:.2g} minutes of training."

    def _train(self) -> str:
        """Train copies of the best trials on for the time that is left; one counts only if it is better."""
        plan, finalists, slowness = self.plan, self._finalists(), self._slowness()
        own = slowness * (ALONE if len(finalists) == 1 else AROUND)
        more = self.left - self._finish() - own
        # What earlier starts of this step took was training, but for what each needs before it.
        before = self.state.spent.get("train", 0.0) - (self.state.starts["train"] - 1) * slowness * ALONE
        judging = slowness * JUDGED_SECONDS
        given = [word for word in map(str, self.cfg.train) if word.startswith(("metrics/judge=", "judge."))]
        if given:  # whoever says how trials are judged has said it of these
            judged = "metrics/judge=none" not in given
        else:
            judged = self.judged and (
                plan.judged
                or any(one.judged for one in finalists)  # at an earlier start
                or (len(finalists) > 1 and judging < JUDGED_SHARE * (max(0.0, before) + more))
            )
        more -= judging if judged else 0.0
        if more < LEAST_MORE * 60 * plan.minutes and not any(one.copy.exists() for one in finalists):
            self.state.taken = ""
            return "No time is left to train it on."
        try:
            self._keep_photos()
        except CatsweepError as error:
            self.state.taken = ""
            return f"It could not be trained on, and is taken as it was: {error}"
        minutes = plan.minutes + max(0.0, max(0.0, before) + more) / 60
        words = [f"minutes={minutes:.3f}"]
        if not given:
            words.append(self.judge if judged else "metrics/judge=none")
        lines: dict[Path, list[str]] = {}
        failed = {}
        logs = {one.trial: self.folder / f"{one.copy.name.replace(LONGER, 'train')}.log" for one in finalists}
        for one in finalists:
            if not one.is_scored:
                try:
                    lines[logs[one.trial]] = ["train.py", *copy_to_train(one), *words, _word("resume", one.copy)]
                except CatsweepError as error:
                    failed[one.trial] = str(error)
        errors = self._run("train", lines)
        ended = [one for one in finalists if logs[one.trial] in lines and not one.is_scored]
        failed |= {one.trial: errors.get(logs[one.trial], "it has no scores.") for one in ended}
        taken, by = best(finalists)
        self.state.taken = taken.copy.name if taken else ""
        return verdict(finalists, taken, by, failed, judged)

    def _finalists(self) -> list[Finalist]:
        """Read which trials are trained on; the first is the best of the search."""
        try:
            return read(self.folder / WINNER, self.plan.finalists)
        except DataError as error:
            self.state.done.pop("choose", None)
            self.state.save()
            raise DataError(f"{error} The same line chooses again.") from error

    def _taken(self) -> tuple[Finalist, bool]:
        """Find whose model is exported, and whether it is the copy; else it is the best trial as it was."""
        finalists = self._finalists()
        if self.state.taken is None:  # a version that did not note it has trained on
            copy = best(finalists)[0]
        else:
            copy = next((one for one in finalists if one.copy.name == self.state.taken), None)
        return copy or finalists[0], copy is not None

    def _slowness(self) -> float:
        """How many times as long as alone a step takes beside what else runs: by the cores that trials had; from 1."""
        whole = [row for row in self._trials() if row["state"] == "complete" and row["attempts"] == "1"]
        worked = [float(row["cpu_seconds"]) for row in whole if row.get("cpu_seconds")]
        known = [60 * self.plan.minutes / seconds for seconds in worked if seconds > 0]
        return min(max(1.0, statistics.median(known)), SLOWEST) if known else 1.0

    def _trials(self) -> list[dict[str, str]]:
        """Read the study's leaderboard; none if it is not there."""
        try:
            with (SWEEPS / self.folder.name / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error):
            return []

    def _finish(self) -> float:
        """Seconds that the last steps need, on a machine that is as busy as it was during the search."""
        return self.plan.finish * self._slowness()

    def _export(self) -> str:
        one, is_copy = self._taken()
        run = one.copy if is_copy else self.folder / WINNER
        self._call("export", "export.py", _word("run", run), f"draws={self.plan.draws}", self.judge)
        if not (self._bundle() / "samples.png").is_file():
            raise DataError(f"The export has left nothing in {self._bundle()}. Give the same line again.")
        judged = read_judged(self._bundle())
        if judged is None or JUDGED not in judged.scores:
            return ""
        photos = f"; real photos get {judged.reference[JUDGED]:.4g}" if JUDGED in judged.reference else ""
        return f"The judge ({judged.judge}) says {JUDGED} {judged.scores[JUDGED]:.4g}{photos}."

    def _bundle(self) -> Path:
        one, is_copy = self._taken()
        return EXPORTS / f"{self.folder.name}-{one.copy.name if is_copy else one.trial}"

    def _report(self) -> str:
        self._exported().write(SWEEPS / self.folder.name)
        self._call("report", "report.py", _word("study", self.folder.name))
        return ""

    def _exported(self) -> Exported:
        """Describe for the report what was exported, and what it took."""
        (one, is_copy), bundle = self._taken(), self._bundle()
        before, after = (run_scores(run).values for run in (one.run, one.copy))
        judged = {name: value for name, value in run_scores(bundle).values.items() if name in NAMES}
        took = {TITLES[step]: self.state.spent[step] for step in TITLES if self.state.spent.get(step, 0.0) >= 1}
        return Exported(
            trial=one.trial,
            run=(one.copy if is_copy else one.run).as_posix(),
            bundle=bundle.as_posix(),
            remark=" ".join(self.state.done[step] for step in ("train", "export")).strip(),
            before=before if is_copy else before | judged,
            after=after | judged if is_copy else after,
            budget=self.budget,
            planned={TITLES[step]: seconds for step, seconds in self.planned.items()},
            spent={title: seconds for title, seconds in took.items() if title != TITLES["report"]},
        )

    def _farewell(self) -> None:
        bundle, console = self._bundle(), printing.console()
        table = Table(title=f"{self.folder.name}: {duration(self.budget - self.left)} were spent", title_justify="left")
        table.add_column("")
        table.add_column("planned", justify="right")
        table.add_column("took", justify="right")
        for step, title in TITLES.items():
            planned, took = self.planned[step], self.state.spent.get(step, 0.0)
            if planned or took >= 1:
                table.add_row(title, duration(planned) if planned else "", duration(took))
        console.print(table)
        if not (bundle / "samples.png").is_file():
            console.print(f"The export was moved or removed: it was {bundle}.", highlight=False, soft_wrap=True)
        for line in (
            *(said for step, said in self.state.done.items() if said and step in ("choose", "train", "export")),
            f"Cats:    {bundle / 'samples.png'}",
            f"Bundle:  {bundle} (it draws without catsweep)",
            f"Report:  {SWEEPS / self.folder.name / 'report.html'}",
            f"More:    python src/generate.py bundle={bundle} n=64, or make demo; a larger budget searches for longer",
        ):
            console.print(line, highlight=False, soft_wrap=True)

    def _call(self, step: str, command: str, *words: str) -> None:
        """Run a command to its end, its output in the log of the step; a TrainingError if it fails.

        At Ctrl-C it gets SIGTERM, and stops at a checkpoint; when this process is killed, too.
        """
        log = self.folder / f"{step}.log"
        if error := self._run(step, {log: [command, *words]}).get(log):
            raise TrainingError(f"{error}\nWhen that is mended, the same line goes on.")

    def _run(self, step: str, commands: Mapping[Path, Sequence[str]]) -> dict[Path, str]:
        """Run commands of a step side by side to their ends, each with its output in a log; by log, what failed."""
        children: dict[Path, subprocess.Popen[bytes]] = {}
        gpus = gpus_of([*self.state.hardware, *self.cfg.train]) if step == "train" else []
        try:
            for slot, (log, (command, *words)) in enumerate(commands.items()):
                # As many threads as a trial has, although slots are free: beside other programs each operation waits
                # until all its threads have had a core, and two were ten times as slow as one (docs/decisions.md).
                own = resources.environment(slot, self.plan.slots, gpus, 1.0) if step in ("train", "export") else {}
                with log.open("ab") as out:
                    children[log] = subprocess.Popen(
                        [sys.executable, str(COMMANDS / command), *words], stdin=subprocess.DEVNULL, stdout=out,
                        stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[self.lock],
                        preexec_fn=_end_with_parent, env={**os.environ, **ENVIRONMENT, **own},
                    )  # fmt: skip
            self._wait(step, children)
        except BaseException:
            for child in children.values():
                child.terminate()
            self.display.say("Stopping at a checkpoint; once more stops at once")
            self._wait(step, children)
            raise
        return {log: _failure(step, log, child.returncode) for log, child in children.items() if child.returncode}

    def _wait(self, step: str, children: Mapping[Path, "subprocess.Popen[bytes]"]) -> None:
        while any(child.poll() is None for child in children.values()):
            self._show(step, list(children))
            time.sleep(LOOK_EVERY)

    def _show(self, step: str, logs: Sequence[Path]) -> None:
        self._tick(step)
        state = self.state
        self.display.show(Progress(self.folder.name, self.budget, state.spent, self.planned, TITLES, step, logs))

    def _tick(self, step: str) -> None:
        """Count the time since the last call as a step's; now and then to the file, so that a kill loses seconds."""
        now = time.monotonic()
        self.state.spent[step] = self.state.spent.get(step, 0.0) + now - self.clock
        self.clock = now
        if now >= self.saved + SAVED_EVERY:
            self.state.save()
            self.saved = now


ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"}  # of the steps, whose output is a log


def _end_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _how(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"


def _failure(step: str, log: Path, code: int) -> str:
    ending = "\n".join(f"  {one}" for one in tail(log, SHOWN))
    return f"Step '{TITLES[step]}' failed ({_how(code)}). {log} has all of it, and ends with:\n{ending}"


def _word(key: str, value: Any) -> str:
    """Make an override of a text, whatever is in it."""
    return f"{key}={grammar.quoted(str(value))}"
