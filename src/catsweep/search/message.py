"""The one message in which a trial's process tells how it ended, read without waiting for what never comes.

Whatever the trial has forked holds the trial's end of the pipe too, and may outlive it: the pipe then says nothing of
its end, nor does the rest follow of a message in the middle of which the trial was killed. A read that waits for
either, as `Connection.recv` does, would stop the controller of all trials.

The message is JSON, and bounded: what a trial returns, or writes to the pipe by mistake, is no object of ours until
it has been looked at, and must neither end the controller nor fill its memory.
"""

import json
import os
import struct
from multiprocessing.connection import Connection
from typing import Any

from catsweep.search.outcome import Kind, Outcome, classify

HEAD = struct.Struct("!Q")  # the size of what follows, in bytes
CHUNK = 1 << 16
LARGEST = 1 << 24  # bytes of a message: objective values, or what a preflight finds


def send(pipe: Connection, outcome: Outcome) -> None:
    """Send the message. A value that cannot be sent is told as a failure.

    Raises:
        OSError: the controller is gone.
    """
    try:
        body = _packed(outcome)
    except BaseException as error:  # of what the task returned, whose methods are called
        body = _packed(classify(error))
    left = memoryview(HEAD.pack(len(body)) + body)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def _packed(outcome: Outcome) -> bytes:
    told = {**vars(outcome), "kind": outcome.kind.value}
    body = json.dumps(told, default=_plain).encode()
    if len(body) > LARGEST:
        raise ValueError(
            f"The task returned {len(body):,} bytes; expected its objective values, in at most {LARGEST:,} bytes."
        )
    return body


def _plain(value: Any) -> Any:
    """A number as Python's own, a tensor's for one, and what is no number in words."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return repr(value)


class Incoming:
    """The message as it comes in.

    Args:
        pipe: the controller's end, which nobody else reads.

    Attributes:
        over: whether nothing more will come.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.over = False
        self._read = bytearray()

    def take(self) -> Outcome | None:
        """Take in what has come so far, and give the message as soon as it is whole, or can be none."""
        while not self.over and self.pipe.poll():  # a read after that returns at once, if with less than it asks for
            try:
                chunk = os.read(self.pipe.fileno(), CHUNK)
            except OSError:  # it died before it had read its job
                chunk = b""
            self._read += chunk
            self.over = not chunk or self._whole()
        return _unpacked(bytes(self._read[HEAD.size :])) if self._whole() else None

    def _whole(self) -> bool:
        if len(self._read) < HEAD.size:
            return False
        size: int = HEAD.unpack_from(self._read)[0]
        return size > LARGEST or len(self._read) - HEAD.size >= size


def _unpacked(body: bytes) -> Outcome:
    try:
        told = json.loads(body)
        return Outcome(Kind(told["kind"]), told["value"], str(told["message"]), str(told["traceback"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Outcome(Kind.LOST, message="Something else than a result came from the process: the task wrote to it.")
