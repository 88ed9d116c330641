"""Read the records of a finished run or a bundle, and the photos and the scorer that its scores were taken with.

`evaluation` scores again with `Recorded`; `bundle` begins with `FinishedRun`, whose records may be published, so
`portable` takes everything out of them that names a place on this machine.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catsweep.data.datamodule import CatDataModule
from catsweep.data.ready import CARD, ReadySet, find_ready_set
from catsweep.errors import CatsweepError, DataError, ExportError
from catsweep.export.intervals import Interval
from catsweep.metrics.scorer import Scorer
from catsweep.metrics.scores import MetricCard, require_comparable
from catsweep.records import ANY, NUMBER, TEXT, WHOLE, misshapen
from catsweep.runs import ANOTHER, CHOICE, CONFIG, DOCUMENTS, JUDGEMENT, PROVENANCE, SCORES, RunDir
from catsweep.untrusted_config import rebuild
from steady.safe_paths import checked_name, inside
from steady.storage import CONFIRMATION

READY = Path("data/ready")  # where ready sets are, see conf/data
USUAL = {"root": "data/ready", "cache_root": "data/statistics", "save_dir": "outputs"}
# Of what is read here and on a bundle's page, in the documents of a run that may be a stranger's.
SHAPES: dict[str, Any] = {
    str(CONFIG): {
        "model": {"_target_": TEXT, "source": TEXT},
        "data": {"source": TEXT, "reader": {"_target_": TEXT}},
        "trial": {"study": TEXT, "number": WHOLE},
    },
    str(SCORES): {
        "scores": {ANY: NUMBER}, "intervals": {ANY: {}}, "epoch": NUMBER, "seconds": NUMBER,
        "cards": {ANY: {"extractor": TEXT, "seed": WHOLE, "settings": {}}},
    },
    str(PROVENANCE): {
        "git": {"commit": TEXT}, "packages": {ANY: TEXT}, "data_digest": TEXT, "seed": WHOLE, "command": [TEXT],
    },
    str(CHOICE): {
        "objectives": [{"name": TEXT, "direction": TEXT}],
        "pareto_set": [{"trial": WHOLE, "values": {ANY: NUMBER}, "beside": {ANY: NUMBER}}],
        "seeds": {"sentence": TEXT}, "judge": {"sentence": TEXT}, "params": {}, "selected_by": TEXT,
        "finished_trials": WHOLE, "remark": TEXT,
    },
}  # fmt: skip
CREDENTIALS = re.compile(r"://[^/@\s]+@")
# /a/b, also within key=/a/b and sqlite:////a/b; not within a URL or a relative path.
PLACE = re.compile(r"(?:(?<![\w:/.~…-])|(?<=:///))/(?:[^\s/:=,\"'\]]+/)+[^\s/:=,\"'\]]*")


@dataclass(frozen=True)
class Recorded:
    """Recorded scores of a run or a bundle, by their names."""

    folder: Path
    scores: Mapping[str, float]
    cards: Mapping[str, MetricCard]
    intervals: Mapping[str, Interval]  # where each may land; none in the folder of a run
    data_digest: str  # of the ready set; empty if the folder does not tell

    @classmethod
    def read(cls, folder: Path) -> "Recorded":
        """Read the documents of a folder; an `ExportError` if they are not those of a finished run or a bundle."""
        try:
            metrics, digest = RunDir(folder).metrics(), RunDir(folder).provenance().get("data_digest") or ""
            scores = metrics.scores
            cards = {name: MetricCard.from_dict(metrics.cards[name]) for name in scores}
            intervals = {name: Interval.from_dict(one) for name, one in metrics.intervals.items()}
        except DataError as error:
            raise ExportError(
                f"{error} Name another folder, a finished run or a bundle, or export it again."
            ) from error
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, CatsweepError) as error:
            raise ExportError(
                f"Expected a finished run or a bundle in {folder}, with its scores, their cards and where they came "
                f"from ({SCORES}, {PROVENANCE}): {type(error).__name__}: {error}. Name another, or export it again."
            ) from error
        if not scores:
            raise ExportError(f"{folder / SCORES} holds no score. Name another folder, or export it again.")
        return cls(folder, scores, cards, intervals, str(digest))

    @property
    def seed(self) -> int:
        """Seed of the latents."""
        return next(iter(self.cards.values())).seed


def open_photos(recorded: Recorded, ready: str | None = None) -> ReadySet:
    """Open the ready set that a folder was scored against, its pixels compared with its digest.

    It is found by that digest in `ready` (the set, or a folder of sets; None for `data/ready`), since the place in the
    folder's configuration is a stranger's word. Cats that catsweep draws are drawn again if they are not there.

    Raises:
        DataError: it is not there, damaged, or another one.
        ExportError: there is no such configuration, or one that a bundle may not have.
    """
    remedy = "Name the ready set it was trained on: ready=data/ready/NAME-SIZE."
    place = READY if ready is None else Path(ready)
    found = None if (place / CARD).exists() else find_ready_set(recorded.data_digest, [place])
    if found is None:
        found = _drawn_again(recorded, remedy) if ready is None else ReadySet.open(place, remedy)
    if recorded.data_digest and found.digest != recorded.data_digest:
        raise DataError(
            f"{recorded.folder} was scored against other photos than those in {found.path}: expected digest "
            f"{recorded.data_digest[:12]}…, got {found.digest[:12]}…. {remedy}"
        )
    found.verify()
    return found


def _drawn_again(recorded: Recorded, remedy: str) -> ReadySet:
    """Make the ready set of demo cats, or of a reader that the command line trusts."""
    try:
        data: CatDataModule = rebuild(_config(recorded.folder), "data")
        data.prepare_data()
    except CatsweepError as error:
        raise DataError(
            f"The photos of {recorded.folder}, digest {recorded.data_digest[:12]}…, are not in {READY}. {remedy} They "
            f"cannot be made again from its {CONFIG}: {error}"
        ) from error
    return data.ready


def scorer_for(recorded: Recorded, ready: ReadySet, seed: int | None = None) -> Scorer:
    """Build the scorer of a folder's configuration, for latents of another seed if one is given.

    Raises:
        MetricError: it would measure otherwise than before, apart from libraries and a given seed.
    """
    scorer: Scorer = rebuild(_config(recorded.folder), "metrics")(ready=ready)
    ignore = {"versions"}
    if seed is not None:
        scorer, ignore = scorer.reseeded(seed), ignore | {"seed"}
    for name, card in recorded.cards.items():
        require_comparable(card, scorer.card(name), ignore)
    return scorer


def other_versions(recorded: Recorded, cards: Mapping[str, MetricCard]) -> list[str]:
    """List libraries that are not those of the recorded scores: `torch 2.13.0, now 2.14.0`."""
    found = {}
    for name, card in cards.items():
        before = recorded.cards.get(name, card).versions
        for library in sorted({*before, *card.versions}):
            was, now = (versions.get(library, "none") for versions in (before, card.versions))
            if was != now:
                found[library] = f"{library} {was}, now {now}"
    return list(found.values())


def _config(folder: Path) -> dict[str, Any]:
    """Read the configuration, without the augmentation of training."""
    config = RunDir(folder).config()
    data = config.get("data")
    return config | ({"data": {k: v for k, v in data.items() if k != "augment"}} if isinstance(data, dict) else {})


def scorer_of(folder: Path, ready: str | None = None) -> Scorer:
    """Build the scorer that a run was scored with, see `open_photos`; an `ExportError` if it cannot score alike."""
    try:
        recorded = Recorded.read(folder)
        return scorer_for(recorded, open_photos(recorded, ready))
    except CatsweepError as error:
        raise ExportError(
            f"{error} Without photos there can be a bundle too, but no intervals and no nearest photos: draws=0."
        ) from error


@dataclass(frozen=True)
class FinishedRun:
    """Checked records of a run that has been scored, or of the best model: the contents of its documents."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    choice: dict[str, Any] | None  # None of a run that was not chosen from a study

    @classmethod
    def read(cls, folder: Path) -> "FinishedRun":
        """Read the records in a folder; an `ExportError` if one is missing or damaged, or not of a finished run."""
        if missing := [name for name in DOCUMENTS if not (folder / name).is_file()]:
            raise ExportError(
                f"Expected a finished run in {folder}; it lacks {', '.join(missing)}. "
                f"Run `make best-model` first, or name another run: run=outputs/…"
            )
        if away := [name for name in (*DOCUMENTS, str(CHOICE), str(JUDGEMENT)) if not inside(folder, folder / name)]:
            raise ExportError(
                f"In the run {folder}, {', '.join(away)} is a link to a file outside. Put the file itself there, or "
                f"name another run: run=outputs/…"
            )
        try:
            run = RunDir(folder)
            config, metrics, provenance, choice = run.config(), run.metrics().content, run.provenance(), run.choice()
        except CatsweepError as error:
            raise ExportError(f"The records of the run in {folder} cannot be read. {error} {ANOTHER}") from error
        for name, found in zip((*DOCUMENTS, str(CHOICE)), (config, metrics, provenance, choice), strict=True):
            if fault := misshapen(found, SHAPES[name]):
                raise ExportError(f"{folder / name} is not as catsweep writes it: {fault}. {ANOTHER}")
        metrics = {key: value for key, value in metrics.items() if value is not None}
        if "scores" not in metrics or "checkpoint" not in metrics or None in metrics["scores"].values():
            raise ExportError(f"{folder / SCORES} is not the record of a finished run: it lacks scores.")
        if choice is not None and not {"study", "trial"} <= choice.keys():
            raise ExportError(f"{folder / CHOICE} is torn: it names no study and trial. Run `make best-model` again.")
        finished = cls(folder, config, metrics, provenance, choice)
        checked_name(finished.name, f"The folder of the bundle, named after {folder},", ExportError)
        return finished

    @property
    def name(self) -> str:
        """`<study>-<trial>` of a best model; of any other run the last two parts of its path, joined the same way.

        Of a confirmation run they are three: `<study>-confirm-0`.
        """
        if self.choice is None:
            confirms = str(self.origin.get("study", "")).endswith(CONFIRMATION)
            return "-".join(self.folder.resolve().parts[1:][-3 if confirms else -2 :])
        keys = ("study", "trial")
        return "-".join(checked_name(self.choice.get(k), f'"{k}" in {self.folder / CHOICE}', ExportError) for k in keys)

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
        """Configuration for a reader elsewhere: without this machine's places, and where the study was kept."""
        config: dict[str, Any] = portable(_with_usual_folders(self.config))
        return config | ({"trial": config["trial"] | {"storage": None}} if config.get("trial") else {})


def _with_usual_folders(value: Any) -> Any:
    """Caches that were elsewhere on this machine are, on another, where they usually are."""
    if isinstance(value, dict):
        moved = {key: usual for key, usual in USUAL.items() if os.path.isabs(str(value.get(key, "")))}
        return {key: _with_usual_folders(item) for key, item in value.items()} | moved
    return value


def portable(value: Any, root: Path | None = None) -> Any:
    """Remove places on this machine, and passwords in URLs, from every string of nested dicts and lists.

    A path in the project (`root`; the working directory if None) becomes relative to it, one in the home folder begins
    with `~`, of any other only the name is left: `…/cats`. What stands under the key `diff` is left alone: shortened,
    it would not apply any more.
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
