"""What `make gpu-check` tries. Each check runs in a process of its own (`check.py --one NAME`) and gives rows."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu import table
from tests.gpu.table import Row

ROOT = Path(__file__).resolve().parents[2]
# A further configuration is one more line here and in speed.py.
TRAINED = {"vae": ["model=vae"], "dcgan": ["model=dcgan"], "projected": ["model=dcgan", "discriminator=projected"]}
SHARE_OF_BARE = 0.9
HUGE = {"gpu": 1536, "cpu": 10**12}  # channels of a first stage that does not fit into a twentieth of a GPU, or memory
# On the processor the checks are only rehearsed: everything is tiny.
TINY = [
    "data.size=32", "data.reader.n=160", "data.batch_size=16", "width=narrow", "depth=shallow", "metrics.samples=32",
    "metrics.rung_samples=16",
]  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What all checks are told.

    Attributes:
        accelerator: gpu, or cpu to rehearse.
        folder: for all that is written.
        minutes: of the long run.
        profile: whether to write where the time of a step goes.
    """

    accelerator: str
    folder: Path
    minutes: float
    profile: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether this is the real thing."""
        return self.accelerator == "gpu"

    @property
    def words(self) -> list[str]:
        """Overrides of every command."""
        return [f"trainer={self.accelerator}", *([] if self.on_gpu else TINY)]


@dataclass(frozen=True)
class Check:
    """One of the checks.

    Attributes:
        run: gives its rows.
        seconds: after which it is ended, besides the minutes of the long run.
    """

    run: Callable[[Options], list[Row]]
    seconds: float


def start(words: list[str], log: Path, environment: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """Start `src/train.py` in the project's folder; all that it says goes to a file."""
    command = [sys.executable, "src/train.py", *words]
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=out, stderr=subprocess.STDOUT
        )


def single(options: Options, name: str, words: list[str]) -> tuple[Path, dict[str, Any]]:
    """One run: its folder and its metrics.json.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    folder, log = options.folder / name, options.folder / f"{name}.log"
    code = start([*options.words, *words, f"hydra.run.dir={folder}"], log).wait()
    if code:
        raise RuntimeError(f"src/train.py ended with {code}: {last_line(log)}")
    return folder, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def train(options: Options, name: str) -> list[Row]:
    """A model trains, in bf16, on the GPU, and its scores are numbers."""
    _, metrics = single(options, f"train-{name}", [*TRAINED[name], "logger=csv", "epochs=3", "eval_every=3"])
    rows = [table.finite(f"{name}: trainer={options.accelerator} trains, scores", metrics["scores"])]
    device = metrics["device"]
    wanted = "a GPU" if options.on_gpu else "cpu"
    rows.append(Row(f"{name}: device", wanted, device, (device != "cpu") == options.on_gpu))
    if options.on_gpu:
        rows.append(table.equal(f"{name}: precision (auto)", "bf16-mixed", metrics["precision"]))
    return rows


def speeds(options: Options) -> list[Row]:
    """Our training step is at most a tenth slower than a bare torch loop."""
    from tests.gpu import speed

    speed.quiet()
    blocks = speed.Blocks() if options.on_gpu else speed.Blocks(1, 2, 1)
    rows, pairs = [], {}
    for name in speed.CONFIGURATIONS:
        pair = pairs[name] = speed.Pair(name, options.words, options.accelerator)
        rates = pair.rates(blocks)
        row = table.share(f"{name}: images/s of our step, of a bare loop's", rates.ours, rates.bare, SHARE_OF_BARE)
        rows.append(row if options.on_gpu else dataclasses.replace(row, ok=None))
        what = f"{name}: images/s of a bare loop on one batch"
        rows.append(Row(what, "", f"{rates.fixed:,.0f}, ours {rates.ours / rates.fixed:.1%} of it", None))
        table.write(options.folder / "speeds.json", rows)  # what is known if the rest takes too long
    short = dataclasses.replace(blocks, steps=min(20, blocks.steps), warm_up=min(20, blocks.warm_up))
    for name, pair in pairs.items():
        often, places = speed.waits(pair, short)
        rows.append(Row(f"{name}: the host waits for the GPU, a step", "", f"{often:.1f} times", None))
        table.write(options.folder / "speeds.json", rows)
        (options.folder / f"waits-{name}.txt").write_text("\n".join(speed.frames_of(places)), encoding="utf-8")
    for name, pair in pairs.items() if options.profile else ():
        speed.profile(pair, short, options.folder / f"profile-{name}.txt")
    return rows


def sweep(options: Options, name: str, words: list[str]) -> tuple[int, Any, list[dict[str, str]], list[str]]:
    """A sweep: its exit code, what was seen of its processes, its leaderboard, and what was noted at its forks."""
    from tests.gpu import processes

    folder = options.folder / name
    folder.mkdir()
    forks = folder / "forks.jsonl"
    places = [f"hydra.sweeper.record={folder}/study", f"hydra.sweep.dir={folder}/runs", f"study={name}"]
    fixed = [
        "-m", "hydra/sweeper=steady", "hydra.sweeper.study_name=${study}", "logger=none", "hydra.sweeper.on_end=null",
        "hydra.sweeper.pruner=null", "hydra.sweeper.prune_metric=null", "rungs=[]",
        "hydra.sweeper.preload=[catsweep.training.fit,tests.gpu.forks]", "trial.number=${hydra:job.num}",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"CATSWEEP_FORKS": str(forks), "PYTHONPATH": path}
    process = start([*fixed, *places, *options.words, *words], options.folder / f"{name}.log", environment)
    seen = processes.watch(process, options.on_gpu)
    leaderboard = folder / "study" / "leaderboard.csv"
    trials = list(csv.DictReader(leaderboard.open(encoding="utf-8"))) if leaderboard.exists() else []
    return process.returncode, seen, trials, forks.read_text(encoding="utf-8").splitlines() if forks.exists() else []


def states(trials: list[dict[str, str]]) -> str:
    """How the trials of a leaderboard ended, by number."""
    return ", ".join(f"{t['trial']} {t['state']}" for t in sorted(trials, key=lambda t: int(t["trial"]))) or "none"


def slots(options: Options) -> list[Row]:
    """Two slots work on one GPU at once, and the process that they are forked from never touches it."""
    from tests.gpu import processes

    words = ["model=vae", "epochs=10" if options.on_gpu else "epochs=2", "eval_every=5", "hydra.sweeper.n_trials=4"]
    words += ["optimizer.lr=tag(log, interval(1e-4, 1e-2))", "hydra.sweeper.gpus_per_slot=0.5"]
    words += ["hydra.sweeper.gpus=1"] if options.on_gpu else ["hydra.sweeper.gpus=0", "hydra.sweeper.n_jobs=2"]
    code, seen, trials, notes = sweep(options, "slots", words)
    forks, touched = processes.touched(notes, seen.server)
    complete = sum(trial["state"] == "complete" for trial in trials)
    rows = [
        Row("two slots on one GPU: a sweep of 4 trials", "4 complete, exit 0", f"{states(trials)}; exit {code}",
            complete == len(trials) == 4 and code == 0),
        Row("two slots on one GPU: trials that had it open at once", "2", f"{seen.at_once}", seen.at_once == 2),
        Row("fork server: CUDA touched at a fork", "0 times", f"{touched} of {forks}", forks > 0 and touched == 0),
        Row("fork server: device files of the driver open", "none", ", ".join(sorted(seen.server_devices)) or "none",
            seen.server is not None and not seen.server_devices),
    ]  # fmt: skip
    if options.on_gpu:
        listed = f"fork server {'listed' if seen.server in seen.listed else 'not listed'}"
        rows.append(
            Row("nvidia-smi: who computes", "not the fork server",
                f"{listed}; {len(seen.trials & seen.listed)} of {len(seen.trials)} trials listed",
                seen.server not in seen.listed)
        )  # fmt: skip
    return rows


def memory(options: Options) -> list[Row]:
    """A trial too large for its share of the GPU is told as that, and the trials beside and after it go on."""
    huge = HUGE[options.accelerator]
    words = [
        "model=dcgan", "epochs=2", "eval_every=2", "depth.halvings=1", "model.latent_size=2", "data.batch_size=1024",
        f"width.channels=choice(8,12,16,{huge})", f"width.max_channels={huge}", "hydra.sweeper.n_trials=4",
        "hydra.sweeper.baseline=false", "hydra.sweeper.gpus_per_slot=0.05", "hydra.sweeper.n_jobs=2",
        f"hydra.sweeper.enqueue=[{{width.channels:{huge}}},{{width.channels:8}},{{width.channels:12}},{{width.channels:16}}]",
    ]  # fmt: skip
    code, _, trials, _ = sweep(options, "memory", words)
    ended = {trial["trial"]: trial for trial in trials}
    large = ended.pop("0", {"state": "none", "message": ""})
    got = f"{large['state']}: {large['message'][:240]}"
    return [
        Row(f"out of memory: a trial of {huge} channels", "out of memory", got, large["state"] == "out of memory"),
        Row("out of memory: the three trials beside and after it", "complete, exit 0",
            f"{states(list(ended.values()))}; exit {code}",
            [trial["state"] for trial in ended.values()] == ["complete"] * 3 and code == 0),
    ]  # fmt: skip


def long_run(options: Options) -> list[Row]:
    """A run of some minutes: what it scores, and what it draws."""
    words = [*TRAINED["projected"], f"minutes={options.minutes:.2f}", "epochs=1000000", "patience=null", "logger=csv"]
    folder, metrics = single(options, "run", [*words, "eval_every=50" if options.on_gpu else "eval_every=5"])
    seen = metrics["epochs"] * (84 * 16 if options.on_gpu else 9 * 16)
    grids = sorted((folder / "samples").glob("*.png"), key=lambda file: file.stat().st_mtime)
    what = f"projected: {options.minutes:.1f} minutes on drawn cats"
    return [
        table.finite(f"{what}, scores", metrics["scores"]),
        Row(f"{what}, images/s with scores and checkpoints", "", f"{seen / metrics['seconds']:,.0f}", None),
        Row(f"{what}, epochs and best", "", f"{metrics['epochs']}, {metrics['epoch']}", None),
        Row(f"{what}, grid", "a picture", str(grids[-1]) if grids else "none", bool(grids)),
    ]


CHECKS = {
    **{f"train-{name}": Check(lambda options, name=name: train(options, name), 120) for name in TRAINED},
    "speeds": Check(speeds, 180),
    "run": Check(long_run, 60),
    "slots": Check(slots, 100),
    "memory": Check(memory, 100),
}
