"""A finished run as the export reads it: its records, why it was chosen, and what it is called.

First step of `bundle`. Its records go into a folder that may be published, so everything that names a place on this
machine is taken out of them here.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catsweep.errors import CatsweepError, ExportError
from catsweep.export.best_model import ANOTHER, CHOICE, DOCUMENTS
from catsweep.loaded import read
from catsweep.metrics.judge import FILE
from catsweep.names import checked, inside
from catsweep.records import ANY, NUMBER, TEXT, WHOLE, misshapen, read_json

USUAL = {"root": "data/ready", "cache_root": "data/statistics", "save_dir": "outputs"}
# Of what is read here and on a bundle's page, in the documents of a run that may be a stranger's.
SHAPES: dict[str, Any] = {
    "config.yaml": {
        "model": {"_target_": TEXT, "source": TEXT},
        "data": {"source": TEXT, "reader": {"_target_": TEXT}},
        "trial": {"study": TEXT, "number": WHOLE},
    },
    "metrics.json": {
        "scores": {ANY: NUMBER},
        "cards": {ANY: {"extractor": TEXT, "seed": WHOLE, "settings": {}}},
        "epoch": NUMBER,
        "seconds": NUMBER,
        "intervals": {ANY: {}},
    },
    "provenance.json": {
        "git": {"commit": TEXT},
        "packages": {ANY: TEXT},
        "data_digest": TEXT,
        "seed": WHOLE,
        "command": [TEXT],
    },
    CHOICE: {
        "objectives": [{"name": TEXT, "direction": TEXT}],
        "pareto_set": [{"trial": WHOLE, "values": {ANY: NUMBER}, "beside": {ANY: NUMBER}}],
        "seeds": {"sentence": TEXT},
        "params": {},
        "selected_by": TEXT,
        "finished_trials": WHOLE,
        "remark": TEXT,
        "judge": {"sentence": TEXT},
    },
}
CREDENTIALS = re.compile(r"://[^/@\s]+@")
# /a/b, also within key=/a/b and sqlite:////a/b; not within a URL or a relative path.
PLACE = re.compile(r"(?:(?<![\w:/.~…-])|(?<=:///))/(?:[^\s/:=,\"'\]]+/)+[^\s/:=,\"'\]]*")


@dataclass(frozen=True)
class FinishedRun:
    """A run that has been scored.

    Attributes:
        folder: of the run, or of the best model.
        config: content of `config.yaml`, plain values as they were on this machine.
        metrics: content of `metrics.json`.
        provenance: content of `provenance.json`.
        choice: content of `choice.json`; None of a run that was not chosen from a study.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    choice: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> "FinishedRun":
        """Read the records in a folder.

        Raises:
            ExportError: one is missing or damaged, they are not of a finished run, or they name it by what is no name.
        """
        if missing := [name for name in DOCUMENTS if not (folder / name).is_file()]:
            raise ExportError(
                f"Expected a finished run in {folder}; it lacks {', '.join(missing)}. "
                f"Run `make best-model` first, or name another run: run=outputs/…"
            )
        if away := [name for name in (*DOCUMENTS, CHOICE, FILE) if not inside(folder, folder / name)]:
            raise ExportError(
                f"In the run {folder}, {', '.join(away)} is a link to a file outside. Put the file itself there, or "
                f"name another run: run=outputs/…"
            )
        try:
            config = read(folder / DOCUMENTS[0])
            metrics, provenance = (read_json(folder / name) for name in DOCUMENTS[1:])
            choice = read_json(folder / CHOICE) if (folder / CHOICE).is_file() else None
        except CatsweepError as error:
            raise ExportError(f"The records of the run in {folder} cannot be read. {error} {ANOTHER}") from error
        for name, found in zip((*DOCUMENTS, CHOICE), (config, metrics, provenance, choice), strict=True):
            if fault := misshapen(found, SHAPES[name]):
                raise ExportError(f"{folder / name} is not as catsweep writes it: {fault}. {ANOTHER}")
        metrics = {key: value for key, value in metrics.items() if value is not None}
        if "scores" not in metrics or "checkpoint" not in metrics or None in metrics["scores"].values():
            raise ExportError(f"{folder}/{DOCUMENTS[1]} is not the record of a finished run: it lacks scores.")
        if choice is not None and not {"study", "trial"} <= choice.keys():
            raise ExportError(f"{folder / CHOICE} is torn: it names no study and trial. Run `make best-model` again.")
        run = cls(folder, config, metrics, provenance, choice)
        checked(run.name, f"The folder of the bundle, named after {folder},", ExportError)
        return run

    @property
    def name(self) -> str:
        """`<study>-<trial>` of a best model; of any other run the last two parts of its path, joined the same way."""
        if self.choice is not None:
            said = {key: self.choice.get(key) for key in ("study", "trial")}
            return "-".join(
                checked(name, f'"{key}" in {self.folder / CHOICE}', ExportError) for key, name in said.items()
            )
        return "-".join(self.folder.resolve().parts[1:][-2:])

    @property
    def origin(self) -> dict[str, Any]:
        """Study, trial and rule by which it was chosen, as far as they are known."""
        trial = self.config.get("trial") or {}
        known = {"study": trial.get("study"), "trial": trial.get("number")}
        if self.choice:
            known |= {key: self.choice.get(key) for key in ("study", "trial", "selected_by")}
        return {key: value for key, value in known.items() if value is not None}

    @property
    def portable_config(self) -> dict[str, Any]:
        """The configuration for a reader elsewhere: without this machine's places, and where the study was kept."""
        config: dict[str, Any] = portable(_with_usual_folders(self.config))
        if config.get("trial"):
            config["trial"] = config["trial"] | {"storage": None}
        return config


def _with_usual_folders(value: Any) -> Any:
    """Caches that were elsewhere on this machine are, on another, where they usually are."""
    if isinstance(value, dict):
        moved = {key: usual for key, usual in USUAL.items() if os.path.isabs(str(value.get(key, "")))}
        return {key: _with_usual_folders(item) for key, item in value.items()} | moved
    return value


def portable(value: Any, root: Path | None = None) -> Any:
    """Take places on this machine, and passwords in URLs, out of every string of a nested value.

    A path in the project becomes relative to it, one in the home folder begins with `~`, of any other only the name
    is left: `…/cats`. What stands under the key `diff` is left alone: shortened, it would not apply any more.

    Args:
        value: nested dicts, lists and scalars.
        root: the project's folder; the working directory if None.
    """
    root = root or Path.cwd()
    if isinstance(value, dict):
        return {key: item if key == "diff" else portable(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item, root) for item in value]
    if not isinstance(value, str):
        return value
    if os.path.isabs(value) and "\n" not in value:  # as a whole, for its name may hold any character
        return _shortened(value, root)
    return PLACE.sub(lambda found: _shortened(found.group(), root), CREDENTIALS.sub("://***@", value))


def _shortened(path: str, root: Path) -> str:
    for place, name in ((root, ""), (Path.home(), "~/")):
        if len(place.parts) > 1 and Path(path).is_relative_to(place):
            return name + Path(path).relative_to(place).as_posix()
    return f"…/{Path(path).name}"
