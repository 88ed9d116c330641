"""What processes do that the tests of storages and of leases start at once: light, for each imports it anew."""

import signal
from pathlib import Path
from typing import Any

import optuna

from steady.storage import open_storage
from steady.study.leases import Leases

barrier: Any = None


def meet_at(here: Any) -> None:
    """Have `count` and `claim` of this process begin when those of the others do."""
    global barrier
    barrier = here


def make(folder: str, here: Any) -> None:
    for scheme in ("sqlite", "journal"):
        for n in range(5):
            url = f"{scheme}:///{folder}/{scheme}/{n}/study"
            here.wait()
            study = optuna.create_study(study_name="s", storage=open_storage(url), load_if_exists=True)
            study.tell(study.ask(), 1.0)


def registered(url: str) -> Leases:
    storage = open_storage(url)
    optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
    leases = Leases(storage, "s")
    leases.register()
    return leases


def count(url: str, path: str, rounds: int) -> None:
    leases = registered(url)
    barrier.wait()
    for _ in range(rounds):
        with leases.lock("counter"):
            number = int(Path(path).read_text())
            Path(path).write_text(str(number + 1))
    leases.close()


def claim(url: str, rounds: int) -> list[bool]:
    leases = registered(url)
    won = []
    for n in range(rounds):
        barrier.wait()
        won.append(leases.claim(f"trial/{n}"))
    barrier.wait()  # nobody leaves, and so releases, before all have tried
    leases.close()
    return won


def hold(url: str, ready: Any) -> None:
    leases = registered(url)
    assert leases.claim("x")
    ready.set()
    signal.pause()
