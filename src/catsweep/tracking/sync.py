"""Upload to Weights & Biases what was recorded offline, each part once: `make wandb-sync`.

wandb's own `sync` does the work. It takes the parts of a run that was resumed in the order in which they were
recorded, appends each to the one before, and leaves a mark beside what it has uploaded.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from catsweep.errors import CatsweepError, ConfigError
from catsweep.tracking.loggers import has_key
from steady.printing import readable, say

SERVICE = "wandb-core"  # the process that writes
RECORDS = Path("outputs/wandb")  # `save_dir` of conf/logger/wandb.yaml
FRESH = 60.0  # seconds; what a run records is written every 15, and at its end that it has ended
MARK = "*.wandb.synced"  # what wandb leaves beside an uploaded record
# A record is a log of LevelDB's format: blocks, in which pieces of entries stand behind headers of their own.
BLOCK, HEADER, WHOLE, LAST = 32768, 7, 1, 4


def main(words: list[str] | None = None) -> None:
    """Upload what is not online yet; errors end the process with a message."""
    parser = argparse.ArgumentParser(description="Upload to Weights & Biases what was recorded offline.")
    parser.add_argument("folder", nargs="?", type=Path, default=RECORDS, help=f"of the records; {RECORDS} if not given")
    try:
        say(sync(parser.parse_args(words).folder))
    except CatsweepError as error:
        raise SystemExit(readable(f"{type(error).__name__}: {error}")) from None


def sync(folder: Path) -> str:
    """Upload what is not online yet, and say what was done; a `ConfigError` if that cannot be."""
    waiting = pending(folder)
    if not waiting:
        return f"Nothing to upload: no offline run in {folder} that is not online already."
    written = _written_here()
    going_on = [part for part in waiting if _record(part) in written or _written_elsewhere(part)]
    # Marked as uploaded, its later values would never follow; and a later part must not come before it.
    busy = {_run_of(part) for part in going_on}
    ready = [part for part in waiting if _run_of(part) not in busy]
    note = f" {_runs(going_on)} still going on, and left for later." if going_on else ""
    if not ready:
        return f"Nothing to upload yet:{note}"
    if not has_key():
        raise ConfigError(
            f"{_runs(ready)} waiting in {folder}, and Weights & Biases has no key here. "
            "Run `wandb login`, or set WANDB_API_KEY, where there is a network; then make wandb-sync again."
        )
    cut = _upload(ready)
    # One damaged record stops wandb before it begins; then each run has a call of its own.
    for run in {_run_of(part) for part in ready if not _is_online(part)} if len(ready) > 1 else ():
        _upload([part for part in ready if _run_of(part) == run and not _is_online(part)])
    if left := [part for part in ready if not _is_online(part)]:
        raise ConfigError(
            f"wandb did not upload {', '.join(part.name for part in left)}; above it says why. What is damaged can be "
            f"removed, the rest goes on with make wandb-sync.{note}"
        )
    if cut:
        names = ", ".join(part.name for part in cut)
        note = f" The last entry of {names} is cut, as of a run that was killed: all before it is online.{note}"
    runs = len({_run_of(part) for part in ready})
    return f"Uploaded {runs} run{'s' * (runs > 1)}, in {len(ready)} part{'s' * (len(ready) > 1)}.{note}"


def pending(folder: Path) -> list[Path]:
    """List the offline records that are not online, in the order in which they were begun."""
    return sorted(part for part in folder.glob("offline-run-*") if _record(part) and not _is_online(part))


def _record(part: Path) -> Path | None:
    return next(iter(sorted(part.resolve().glob("*.wandb"))), None)


def _is_online(part: Path) -> bool:
    return any(part.glob(MARK))


def _run_of(part: Path) -> str:
    """Id of a part's run: `cats-0` of `offline-run-20261126_105431-cats-0`."""
    return part.name.removeprefix("offline-run-").partition("-")[2]


def _runs(parts: list[Path]) -> str:
    n = len({_run_of(part) for part in parts})
    return f"{n} run is" if n == 1 else f"{n} runs are"


def _written_here() -> set[Path]:
    """Paths of the records that a process of this machine has open."""
    found = set()
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == SERVICE:
            try:
                found |= {Path(one.path) for one in process.open_files()}
            except psutil.Error:  # another user's, or it has just ended
                continue
    return found


def _written_elsewhere(part: Path) -> bool:
    """Whether a process of another machine may still write a record: it has no end, and is fresh."""
    record = _record(part)
    if record is None or time.time() - record.stat().st_mtime > FRESH:
        return False
    looked = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(record)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, "WANDB_ERROR_REPORTING": "false"},  # it would tell its server that it looked
    )  # fmt: skip
    try:
        return json.loads(looked.stdout)["state"] in ("running", "unknown")
    except (ValueError, KeyError, TypeError):
        return False  # not readable: wandb will say why


def _upload(parts: list[Path]) -> list[Path]:
    """Upload parts in one call, so that wandb orders those of a run, and return those whose last entry is cut.

    wandb never marks a cut record as uploaded, so it is given a copy of all that is whole; the original stays.
    """
    with tempfile.TemporaryDirectory(prefix="catsweep-sync-") as folder:
        cut = {}
        for part in parts:
            record = _record(part)
            if record is not None and HEADER < (end := _end_of_whole(record)) < record.stat().st_size:
                cut[part] = shutil.copytree(part.resolve(), Path(folder, part.name), symlinks=True)
                os.truncate(cut[part] / record.name, end)
        paths = [str(cut.get(part, part)) for part in parts]
        subprocess.run([sys.executable, "-m", "wandb", "sync", *paths], stdin=subprocess.DEVNULL, check=False)
        for part, copy in cut.items():
            for mark in copy.glob(MARK):
                shutil.copyfile(mark, part / mark.name)
    return list(cut)


def _end_of_whole(record: Path) -> int:
    """Find where the last whole entry of a record ends, in bytes."""
    place = end = HEADER  # the file has one, too
    size = record.stat().st_size
    with record.open("rb") as file:
        while place + HEADER <= size:
            if (left := BLOCK - place % BLOCK) < HEADER:  # no piece begins so near the end of a block
                place += left
                continue
            file.seek(place)
            head = file.read(HEADER)  # checksum (4 bytes), length (2), kind of piece
            place += HEADER + int.from_bytes(head[4:6], "little")
            if head[6] in (WHOLE, LAST) and place <= size:
                end = place
    return end


if __name__ == "__main__":
    main()
