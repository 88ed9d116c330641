"""Resume a run: whether it may, from which checkpoint, and where its earlier record is kept."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from catsweep import checkpoints, usage
from catsweep.errors import ConfigError, DataError
from catsweep.metrics.scores import DEFAULT, score
from catsweep.runs import CONFIG, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, PROVENANCE, SCORES, RunDir
from steady.study.contract import differences

log = logging.getLogger(__name__)

# What may differ when a run goes on: it changes how long and where it trains and who asks, not what.
# A recipe only says what other keys are if nobody says it.
MAY_DIFFER = {
    "resume", "epochs", "minutes", "samples", "budget_unit", "logger", "trainer", "trial", "trials", "rungs", "trust",
    "judge", "recipe",
}  # fmt: skip
# What Lightning wants of a checkpoint to go on from.
PROGRESS = {"callbacks", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states"}
NEW_RUN = "Start a new run without resume."


def scores_of(folder: Path, told: bool = False) -> dict[str, Any] | None:
    """Read a run's `metrics.json`; None if there is none, or a torn one, which is logged unless it was `told`."""
    if not (folder / SCORES).exists():
        return None
    try:
        metrics = RunDir(folder).metrics()
        return {**metrics.content, "scores": metrics.scores}
    except DataError as error:
        if not told:
            log.warning("%s is torn (%s), so the run is scored again", folder / SCORES, error)
        return None


def scores_of_trial(cfg: DictConfig, folder: Path) -> dict[str, float] | None:
    """Read the scores of a trial whose process ended before it told its study; None if there are none.

    A `ConfigError` if they are those of another study, whose folder this trial would write over.
    """
    if not cfg.trial.attempt and (folder / SCORES).exists():
        raise ConfigError(
            f"Expected an empty folder for trial {cfg.trial.number}; {folder} holds a finished one of another sweep. "
            f"Start under another name, study=NAME, or remove {folder.parent}."
        )
    if record := scores_of(folder):
        log.info("Trial %s was scored before; its values stand", cfg.trial.number)
    return record and record["scores"]


def check(cfg: DictConfig, folder: Path) -> None:
    """Raise a `ConfigError` if a run to resume (`cfg.resume`) was configured otherwise, or has nothing left to do."""
    if not cfg.resume:
        return
    if not any((folder / name).exists() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)):
        raise ConfigError(
            f"resume={cfg.resume}: expected an unfinished run with {LAST_CHECKPOINT}, but found none in {folder}. "
            "Start a new run without resume, or name the run's folder: resume=outputs/runs/DATE/TIME."
        )
    before = _config_of(folder, f"resume={cfg.resume}")
    trial = before.get("trial") or {}
    if isinstance(trial, dict) and trial.get("number") is not None and cfg.trial.number is None:
        raise ConfigError(
            f"resume={cfg.resume}: {folder} is trial {trial['number']} of the study {trial.get('study')}, whose record "
            "has its scores. The line that began the sweep goes on with it; to train its configuration longer, start "
            "a run of your own."
        )
    _refuse_changes(cfg, before, folder, f"resume={cfg.resume}")
    if (record := scores_of(folder)) is not None:
        _require_larger_budget(cfg, before, record)


def checkpoint_of(cfg: DictConfig, folder: Path, model: pl.LightningModule) -> str | None:
    """Find the checkpoint to go on from if `cfg.resume` asks for it or the trial was begun before; else None.

    A `ConfigError` if the run is beyond its budget; a `DataError` if its checkpoints are torn. A trial begins afresh
    then, and also if it was begun with another configuration, which its study has accepted since.
    """
    if not cfg.resume and not cfg.trial.attempt:
        return None
    trial = not cfg.resume

    def accept(found: dict[str, Any], file: Path) -> None:
        if missing := PROGRESS - found.keys():
            raise DataError(f"The checkpoint {file} cannot be gone on from: it lacks {', '.join(sorted(missing))}.")
        checkpoints.refuse_others(model, found["state_dict"], file)

    try:
        there = checkpoints.newest(folder, accept)
    except DataError as error:
        if trial:
            log.warning("%s The trial starts afresh.", error)
            return None
        raise DataError(f"resume={cfg.resume}: there is nothing to go on from. {error} {NEW_RUN}") from error
    if there is None:
        return None
    file, done = there[0], checkpoints.epoch_of(there[1])
    if trial:
        said = f"trial {cfg.trial.number}"
        beyond = [f"it is in epoch {done}, beyond epochs={cfg.epochs}"] if done > cfg.epochs else []
        if changed := [*_changes(cfg, _config_of(folder, said)), *beyond]:
            log.warning("%s was begun with another configuration, so it starts afresh: %s", said, "; ".join(changed))
            (folder / LAST_CHECKPOINT).unlink(missing_ok=True)  # else a later attempt would take it for its own
            (folder / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
            return None
    elif done > cfg.epochs:
        raise ConfigError(
            f"epochs={cfg.epochs}: the run in {folder} is beyond that, in epoch {done}. Give epochs={done} or more, "
            f"or start a new run without resume."
        )
    log.info("Resuming %s", folder)
    return str(file)


def check_photos(cfg: DictConfig, folder: Path, digest: str) -> None:
    """Raise a `ConfigError` if the run to resume was begun with other photos, which the same configuration may name."""
    if not cfg.resume or not (folder / PROVENANCE).exists():
        return
    try:
        before = RunDir(folder).provenance().get("data_digest")
    except DataError:  # said when it is written again
        return
    if isinstance(before, str) and before != digest:
        raise ConfigError(
            f"resume={cfg.resume}: the run in {folder} was begun with other photos: digest {before[:12]}…, now "
            f"{digest[:12]}…. Put the same photos back where they were, or start a new run without resume."
        )


class Continuation(pl.Callback):
    """Go on where the run ended, within an epoch too, and keep a finished run's record under another name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rename `metrics.json`; everything was restored, so the run really goes on."""
        self.begun = True
        # Lightning restores loaders that it makes itself after the checkpoint was read, and not those that it had made
        # before, to count the steps of a schedule. Their iterators have not begun.
        trainer.fit_loop._load_combined_loader_states()
        if trainer.is_global_zero and (record := scores_of(self.folder, told=True)) is not None:
            (self.folder / SCORES).rename(set_aside(self.folder, record))


def set_aside(folder: Path, record: dict[str, Any]) -> Path:
    """Path of a finished run's record once the run goes on: `metrics-epoch-20.json`."""
    return folder / SCORES.with_stem(f"{SCORES.stem}-epoch-{_number(record.get('epochs')):.0f}")


def _config_of(folder: Path, said: str) -> dict[str, Any]:
    try:
        before = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    # YAML's errors, OmegaConf's and the system's share no root.
    except Exception as error:
        raise ConfigError(
            f"{said}: {folder / CONFIG} cannot be read, so nobody knows what the run is: "
            f"{' '.join(str(error).split())[:200]} Put it back from a copy, or start a new run without resume."
        ) from error
    if not isinstance(before, dict) or not before:
        raise ConfigError(f"{said}: {folder / CONFIG} is torn: it holds no setting. {NEW_RUN}")
    return {str(key): value for key, value in before.items()}


def _changes(cfg: DictConfig, before: dict[str, Any]) -> list[str]:
    """List what was configured otherwise, and is no matter of where and for how long a run trains."""
    if isinstance(metrics := before.get("metrics"), dict):  # scores had no names up to 0.1, and all were taken
        metrics.setdefault(
            "scores", {name: {"_target_": f"catsweep.metrics.scores.{type(score(name)).__name__}"} for name in DEFAULT}
        )
    return differences(before, OmegaConf.to_container(cfg, resolve=True), ignore=MAY_DIFFER)


def _refuse_changes(cfg: DictConfig, before: dict[str, Any], folder: Path, said: str) -> None:
    if changed := _changes(cfg, before):
        older = ""
        if new := sorted(_new_keys(before.get("model"), OmegaConf.to_container(cfg.model, resolve=True))):
            older = (
                f" The model has settings since that this run does not know ({', '.join(new)}), so an older version of "
                f"catsweep has begun it, which can go on with it: {folder / PROVENANCE} has its commit."
            )
        raise ConfigError(
            f"{said}: the run in {folder} was configured otherwise:\n  " + "\n  ".join(changed) + "\n"
            f"Give the same options as before, or start a new run without resume.{older}"
        )


def _new_keys(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Iterate over the keys that the arguments of the same target did not have before."""
    if not isinstance(before, dict) or not isinstance(now, dict) or before.get("_target_") != now.get("_target_"):
        return
    for key, value in now.items():
        if key not in before:
            yield f"{path}{key}"
        else:
            yield from _new_keys(before[key], value, f"{path}{key}.")


def _require_larger_budget(cfg: DictConfig, before: dict[str, Any], record: dict[str, Any]) -> None:
    """Refuse to train a finished run no longer than it was: that would only write its record again."""
    done, epochs = _number(record.get("epochs")), _number(before.get("epochs"))
    key, scale = ("samples", 1) if before.get("budget_unit") == "samples" else ("minutes", 60)
    bound = "" if before.get(key) is None else f" {key}={before[key]}"
    now = math.inf if (given := usage.limit(cfg)) is None else given
    larger = now > _number(record.get(unit := usage.unit(cfg)))  # else it would end before its first step
    if (before.get("budget_unit") or "seconds") == unit:
        was = scale * _number(before[key]) if bound else math.inf
        larger &= (cfg.epochs > epochs or now > was) and cfg.epochs >= epochs and now >= was
    if larger and cfg.epochs > done:
        return
    more = f"epochs={max(2 * epochs, done + 1):.0f}"
    if bound and done < epochs:  # it was this that ended it
        more = f"{key}={2 * _number(before[key]):.12g}"
    raise ConfigError(
        f"resume={cfg.resume}: that run is finished: {done:.0f} epochs, with epochs={epochs:.0f}{bound}. To train it "
        f"longer, give a larger budget, such as {more}; its {SCORES} is then kept as {set_aside(Path(), record)}. "
        "Or start a new run without resume."
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
