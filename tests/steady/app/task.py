"""A Hydra app for the tests of the sweeper, see config.yaml. Run as users run theirs: `python task.py -m …`."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import hydra
import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from steady.reporting import TrialReporter


def fail(fault: str) -> None:
    """One way for a trial to end badly."""
    if fault == "raise":
        raise RuntimeError("a fault of the task")
    if fault == "memory":
        raise MemoryError("too wide")
    if fault == "prune":
        raise optuna.TrialPruned
    if fault == "exit":
        os._exit(3)
    if fault == "sys.exit":
        sys.exit(4)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "interrupt":
        raise KeyboardInterrupt
    if fault == "daemon":  # as one of the app's own would: with a session of its own, deaf, and its parent gone
        leave("daemon")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def leave(told: str) -> None:
    """Start a process that outlives whoever started it, and have it write down its number."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Path(told).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        signal.pause()


@hydra.main(config_path=".", config_name="config")
def main(cfg: DictConfig) -> float | list[float]:
    """Do `steps` steps, each written to a file that the next attempt goes on from."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = folder / "steps.txt"
    if cfg.fault == "stop":  # none, but an answer to SIGTERM: to stop between steps, or in one that is then done again
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    number = HydraConfig.get().job.num
    if number in cfg.faulty and not (cfg.fault == "once" and cfg.trial.attempt):
        fault = cfg.fault if isinstance(cfg.fault, str) else cfg.fault[list(cfg.faulty).index(number)]
        fail("kill" if fault == "once" else fault)
    reporter = TrialReporter.from_config(cfg.trial) if cfg.notes or cfg.reports else None
    if cfg.notes and reporter and reporter.note({"size": abs(cfg.x)}):
        raise optuna.TrialPruned
    value = float(cfg.x) ** 2 + "abc".index(cfg.y)
    done = len(checkpoint.read_text().splitlines()) if checkpoint.exists() else 0
    for step in range(done, cfg.steps):
        if cfg.reports and reporter and step and reporter.report(step, {"loss": value + 1 / step}):
            raise optuna.TrialPruned
        time.sleep(cfg.seconds)
        with checkpoint.open("a") as file:
            file.write(f"{step} {cfg.x} {cfg.y} {os.getpid()}\n")
    return value if cfg.objectives == 1 else [value, -value]


if __name__ == "__main__":
    main()
