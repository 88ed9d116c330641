"""A journal file as a storage that no full disk or power cut leaves unreadable."""

import bisect
import json
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from steady.exceptions import ConfigError
from steady.storage.storage_errors import RECORD
from steady.storage.trial_marks import Mark, mark

log = logging.getLogger(__name__)


class AtomicJournalBackend(JournalFileBackend):
    """A journal file that is appended to by whole lines only.

    A full disk or a power cut ends a line midway. Optuna appends behind it, and nobody can read the joint line; until
    then finished trials are handed out again.
    """

    def __init__(self, path: Path) -> None:
        # Optuna's default lock is a symbolic link. One that a killed process left, to a relative path, is never freed.
        self.path, self.lock = path, JournalFileOpenLock(str(path))
        super().__init__(str(path), lock_obj=self.lock)

    def mend(self) -> None:
        """Cut off an incomplete last line, and keep it beside the journal; a ConfigError if it is none."""
        with self._locked() as file:
            file.seek(0)
            content = file.read()
            if not content.startswith(RECORD[: len(content)]):
                raise ConfigError(f"{self.path} is no journal of Optuna; choose another file. It was left alone.")
            start = content.rfind(b"\n", 0, -1) + 1
            with suppress(ValueError):  # of what is no JSON
                if not content or (content.endswith(b"\n") and isinstance(json.loads(content[start:]), dict)):
                    return
            self._cut(file, start)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines, or none: an earlier torn line is cut off; ours is taken back if it fails."""
        lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in logs).encode()
        with self._locked() as file:
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                end = self._cut(file, self.path.read_bytes().rfind(b"\n") + 1)
            try:
                written = 0
                while written < len(lines):
                    written += file.write(lines[written:]) or 0
            except OSError:
                file.truncate(end)
                raise
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        self.lock.acquire()
        try:
            with self.path.open("a+b", buffering=0) as file:
                yield file
        finally:
            self.lock.release()

    def _cut(self, file: FileIO, start: int) -> int:
        file.seek(start)
        with self.path.with_name(self.path.name + ".torn").open("ab") as kept:
            kept.write(file.read())
        file.truncate(start)
        log.warning("The last line of %s was torn; it was cut off, and is kept in %s.torn", self.path, self.path.name)
        return start


class MarkedJournalStorage(JournalStorage):
    """A journal that tells which trials have changed without listing all of them."""

    def get_trial_marks(self, study_id: int, ids: Collection[int], above: int) -> dict[int, Mark]:
        """Get the marks (`steady.storage.trial_marks`) of a study's trials with these ids, and those with higher ones.

        A trial is found by its id, and ids of one study rise with the numbers of its trials.
        """
        with self._thread_lock:
            self._sync_with_backend()
            trials, own = self._replay_result._trials, self._replay_result._study_id_to_trial_ids[study_id]
            new = own[bisect.bisect_right(own, above) :]
            return {id: mark(trials[id]) for id in (*ids, *new)}
