"""The stock sweeper against ours: how busy slots are, what a trial costs beside its work; and on a real search.

python tests/benchmarks/sweep.py               the same sleeping trials under both, in batches and in steady state
python tests/benchmarks/sweep.py PHOTOS [N]    N VAEs (12) on photos: when has ours the stock's best FID?
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TASK = Path(__file__).parent / "sleeper" / "task.py"
TRIALS_PER_SLOT = 6
# Slots, sigma, share of short trials.
CASES = ((1, 0.6, 0.0), (2, 0.6, 0.0), (8, 0.6, 0.0), (2, 0.6, 0.7), (8, 0.6, 0.7))
EPOCHS = 8
SEEDS = (0, 1)
SWEEPERS = {
    "stock": ["hydra/sweeper=optuna", "hydra/launcher={launcher}"],
    "steady": ["hydra/sweeper=steady"],
}


class Score(NamedTuple):
    """Of a finished trial: seconds since the sweep was started, its FID, its number."""

    seconds: float
    fid: float
    number: int


def run(words: list[str], place: Path) -> float:
    """Run a command in a folder, silently; seconds it took."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started


def sleeping(sweeper: str, slots: int, sigma: float, short: float) -> tuple[float, float, float]:
    """Share of the slots' time that was slept, overhead of a trial in milliseconds, wall seconds."""
    n = TRIALS_PER_SLOT * slots
    sizes = [f"hydra.sweeper.n_jobs={slots}", f"hydra.sweeper.n_trials={n}", f"sigma={sigma}", f"short={short}"]
    words = [word.format(launcher="joblib" if slots > 1 else "basic") for word in SWEEPERS[sweeper]]
    if sweeper == "stock" and slots > 1:
        words.append(f"hydra.launcher.n_jobs={slots}")
    with tempfile.TemporaryDirectory() as place:
        wall = run([str(TASK), "-m", *words, *sizes], Path(place))
        spans = [json.loads(file.read_text()) for file in Path(place).glob("out/*/span.json")]
    assert len(spans) == n
    slept = sum(span["end"] - span["start"] for span in spans)
    # Until the last trial began: afterwards there is nothing left that an idle slot could do.
    first, last = min(span["start"] for span in spans), max(span["start"] for span in spans)
    busy = sum(min(span["end"], last) - span["start"] for span in spans if span["start"] < last)
    gap = slots * (last - first) - busy
    return (busy / (slots * (last - first)) if slept else math.nan), 1000 * gap / (n - slots), wall


def compare_sleeping() -> None:
    """Print the table of the sleeping trials."""
    print("Sleeping trials, lognormal; short: share that ends after a fifth, as pruned trials do.")
    print("busy: share of the slots' time until the last trial began. idle: of a slot between two trials; that of the")
    print("stock sweeper is what Hydra and Optuna take by themselves only where there is one slot, and none waits.")
    print("slots sigma short   busy: stock  steady   wall: stock  steady   idle: stock  steady")
    for slots, sigma, short in CASES:
        (busy, gap, wall), (ours, our_gap, our_wall) = (sleeping(name, slots, sigma, short) for name in SWEEPERS)
        print(f"{slots:>5} {sigma:>5} {short:>5}   {busy:>11.0%} {ours:>7.0%}   {wall:>10.1f}s {our_wall:>6.1f}s"
              f"   {gap:>8.0f} ms {our_gap:>4.0f} ms", flush=True)  # fmt: skip


def search(sweeper: str, photos: Path, n: int, seed: int, place: Path) -> list[Score]:
    """The scores of the trials that finished, in the order of time."""
    began = time.time()
    run([str(ROOT / "src/train.py"), "-m", "hparams_search=vae_optuna", f"hydra/sweeper={sweeper}", "data=kaggle_cats",
         f"data.source={photos}", "data.size=32", f"trials={n}", "minutes=null", f"epochs={EPOCHS}", "eval_every=4",
         f"seed={seed}", "study=bench", "logger=none",
         *(["hydra.sweeper.n_jobs=1"] if sweeper == "optuna" else [])], place)  # fmt: skip
    files = place.glob("outputs/bench/*/metrics.json")
    fids = {file: json.loads(file.read_text())["scores"]["val/fid"] for file in files}
    return sorted(Score(file.stat().st_mtime - began, fid, int(file.parent.name)) for file, fid in fids.items())


def compare_searching(photos: Path, n: int) -> None:
    """Print how long each took, and when ours was as good as the stock sweeper in the end."""
    print(
        f"{n} VAEs of {EPOCHS} epochs at 32 px; seconds until ours has the best FID that the stock sweeper ends with:"
    )
    print("with the known-good configuration that ours begins with, and with those only that it found itself")
    print("seed   best FID: stock  steady   seconds: stock  steady   until: with  without")
    for seed in SEEDS:
        found = {}
        for sweeper in ("optuna", "steady"):
            with tempfile.TemporaryDirectory() as place:
                found[sweeper] = search(sweeper, photos.resolve(), n, seed, Path(place))
        stock, steady = found["optuna"], found["steady"]
        goal = min(score.fid for score in stock)
        reached = [next((s.seconds for s in some if s.fid <= goal), math.inf)
                   for some in (steady, [s for s in steady if s.number > 0])]  # fmt: skip
        print(f"{seed:>4}   {goal:>15.1f} {min(s.fid for s in steady):>7.1f}   {stock[-1].seconds:>14.0f} "
              f"{steady[-1].seconds:>7.0f}   {reached[0]:>11.0f} {reached[1]:>8.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compare_searching(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12)
    else:
        compare_sleeping()
