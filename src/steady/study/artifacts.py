"""Attach files of a trial as Optuna's artifacts, which its dashboard shows beside the scores.

`steady.run.ledger` attaches a trial's newest files before it ends the trial, after which nothing can be attached, and
`steady.run.scheduler` now and then while it runs.
"""

import json
import logging
import mimetypes
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.exceptions import UpdateFinishedTrialError

from steady import safe_paths
from steady.atomic import replacing
from steady.exceptions import StudyError
from steady.safe_paths import checked_name
from steady.study.trial_store import TrialStore

log = logging.getLogger(__name__)

FOLDER = "artifacts"  # in the study's folder, also when its storage is a server
OTHER = "application/octet-stream"  # type of a file whose name tells none


class Store(FileSystemArtifactStore):
    """An artifact store in a folder, which is made when it is needed. Files are written atomically."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file; an earlier one of this id is replaced."""
        with replacing(self._get_filepath(artifact_id)) as unfinished, unfinished.open("wb") as file:
            shutil.copyfileobj(content_body, file)

    def _get_filepath(self, artifact_id: str) -> Path:
        # Optuna's own check lets subfolders pass, and a name may come from the study of somebody else.
        path = self.folder / checked_name(artifact_id, "An artifact", StudyError)
        safe_paths.refuse_links([path], self.folder.parent, "study", StudyError)
        safe_paths.refuse_links([path], self.folder, "study's artifacts", StudyError)
        return path


@dataclass
class Artifacts:
    """Artifacts of the trials of one study: the newest file of each pattern.

    The id of an artifact follows from study, trial and pattern, so that a resumed sweep or another controller replaces
    it.
    """

    study: optuna.Study
    record: Path  # the study's folder; `artifacts` in it keeps copies of the files
    patterns: Sequence[str]  # globs within a trial's folder

    def __post_init__(self) -> None:
        self.store = Store(self.record / FOLDER)
        self._trials = TrialStore(self.study)
        self._known: dict[str, tuple[Path, int, int]] = {}  # by id: path, time of writing and size of what is attached
        self._failed = False

    def attach(self, number: int, folder: Path) -> None:
        """Attach the newest files of a trial before it ends. A failure is only logged."""
        for pattern in self.patterns:
            try:
                self._attach(number, folder, pattern)
            except UpdateFinishedTrialError:  # another controller, which took it over, was first
                return
            except Exception as error:
                if not self._failed:
                    log.warning("No file %s of trial %d could be attached to it: %r", pattern, number, error)
                self._failed = True  # a full disk would log it at every trial

    def _attach(self, number: int, folder: Path, pattern: str) -> None:
        found = [(path.stat(), path) for path in folder.glob(pattern) if path.is_file()]
        if not found:
            return
        stat, newest = max(found, key=lambda one: (one[0].st_mtime_ns, one[1].name))
        key = json.dumps([self.study.study_name, number, pattern])
        identity, state = str(uuid.uuid5(uuid.NAMESPACE_URL, key)), (newest, stat.st_mtime_ns, stat.st_size)
        if self._known.get(identity) == state:
            return
        with newest.open("rb") as content:  # before the study names it
            self.store.write(identity, content)
        # Of the epochs of `samples` and of `reconstructions` the file names are the same.
        name = "-".join(newest.relative_to(folder).parts)
        mimetype, encoding = mimetypes.guess_type(name)
        self._trials.attach(self._trials.read(number), ArtifactMeta(identity, name, mimetype or OTHER, encoding))
        self._known[identity] = state
