"""Which search finds the best cats in the same time: the stock sweeper, Ray Tune, ours with pruning or promotion.

    python tests/benchmarks/search/compare.py PHOTOS [--seconds 3600] [--seeds 0 1 2] [--searches stock ray …]
        [--ray-python PYTHON] [--results FOLDER]

PHOTOS are photos of cats with landmarks. Each search has two slots of one thread, and so many seconds. A trial may
train for a fifth of them; where rungs end most trials early, for three tenths (`ray`, `promotion`, `unconfirmed`), or
four, as in `cats_optuna`'s hour (`longer`). `longer` and `promotion` are `cats_optuna`, `unconfirmed` that without a
confirmation, so that it searches for as long as its rivals, and `pruning` what `cats_optuna` was: a pruner in the place
of promotion, and three seeds of the confirmation in the place of two. `stock` is hydra-optuna-sweeper with joblib, over
the half of the same space that needs no conditions, the DCGAN. `ray` is Ray Tune with ASHA and OptunaSearch over the
whole space (`ray_tune.py`, run by an interpreter that has `ray[tune]`). Ours begins with configurations that are known
to be good; the last columns also say when it was as good without those.

A search whose result is in FOLDER is not run again, so a comparison that takes hours may be stopped and gone on with.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
SEARCH = ROOT / "conf/hparams_search/cats_optuna.yaml"
SEARCHES = ("stock", "ray", "pruning", "promotion", "longer", "unconfirmed")
OURS = ("pruning", "promotion", "longer", "unconfirmed")
SLOTS = 2
SHARES = dict.fromkeys(SEARCHES, 0.3) | {"stock": 0.2, "pruning": 0.2, "longer": 0.4}  # of the time, for a trial
PRUNING = ["hydra.sweeper.promotion=null", "hydra/sweeper/pruner=lenient", "hydra.sweeper.confirm={top: 1, seeds: 3}"]


def sweeper() -> dict[str, Any]:
    """The keys of `hydra.sweeper` of `cats_optuna`."""
    keys: dict[str, Any] = yaml.safe_load(SEARCH.read_text())["hydra"]["sweeper"]
    return keys


ETA, RUNGS = sweeper()["promotion"]["eta"], sweeper()["promotion"]["rungs"]  # Ray's ASHA has the same


def space(model: str) -> dict[str, str]:
    """The parameters of `cats_optuna` that one model has, as Hydra's words."""
    own, conditions = f"model={model}", sweeper()["conditions"]
    return {name: text for name, text in sweeper()["params"].items() if conditions.get(name, own) == own} | {
        "model": model
    }


def fixed(photos: Path, ready: Path, seconds: float, seed: int) -> list[str]:
    """What is the same in all searches but for the `seconds` of a trial."""
    return [
        "data=kaggle_cats", f"data.source={photos}", f"data.root={ready}", f"minutes={seconds / 60:.4f}",
        f"seed={seed}", "study=bench", "logger=none", "trainer.threads=1", "metrics/judge=none",
    ]  # fmt: skip


def command(search: str, same: Sequence[str], seconds: float, seed: int, ray_python: str) -> list[str]:
    """The command that runs a search in the folder it is started in."""
    if search == "ray":
        script = Path(__file__).with_name("ray_tune.py")
        return [
            ray_python,
            str(script),
            json.dumps({"seconds": seconds, "seed": seed, "slots": SLOTS, "words": list(same)}),
        ]
    train = [sys.executable, str(ROOT / "src/train.py"), "-m"]
    if search == "stock":
        own = [f"{name}={value}" for name, value in space("dcgan").items()]
        search_words = [
            "hydra/sweeper=optuna", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={SLOTS}", "epochs=100000",
            "patience=null", "objective=[val/fid,val/coverage]", "hydra.sweeper.direction=[minimize,maximize]",
            f"hydra.sweeper.n_jobs={SLOTS}", "hydra.sweeper.n_trials=1000", f"hydra.sweeper.sampler.seed={seed}",
        ]  # fmt: skip
        return [*train, *own, *search_words, *same]
    ours = [
        "hparams_search=cats_optuna",
        f"hydra.sweeper.timeout={seconds}",
        "trials=1000",
        f"hydra.sweeper.n_jobs={SLOTS}",
    ]
    changed = {"pruning": PRUNING, "unconfirmed": ["hydra.sweeper.confirm=null"]}
    return [*train, *ours, *changed.get(search, []), *same]


def run(words: Sequence[str], place: Path, seconds: float | None) -> None:
    """Run a command in a folder, to its end or for so many seconds, and end what it leaves; it writes to `log`."""
    place.mkdir(parents=True)
    with (place / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=place, stdout=log, stderr=log, start_new_session=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with suppress(ProcessLookupError):  # joblib's workers outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode > 0 or (process.returncode and seconds is None):
        sys.exit(f"{' '.join(words)} ended with {process.returncode}:\n{(place / 'log').read_text()[-3000:]}")


def measured(search: str, place: Path, began: float) -> dict[str, Any]:
    """The FIDs of trained trials, with the seconds at which each was known, and that of the confirmation."""
    found = []
    for file in place.glob("outputs/bench/*/metrics.json"):
        number = int(file.parent.name) if file.parent.name.isdigit() else -1
        found.append((file.stat().st_mtime - began, json.loads(file.read_text())["scores"]["val/fid"], number))
    confirmed = None
    if (file := place / "sweeps/bench/confirmation.json").exists():
        from steady.confirm import confirmation

        result = confirmation.read(file.parent)
        confirmed = result.winner.mean() if result else None
    begun = sum(folder.is_dir() and folder.name != "confirm" for folder in place.glob("outputs/bench/*"))
    return {"search": search, "scores": sorted(found), "begun": begun, "confirmed": confirmed}


def reached(scores: Sequence[Sequence[float]], goal: float, enqueued: int = 0) -> float:
    """Seconds until a FID as good as the goal was known, without the first trials that were enqueued."""
    counted = [one for one in scores if not enqueued or one[2] >= enqueued]  # those of Ray have no number
    return min((seconds for seconds, fid, _ in counted if fid <= goal), default=math.inf)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a search and seed, with the seconds after which it was as good as a rival of ours at its end."""
    heads = ["seed", "search", "trials begun", "ended", "best FID", "confirmed", "as good as stock", "as ray"]
    lines = [heads, ["---:"] * len(heads)]
    for row in sorted(rows, key=lambda row: (row["seed"], SEARCHES.index(row["search"]))):
        same = {other["search"]: best(other) for other in rows if other["seed"] == row["seed"]}
        since = [since_when(row, same[name]) if name in same else "" for name in ("stock", "ray")]
        confirmed = "" if row["confirmed"] is None else f"{row['confirmed']:.1f}"
        told = [row["seed"], row["search"], row["begun"], len(row["scores"]), f"{best(row):.1f}", confirmed, *since]
        lines.append([str(one) for one in told])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def best(row: Mapping[str, Any]) -> float:
    """The best FID of a search."""
    return float(min(fid for _, fid, _ in row["scores"]))


def since_when(row: Mapping[str, Any], goal: float) -> str:
    """Seconds until a search had a FID, and, of ours, until a trial that was not enqueued had it."""
    enqueued = len(sweeper()["enqueue"])
    found = [reached(row["scores"], goal, after) for after in ((0, enqueued) if row["search"] in OURS else (0,))]
    return " / ".join(f"{seconds:.0f} s" for seconds in found)


def main() -> None:
    """Run what is missing, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--ray-python", default=sys.executable)
    parser.add_argument("--results", type=Path, default=Path("outputs/compare"))
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    rows = given.results / "results.jsonl"
    known = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    folder = given.results.resolve()
    prepared = fixed(given.photos.resolve(), folder / "ready", 60, 0)
    if not (folder / "ready").exists():
        run([sys.executable, str(ROOT / "src/train.py"), *prepared, "epochs=1"], folder / "prepare", None)
    for seed in given.seeds:
        for search in given.searches:
            if any((row["search"], row["seed"]) == (search, seed) for row in known):
                continue
            place, began = (given.results / f"{search}-{seed}-{time.time():.0f}").resolve(), time.time()
            same = fixed(given.photos.resolve(), folder / "ready", SHARES[search] * given.seconds, seed)
            words = command(search, same, given.seconds, seed, given.ray_python)
            run(words, place, None if search in OURS else given.seconds)
            load = [round(one, 1) for one in os.getloadavg()]
            row = {"seed": seed, **measured(search, place, began), "took": time.time() - began, "load": load}
            if not row["scores"]:
                sys.exit(f"No trial of {search} ended, so there is nothing to compare: see {place / 'log'}.")
            known.append(row)
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{table(known)}\n{search}, seed {seed}: {row['took']:.0f} s, load at its end {load}", flush=True)
    print(table(known))


if __name__ == "__main__":
    main()
