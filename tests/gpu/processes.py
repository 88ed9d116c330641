"""Looks at a running sweep from outside: its fork server, its trials, and which of them have the GPU open."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

FORK_SERVER = "multiprocessing.forkserver"  # in the command line of Python's fork server
DEVICES = "/dev/nvidia"
PAUSE = 0.2  # seconds between two looks


@dataclass
class Seen:
    """What all looks together have shown.

    Attributes:
        looks: how many there were.
        server: pid of the fork server.
        trials: its children that had the GPU open (on the processor: that worked for more than half a second).
        at_once: most of them in one look.
        server_devices: device files of NVIDIA's driver that the fork server had open in any look.
        listed: pids that nvidia-smi listed as computing on the GPU.
    """

    looks: int = 0
    server: int | None = None
    trials: set[int] = field(default_factory=set)
    at_once: int = 0
    server_devices: set[str] = field(default_factory=set)
    listed: set[int] = field(default_factory=set)

    def look(self, controller: int, on_gpu: bool) -> None:
        """Look once at the processes under the sweep's controller."""
        self.looks += 1
        with suppress(psutil.Error):
            for process in psutil.Process(controller).children(recursive=True):
                with suppress(psutil.Error):
                    if FORK_SERVER in " ".join(process.cmdline()) and process.ppid() == controller:
                        self.server = process.pid
        if self.server is None:
            return
        self.server_devices |= devices(self.server)
        with suppress(psutil.Error):
            children = psutil.Process(self.server).children()
            working = {child.pid for child in children if (devices(child.pid) if on_gpu else _has_worked(child))}
            self.trials |= working
            self.at_once = max(self.at_once, len(working))


def devices(pid: int) -> set[str]:
    """The files of NVIDIA's driver that a process has open."""
    opened = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                opened.add(os.readlink(descriptor))
    return {file for file in opened if file.startswith(DEVICES)}


def _has_worked(process: psutil.Process) -> bool:
    times = process.cpu_times()
    return bool(times.user + times.system > 0.5)


def watch(process: "subprocess.Popen[bytes]", on_gpu: bool) -> Seen:
    """Look at a sweep until it ends."""
    seen = Seen()
    while process.poll() is None:
        seen.look(process.pid, on_gpu)
        if on_gpu and seen.looks % 5 == 0:
            seen.listed |= computing()
        time.sleep(PAUSE)
    return seen


def computing() -> set[int]:
    """Pids of what computes on the GPUs, as nvidia-smi lists them; within a container it may list none."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return set()
    words = [tool, "--query-compute-apps=pid", "--format=csv,noheader"]
    return pids(subprocess.run(words, capture_output=True, text=True, check=False).stdout)


def pids(listing: str) -> set[int]:
    """The numbers in a listing of one pid a line; other lines say that there are none, or that it is forbidden."""
    return {int(line) for line in listing.split() if line.isdigit()}


def touched(lines: Iterable[str], server: int | None) -> tuple[int, int]:
    """How many forks of the fork server `forks.py` noted, and at how many of them CUDA had been touched."""
    notes = [note for note in map(json.loads, lines) if note["pid"] == server]
    return len(notes), sum(note["touched"] for note in notes)
