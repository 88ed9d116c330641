"""The stock sweeper against ours: how busy slots are, and what a trial costs beside its work.

The same sleeping trials under both, in batches and in steady state. Real searches are compared in `search/compare.py`.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASK = Path(__file__).parent / "sleeper" / "task.py"
TRIALS_PER_SLOT = 6
# Slots, sigma, share of short trials.
CASES = ((1, 0.6, 0.0), (2, 0.6, 0.0), (8, 0.6, 0.0), (2, 0.6, 0.7), (8, 0.6, 0.7))
SWEEPERS = {
    "stock": ["hydra/sweeper=optuna", "hydra/launcher={launcher}"],
    "steady": ["hydra/sweeper=steady"],
}


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


if __name__ == "__main__":
    compare_sleeping()
