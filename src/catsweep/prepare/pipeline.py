"""Pipeline: run the stages of a preparation in their order, each only if it has to, and publish the ready set.

Stages and their order are `pipeline` in conf/prepare.yaml; `catsweep.prepare.stage_cache` makes and resumes each. The
array of the ready set is a hard link to that of the last stage.
"""

import hashlib
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from catsweep.data.files import PASSED_OVER, say_passed_over, write_passed_over
from catsweep.data.ready import (
    IMAGES,
    ReadySet,
    Row,
    format_points,
    no_photos_message,
    open_or_fill,
    refuse_unread,
    write_metadata,
)
from catsweep.errors import ConfigError, DataError
from catsweep.instantiation import instantiate
from catsweep.prepare import exporters, manifest, preparation_report
from catsweep.prepare.image_files import hard_link
from catsweep.prepare.manifest import Record
from catsweep.prepare.stage import Stage, StageOutput
from catsweep.prepare.stage_cache import NothingLeft, build, is_current, summary
from catsweep.prepare.stages.original import Original
from steady import places
from steady.safe_paths import checked_name

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Prepare the photos of a configuration (conf/prepare.yaml).

    Raises:
        ConfigError: a stage or a format does not exist, there is no source, or the name is none.
        DataError: the source cannot be read, nothing is left of it, or a stage that may not run is not in the cache.
        PlaceError: `root` cannot be written.
    """
    form = exporters.choose(cfg.export, cfg.formats)
    manifest.check_kind(cfg.manifest)
    # Not data.root, which is that of a run: this writes elsewhere.
    here = OmegaConf.create({"root": cfg.root, "data": {"source": cfg.data.source}})
    places.check(Path(cfg.root), here)
    with places.translated_errors(here):
        _run(cfg, form)


def _run(cfg: DictConfig, form: exporters.Format | None) -> None:
    if "reader" not in cfg.data:
        raise ConfigError("data=ready is prepared already. Prepare photos: data=photos data.source=DIR.")
    reader = instantiate(cfg.data.reader)
    refuse_unread(cfg.data.source, reader)
    name = checked_name(slug(str(cfg.data.source or reader.name)) if cfg.name is None else str(cfg.name), "name")
    checked_name(str(cfg.size), "size")
    root = Path(cfg.root) / "stages" / name
    passed_over = reader.passed_over() if hasattr(reader, "passed_over") else {}
    if next(iter(reader.files), None) is None:
        raise DataError(no_photos_message(reader, Counter(), passed_over))
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=0):
            original = instantiate(cfg.pipeline[0], _partial_=True)(reader.files)
            stages = [original, *(instantiate(node) for node in cfg.pipeline[1:])]
            write_passed_over(root / PASSED_OVER, passed_over)
            outputs = make(stages, root, cfg.stages)
            manifest.write_table(root, outputs, cfg.manifest)
            if len(outputs) == sum(stage.active for stage in stages):
                _finish(cfg, name, outputs, form, passed_over)
            left = preparation_report.count_exclusions(outputs)
            if left.few:  # last, where it cannot be overlooked
                log.warning("%s", "\n".join(preparation_report.exclusion_lines(left)))
    except Timeout as error:
        raise DataError(
            f"Expected {root} to be free, but another prepare works in it. Wait for it, or set name=NAME."
        ) from error


def make(stages: Sequence[Stage], root: Path, chosen: Sequence[str] | None) -> list[StageOutput]:
    """Run the stages that have to run, and return them, up to the last chosen one or the one that waits for a person.

    Args:
        stages: in their order; the first is `Original`.
        root: folder of the stages' folders.
        chosen: names of those that may run; the others are taken as they are. None: all may.
    """
    last = _last(stages, chosen)
    first = stages[0]
    assert isinstance(first, Original)
    inputs, content = first.inputs(), None
    outputs: list[StageOutput] = []
    for number, stage in enumerate(stages[: last + 1]):
        if not stage.active:
            continue
        may_run = chosen is None or stage.name in chosen
        if outputs and (word := stage.begin(root, outputs[-1], may_run)) is not None:
            log.info("%s", word)
            break
        folder = root / f"{number}.{stage.folder}"
        before = outputs[-1].folder if outputs else root
        if may_run:
            try:
                outputs.append(build(stage, folder, before, inputs, content))
            except NothingLeft as error:
                before_it = (f"Before it, {summary(stage)}." for stage in outputs if stage.card["counts"]["refused"])
                raise DataError(" ".join([str(error), *before_it])) from error
        else:
            outputs.append(_cached(stage, folder, inputs, content))
        log.info("%s", summary(outputs[-1]))
        for note in outputs[-1].card["notes"]:
            log.info("%s: %s", stage.name, note)
        inputs, content = outputs[-1].kept, outputs[-1].content
    return outputs


def _last(stages: Sequence[Stage], chosen: Sequence[str] | None) -> int:
    names = [stage.name for stage in stages]
    if chosen is None:
        return len(stages) - 1
    if not chosen or isinstance(chosen, str) or not set(chosen) <= set(names):
        got = chosen if isinstance(chosen, str) else list(chosen)
        raise ConfigError(f"stages must be a list of some of {', '.join(names)}, as in stages=[{names[0]}]; got {got}.")
    return max(names.index(name) for name in chosen)


def _cached(stage: Stage, folder: Path, inputs: tuple[Record, ...], content: str | None) -> StageOutput:
    output = StageOutput.open(folder)
    if output is None:
        raise DataError(f"Expected stage {stage.name} in {folder}, but it was never made. Add it to stages=[…].")
    if not is_current(stage, output, inputs, content):
        raise DataError(
            f"Stage {stage.name} in {folder} was made of other images, or with other parameters, than it would be now. "
            "Add it to stages=[…], or give the parameters it was made with."
        )
    return output


def _finish(
    cfg: DictConfig, name: str, outputs: Sequence[StageOutput], form: exporters.Format | None, skipped: dict[str, str]
) -> None:
    """Write the ready set, its report, and loose files."""
    ready = publish(outputs, Path(cfg.root) / "ready" / f"{name}-{cfg.size}", name)
    page = preparation_report.write(outputs, ready, skipped)
    if skipped:
        log.info("%s; %s names them", say_passed_over(skipped), PASSED_OVER)
    log.info("Ready: %s", ready.path)
    log.info("What was done: %s", page)
    if ready.size % 2:
        log.warning("To train, %s", preparation_report.command(ready))
    elif len({record.source for record in outputs[-1].kept}) > 1:
        log.info("Train on it: %s", preparation_report.command(ready))
    else:
        log.warning("1 photo is left, and training needs at least 2, to score what it makes. Add photos.")
    if form is not None:
        folder = Path(cfg.root) / "loose" / f"{ready.path.name}-{checked_name(cfg.export, 'export')}"
        log.info("Loose files: %s", exporters.write(ready, folder, form))


def slug(source: str) -> str:
    """Derive a name from a source: that of its folder or archive, in plain letters."""
    stem = Path(source).expanduser().resolve().name if "/" in source or Path(source).exists() else source
    return re.sub(r"[^A-Za-z0-9_]+", "-", re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", stem)).strip("-").lower() or "photos"


READY_FORMAT = 2  # raise when the files of a set would be written otherwise


def publish(outputs: Sequence[StageOutput], folder: Path, name: str) -> ReadySet:
    """Make the ready set of a preparation in `folder`, which is replaced as a whole, or open it if it is current.

    The first of the stages has a record of every photo, the last all images in one array.
    """
    stages = [{key: stage.card[key] for key in ("stage", "key", "parameters", "code")} for stage in outputs]
    key = hashlib.sha256(json.dumps([READY_FORMAT, name, stages], sort_keys=True).encode()).hexdigest()
    card = {"name": name, "size": outputs[-1].kept[0].width, "key": key, "parameters": {"stages": stages}}

    def fill(new: Path) -> None:
        hard_link(outputs[-1].folder / IMAGES, new / IMAGES)
        write_metadata(new, list(rows(outputs)), card)

    return open_or_fill(folder, key, fill)


def rows(outputs: Sequence[StageOutput]) -> Iterator[Row]:
    """List what became of each photo, in their order: its images, or the reason why there are none."""
    became: dict[str, list[Record]] = defaultdict(list)
    refused = (record for stage in outputs[:-1] for record in stage.records if not record.kept)
    for record in (*refused, *outputs[-1].records):
        became[record.source].append(record)
    for photo in outputs[0].records:
        # Of the photo, for what stage `original` has saved of it may be smaller.
        width, height = (int(photo.parameters.get(side, getattr(photo, side))) for side in ("width", "height"))
        notes = "; ".join(photo.parameters.get("notes", ()))
        for record in became[photo.source]:
            points = record.landmarks if record.kept else None
            yield Row(
                index=record.index if record.kept else None, source=record.source, sha256=record.sha256,
                group=record.group, split=record.split if record.kept else "", kept=record.kept, reason=record.reason,
                width=width, height=height, landmarks="" if points is None else format_points(points),
                stage=record.stage, copy=int(record.parameters.get("copy", 0)), notes=notes,
            )  # fmt: skip
