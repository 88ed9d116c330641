"""Preloaded into the fork server of a sweep: writes down at each fork whether CUDA had been touched in it by then.

The file is named by the environment variable CATSWEEP_FORKS: a line of JSON per fork, {"pid": …, "touched": …}. What
runs in a trial writes under a number of its own, so that the fork server's lines can be told from it.
"""

import json
import os

import torch


def note(path: str) -> None:
    """Append a line about this process."""
    # `is_initialized` of a process forked from one that had touched CUDA is false again; hence the second word.
    touched = torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), "touched": touched}) + "\n")


if path := os.environ.get("CATSWEEP_FORKS"):
    os.register_at_fork(before=lambda path=path: note(path))
