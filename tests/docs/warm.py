"""A process that has imported what the commands import, and forks one for each command it is told to run.

Run as a program by `tests/docs/shop.py`. Orders come as lines of JSON on standard input: {argv, env, path, cwd, out}.
For each it answers with two lines: the process id of the command, then its exit code and the seconds of CPU it took. So
a command costs what it does, and not the five seconds of importing torch.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

# What the entry points import once they have read their command line, by which the rest comes.
PRELOAD = [
    "catsweep.training", "steady.sweep", "steady.jobs.executor", "catsweep.prepare.pipeline",
    "catsweep.prepare.verify_page", "catsweep.export.bundle", "catsweep.export.choice",
    "hydra_plugins.steady_sweeper.steady_sweeper", "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper",
    "optuna", "onnxruntime", "onnxscript", "plotly", "wandb", "kornia",
    "griffe", "mkdocs.commands.build", "mkdocstrings", "diffusers.models.autoencoders.autoencoder_kl",
]  # fmt: skip


def main() -> None:
    """Serve until standard input ends."""
    for name in PRELOAD:
        importlib.import_module(name)
    # Sweeps fork their trials from a fork server; all of them shall use this one instead of warming up one each.
    from steady.jobs import executor
    from steady.jobs.detached import warm_up_hydra

    warm_up_hydra()
    executor.warm_context(["catsweep.training.fit"])
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        print(pid, file=answers, flush=True)
        _, status, used = os.wait4(pid, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, file=answers, flush=True)


def _become(order: dict) -> None:
    """Be the command; never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        atexit._clear()  # what is to be done when the parent ends, such as removing wandb's temporary files
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        _redirect(order["out"])
        forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # it is not our child
        sys.argv = order["argv"]
        sys.path[:0] = order["path"]
        code = _run(sys.argv)
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _redirect(out: str) -> None:
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(end), mode) for end, mode in enumerate("rww"))


def _run(argv: list[str]) -> int:
    """Run a file, or with -m a module, as Python does; its exit code."""
    try:
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(argv[0]).parent.resolve()))
            runpy.run_path(os.path.abspath(argv[0]), run_name="__main__")  # `__file__` is absolute, as Python has it
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    return code


if __name__ == "__main__":
    main()
