"""What the tests see of the machine: the same everywhere. Imported first of all, and in force when it has been.

A suite is run in a job of SLURM, under `torchrun`, by somebody with an account at W&B, in Turkish, with a home that is
read-only. None of that is what a test is about, and most libraries look at it when they are imported. So only the
variables of `KEPT` stay; processes that tests start inherit what is here, too.
What the *commands* make of such a machine is tested in `tests/test_environment.py`.
"""

import atexit
import locale
import os
import re
import shutil
import signal
import tempfile
from contextlib import suppress

# Where programs and packages lie, who runs the tests and how, and which instructions the processor may use.
KEPT = re.compile(
    r"PATH|LD_LIBRARY_PATH|DYLD_\w+|PYTHON(HOME|PATH|DONTWRITEBYTECODE)|VIRTUAL_ENV|TMPDIR|TEMP|TMP"
    r"|CI|COV\w+|PYTEST_\w+|ATEN_CPU_CAPABILITY|(ONEDNN|DNNL|MKL|OPENBLAS|NPY|OPENCV)_\w+|MALLOC_\w+"
)


def settle() -> None:
    """Leave nothing to the machine: variables, home, locale, umask and what is done at SIGINT and SIGHUP."""
    worker = "PYTEST_XDIST_WORKER" in os.environ  # its variables are those of the process that has started it
    home = os.environ.get("HOME", "") if worker else tempfile.mkdtemp(prefix="catsweep-home-")
    if not worker:
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in list(os.environ):
        if not KEPT.fullmatch(name):
            del os.environ[name]
    os.environ |= {
        "HOME": home,
        "USER": "tester",
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm",
        "CUDA_VISIBLE_DEVICES": "",  # a sweep would have a slot for each GPU
        "OMP_NUM_THREADS": "1",  # the suite runs on two shared cores
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with suppress(locale.Error):  # not every system has it; Python then reads UTF-8 where its own locale does
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
    os.umask(0o022)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; tests interrupt what they start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under `nohup`; tests hang up what they start
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


settle()
