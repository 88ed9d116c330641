"""The one message in which a trial's process tells how it ended, read without waiting for what never comes.

Whatever the trial has forked holds the trial's end of the pipe too, and may outlive it: the pipe then says nothing of
its end, nor does the rest follow of a message in the middle of which the trial was killed. A read that waits for
either, as `Connection.recv` does, would stop the controller of all trials.
"""

import os
import pickle
import struct
from multiprocessing.connection import Connection

from catsweep.search.outcome import Outcome

HEAD = struct.Struct("!Q")  # the size of what follows, in bytes
CHUNK = 1 << 16


def send(pipe: Connection, outcome: Outcome) -> None:
    """Send the message.

    Raises:
        OSError: the controller is gone.
    """
    body = pickle.dumps(outcome)
    left = memoryview(HEAD.pack(len(body)) + body)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


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
        """Take in what has come so far, and give the message as soon as it is whole."""
        while not self.over and self.pipe.poll():  # a read after that returns at once, if with less than it asks for
            try:
                chunk = os.read(self.pipe.fileno(), CHUNK)
            except OSError:  # it died before it had read its job
                chunk = b""
            self._read += chunk
            self.over = not chunk or self._whole()
        return pickle.loads(self._read[HEAD.size :]) if self._whole() else None

    def _whole(self) -> bool:
        return len(self._read) >= HEAD.size and len(self._read) - HEAD.size >= HEAD.unpack_from(self._read)[0]
