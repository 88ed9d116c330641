"""What comes in of the message in which a process tells how it ended."""

import os
import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
from omegaconf import DictConfig

from steady import reporting
from steady.exceptions import InterruptedTrial
from steady.jobs.worker import CHUNK, HEAD, Incoming, run_task, send
from steady.study.failures import Kind, Outcome


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = Pipe()
    with ours, theirs:
        yield ours, theirs


def test_nothing_is_waited_for(ends: tuple[Connection, Connection]) -> None:
    ours, theirs = ends
    incoming = Incoming(ours)
    for part in (HEAD.pack(9)[:3], HEAD.pack(9)[3:], b"a part"):
        assert incoming.take() is None
        os.write(theirs.fileno(), part)
    assert incoming.take() is None
    assert not incoming.over
    theirs.close()
    assert incoming.take() is None
    assert incoming.over


@pytest.mark.parametrize("size", [0, CHUNK, 40 * CHUNK], ids=["small", "of some reads", "more than a pipe holds"])
def test_what_was_sent_comes_whole(ends: tuple[Connection, Connection], size: int) -> None:
    ours, theirs = ends
    outcome = Outcome(Kind.FAILED, message="a word", traceback="x" * size)
    sender = threading.Thread(target=send, args=(theirs, outcome))
    sender.start()
    incoming = Incoming(ours)
    while (came := incoming.take()) is None:
        ours.poll(None)
    sender.join()
    assert came == outcome
    assert incoming.over


def test_one_that_died_with_its_job_unread_has_told_nothing(ends: tuple[Connection, Connection]) -> None:
    ours, theirs = ends
    ours.send("a job")
    theirs.close()
    incoming = Incoming(ours)
    assert incoming.take() is None
    assert incoming.over


def test_reports_that_wait_are_written_before_an_interruption_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bool] = []
    monkeypatch.setattr(reporting, "flush", lambda interrupted=False: written.append(interrupted))

    def interrupted(config: DictConfig) -> float:
        raise InterruptedTrial("at a checkpoint")

    with pytest.raises(InterruptedTrial):
        run_task(interrupted, DictConfig({}))
    assert run_task(lambda config: 0.5, DictConfig({})) == 0.5
    assert written == [True, False]
