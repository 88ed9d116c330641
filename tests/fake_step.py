"""A step of `src/cats.py` that does nothing but leave what the command would leave; its script's name says which.

`fake.json` in the working directory says how it behaves, by step: "fid" of a training; "runners_up", trials that a
choice names behind the best; "judged", a folder of what else an export or a training leaves; "exit" or "signal" with
which it ends before it has left anything; "nothing": it ends well all the same; "after": a code with which it ends when
it has left everything; "waits": until the file `go` is there; "keeps": the folders of trials that are there already. Of
a training, there is also a step with the name of the folder that is trained in, such as "longer-4".
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    command, words = Path(sys.argv[0]).stem, sys.argv[1:]
    step = {"best_model": "choose", "train": "search" if "-m" in words else "train"}.get(command, command)
    given = {key.split(".")[-1]: value.strip("'") for key, _, value in (word.partition("=") for word in words)}
    append("calls", [step, words])
    if "CUDA_VISIBLE_DEVICES" in os.environ and "resume" in given:
        write(f"{given['resume']}/gpus", os.environ["CUDA_VISIBLE_DEVICES"])
    if "OMP_NUM_THREADS" in os.environ:
        append("threads", [step, os.environ["OMP_NUM_THREADS"]])
    fakes = json.loads(Path("fake.json").read_text()) if Path("fake.json").exists() else {}
    fake = fakes.get(Path(given["resume"]).name, fakes.get(step, {})) if "resume" in given else fakes.get(step, {})
    if fake.get("waits"):
        signal.signal(signal.SIGTERM, stopped)  # before the line that tests wait for
    print(f"this is {step}", flush=True)
    if fake.get("waits"):
        while not Path("go").exists():
            time.sleep(0.02)
    if "signal" in fake:
        os.kill(os.getpid(), fake["signal"])
    if "exit" in fake:
        print("Nothing works: [red]no\x1b[2J cats")
        sys.exit(fake["exit"])
    if not fake.get("nothing"):
        LEAVE[step](given, fake)
    sys.exit(fake.get("after", 0))


def stopped(*_: object) -> None:
    with Path("stopped").open("a") as file:
        file.write("at a checkpoint\n")
    sys.exit(143)


def append(path: str, content: object) -> None:
    """Add a line: steps that run side by side may do so at the same time."""
    with Path(path).open("a") as file:
        file.write(json.dumps(content) + "\n")


def write(path: str, content: object) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def prepare(given: dict[str, str], fake: dict[str, object]) -> None:
    del fake
    shutil.rmtree(f"data/ready/{given['name']}-{given['size']}", ignore_errors=True)
    Path("ready").rename(f"data/ready/{given['name']}-{given['size']}")
    faces = "4 of 4 photos were taken whole: a face was found for sure in none."
    for stage, note in (("original", "no"), ("zoom", f"{faces} To cut to the face all the same: zoom.whole=never.")):
        write(f"data/stages/{given['name']}/{stage}/card.json", {"stage": stage, "notes": [note]})


def search(given: dict[str, str], fake: dict[str, object]) -> None:
    seconds = 60 * float(given["minutes"]) + 20
    write(
        f"sweeps/{given['study']}/leaderboard.csv",
        f"trial,state,seconds,cpu_seconds,attempts\n3,complete,{seconds},{60 * float(given['minutes'])},1\n",
    )
    for number in (3, 4, 5):
        if fake.get("keeps") and Path(f"outputs/{given['study']}/{number}").exists():
            continue
        trial = f"outputs/{given['study']}/{number}"
        write(f"{trial}/config.yaml", f"model: {{latent_size: 8}}\ntrial: {{number: {number}, study: cats}}\n")
        write(f"{trial}/.hydra/overrides.yaml", f"[model=vae, minutes=0.5, trial.number={number}, seed=0]")
        write(f"{trial}/provenance.json", {})
        for name in ("best", "last"):
            write(f"{trial}/checkpoints/{name}.ckpt", name)


def choose(given: dict[str, str], fake: dict[str, Any]) -> None:
    found = [
        {"trial": number, "run": f"outputs/{given['study']}/{number}", "values": {"val/fid": 37.0 + number}}
        for number in (3, *fake.get("runners_up", []))
    ]
    objectives = [{"name": "val/fid", "direction": "minimize"}]
    choice = {**found[0], "objectives": objectives, "runners_up": found[1:]}
    write(f"{given['out']}/choice.json", choice)


def train(given: dict[str, str], fake: dict[str, object]) -> None:
    write(f"{given['resume']}/metrics.json", {"scores": {"val/fid": fake.get("fid", 30.0)}})
    if "judged" in fake:
        shutil.copytree(str(fake["judged"]), given["resume"], dirs_exist_ok=True)


def export(given: dict[str, str], fake: dict[str, object]) -> None:
    run = Path(given["run"])
    name = f"{run.parent.name}-{'3' if run.name == 'winner' else run.name}"
    write(f"outputs/exports/{name}/samples.png", "cats")
    if "judged" in fake:
        shutil.copytree(str(fake["judged"]), f"outputs/exports/{name}", dirs_exist_ok=True)


def report(given: dict[str, str], fake: dict[str, object]) -> None:
    del fake
    write(f"sweeps/{given['study']}/report.html", "cats")


LEAVE = {
    "prepare": prepare, "search": search, "choose": choose, "train": train, "export": export, "report": report
}  # fmt: skip

if __name__ == "__main__":
    main()
