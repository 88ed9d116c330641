"""Whether a run may go on: asked of a folder as a run leaves it, without training."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule
from torch import nn

from catsweep.errors import ConfigError, DataError
from catsweep.runs import CONFIG, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, SCORES
from catsweep.training import resume
from catsweep.training.resume import Continuation, check, check_photos, checkpoint_of, scores_of

pytestmark = pytest.mark.security
Compose = Callable[..., DictConfig]
RECORD = {"scores": {"val/fid": 4.5}, "epochs": 2, "checkpoint": "best"}


class Net(LightningModule):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2)


def write_checkpoint(file: Path, epoch: int = 2, model: LightningModule | None = None, **more: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    progress: dict[str, Any] = {
        "callbacks": {}, "epoch": epoch - 1, "global_step": 8, "lr_schedulers": [], "optimizer_states": [],
        "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": epoch}}}},
    }  # fmt: skip
    found = {"state_dict": (model or Net()).state_dict(), **progress, **more}
    torch.save({name: one for name, one in found.items() if one is not None}, file)


@pytest.fixture
def run(compose: Compose, tmp_path: Path) -> Path:
    """The folder of a run of 2 epochs that has not been scored."""
    OmegaConf.save(compose("epochs=2"), tmp_path / CONFIG, resolve=True)
    write_checkpoint(tmp_path / LAST_CHECKPOINT)
    return tmp_path


def finish(run: Path, **more: Any) -> bytes:
    (run / SCORES).write_text(json.dumps(RECORD | more))
    return (run / SCORES).read_bytes()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], []),
        ([], ["epochs=1"]),
        ([], ["epochs=3", "minutes=5"]),  # unbounded before
        (["minutes=5"], ["minutes=5"]),
        (["minutes=5"], ["minutes=1"]),
        (["minutes=5"], ["epochs=9", "minutes=1"]),
        (["minutes=5"], ["minutes=50"]),  # two epochs were all that it was to do
    ],
    ids=lambda words: " ".join(words) or "as before",
)
def test_a_finished_run_is_not_trained_again_for_the_same_or_less(
    compose: Compose, run: Path, before: list[str], now: list[str]
) -> None:
    OmegaConf.save(compose("epochs=2", *before), run / CONFIG, resolve=True)
    content = finish(run)
    with pytest.raises(ConfigError, match=r"that run is finished: 2 epochs, with epochs=2.*such as epochs=4; it"):
        check(compose("epochs=2", f"resume={run}", *now), run)
    assert (run / SCORES).read_bytes() == content


@pytest.mark.parametrize(
    ("before", "done", "now"),
    [
        (["epochs=2"], 2, ["epochs=3"]),
        (["epochs=900", "minutes=5"], 40, ["epochs=900", "minutes=6"]),
        (["epochs=900", "minutes=5"], 40, ["epochs=900", "minutes=null"]),
        (["epochs=900"], 40, ["epochs=1000"]),  # ended by its patience
    ],
)
def test_a_finished_run_is_trained_longer(
    compose: Compose, run: Path, before: list[str], done: int, now: list[str]
) -> None:
    OmegaConf.save(compose(*before), run / CONFIG, resolve=True)
    finish(run, epochs=done)
    check(compose(f"resume={run}", *now), run)


def test_a_run_that_its_minutes_ended_goes_on_with_more_of_them_only(compose: Compose, run: Path) -> None:
    OmegaConf.save(compose("epochs=900", "minutes=5"), run / CONFIG, resolve=True)
    finish(run, epochs=40, seconds=300.5)
    with pytest.raises(ConfigError, match=r"epochs=900 minutes=5\. To train it longer.*such as minutes=10; its"):
        check(compose(f"resume={run}", "epochs=1800", "minutes=5"), run)
    check(compose(f"resume={run}", "epochs=1800", "minutes=6"), run)


def test_its_record_is_kept_under_another_name_once_it_really_goes_on(run: Path) -> None:
    content = finish(run)
    continuation = Continuation(run)
    assert (run / SCORES).exists()
    loop = SimpleNamespace(_load_combined_loader_states=lambda: None)
    continuation.on_train_start(SimpleNamespace(is_global_zero=False, fit_loop=loop), None)  # type: ignore[arg-type]
    assert (run / SCORES).exists()
    continuation.on_train_start(SimpleNamespace(is_global_zero=True, fit_loop=loop), None)  # type: ignore[arg-type]
    assert continuation.begun
    assert not (run / SCORES).exists()
    assert (run / "metrics-epoch-2.json").read_bytes() == content


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"scores": []}', '{"scores": {"val/fid": "good"}}', '{"scores": {"val/fid": null}}'],
)
def test_a_torn_record_is_as_good_as_none_and_said(
    compose: Compose, run: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (run / SCORES).write_text(content)
    assert scores_of(run) is None
    assert f"{run / SCORES} is torn" in caplog.text
    caplog.clear()
    assert scores_of(run, told=True) is None  # when it goes on
    assert not caplog.text
    check(compose("epochs=2", f"resume={run}"), run)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model=dcgan", r"model\._target_"),
        ("width.channels=8", r"width\.channels: 4 → 8"),
        ("data.size=64", r"data\.size: 32 → 64"),
        ("seed=7", r"seed: 0 → 7"),
        ("objective=[val/kid]", "objective"),
        ("patience=3", "patience: 10 → 3"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    compose: Compose, run: Path, word: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"configured otherwise:[\s\S]*{said}[\s\S]*Give the same options as before"):
        check(compose("epochs=2", f"resume={run}", word), run)


def test_what_was_customary_then_does_not_matter(compose: Compose, run: Path) -> None:
    before = OmegaConf.load(run / CONFIG)
    before.recipe.lr = 0.5  # the optimizer's own is as it was
    OmegaConf.save(before, run / CONFIG)
    check(compose("epochs=2", f"resume={run}"), run)


@pytest.mark.parametrize("key", ["ema_decay", "adversarial.discriminator.min_side"])
def test_a_run_of_an_older_version_is_refused_with_what_can_go_on_with_it(
    compose: Compose, run: Path, key: str
) -> None:
    before = OmegaConf.load(run / CONFIG)
    *path, last = key.split(".")
    node = OmegaConf.select(before, ".".join(["model", *path]))
    del node[last]
    OmegaConf.save(before, run / CONFIG)
    with pytest.raises(ConfigError, match=rf"does not know \({key}\), so an older version.*provenance\.json"):
        check(compose("epochs=2", f"resume={run}"), run)
    with pytest.raises(ConfigError, match=r"without resume\.$"):
        check(compose("epochs=2", f"resume={run}", "model=dcgan"), run)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("", "holds no setting"), ("a: [", "cannot be read"), ("- 1\n", "holds no setting|cannot"),
     ("\x00", "cannot be read"), ("seed: ${nobody:1}", "configured otherwise|cannot be read")],
)  # fmt: skip
def test_a_torn_configuration_is_named(compose: Compose, run: Path, content: str | None, said: str) -> None:
    (run / CONFIG).unlink()
    if content is not None:
        (run / CONFIG).write_text(content)
    with pytest.raises(ConfigError, match=said) as raised:
        check(compose("epochs=2", f"resume={run}"), run)
    assert "config" in str(raised.value)


def test_the_trial_of_a_sweep_is_the_sweeps(compose: Compose, run: Path) -> None:
    OmegaConf.save(compose("epochs=2", "trial.number=3", "trial.study=mine"), run / CONFIG, resolve=True)
    with pytest.raises(ConfigError, match="is trial 3 of the study mine, whose record has its scores"):
        check(compose("epochs=9", f"resume={run}"), run)


def test_other_photos_of_the_same_name_are_refused(compose: Compose, run: Path) -> None:
    cfg = compose("epochs=2", f"resume={run}")
    check_photos(cfg, run, "b" * 64)
    for content in ('{"data_digest": null}', '{"data_digest": 3}', "{", json.dumps({"data_digest": "b" * 64})):
        (run / "provenance.json").write_text(content)
        check_photos(cfg, run, "b" * 64)
    with pytest.raises(ConfigError, match=r"begun with other photos: digest b{12}…, now c{12}…\. Put the same photos"):
        check_photos(cfg, run, "c" * 64)
    check_photos(compose("epochs=2"), run, "c" * 64)


# The checkpoint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:2000]), "is torn"),
        (lambda file: file.write_bytes(b""), r"is torn.*\(0 bytes"),
        (lambda file: write_checkpoint(file, optimizer_states=None, loops={}), "lacks optimizer_states"),
        (
            lambda file: write_checkpoint(file, model=Net(5)),
            r"not of the Net.*layer\.weight \(2, 5\) instead of \(2, 3\)",
        ),
        (lambda file: write_checkpoint(file, loops={}), "does not tell its epoch"),
    ],
    ids=["cut", "empty", "of another tool", "of another model", "without its epoch"],
)
def test_a_torn_checkpoint_is_refused_for_a_run_and_begins_a_trial_afresh(
    compose: Compose, run: Path, change: Callable[[Path], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(run / LAST_CHECKPOINT)
    with pytest.raises(DataError, match=f"there is nothing to go on from.*{said}.*Start a new run without resume"):
        checkpoint_of(compose("epochs=2", f"resume={run}"), run, Net())
    assert checkpoint_of(compose("epochs=2", "trial.number=0", "trial.attempt=1"), run, Net()) is None
    assert "The trial starts afresh." in caplog.text

    write_checkpoint(run / PREVIOUS_CHECKPOINT, epoch=1)
    for words in ([f"resume={run}"], ["trial.number=0", "trial.attempt=1"]):
        caplog.clear()
        assert checkpoint_of(compose("epochs=2", *words), run, Net()) == str(run / PREVIOUS_CHECKPOINT)
        assert "Going on from the one before it, of epoch 1." in caplog.text


def test_without_a_checkpoint_or_a_wish_nothing_is_gone_on_from(compose: Compose, run: Path) -> None:
    assert checkpoint_of(compose("epochs=2"), run, Net()) is None
    (run / LAST_CHECKPOINT).unlink()
    assert checkpoint_of(compose("epochs=2", "trial.number=0", "trial.attempt=1"), run, Net()) is None
    with pytest.raises(ConfigError, match="expected an unfinished run"):
        check(compose("epochs=2", f"resume={run}"), run)


def test_a_run_that_is_beyond_its_budget_says_so(compose: Compose, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"epochs=1: the run in .* is beyond that, in epoch 2\. Give epochs=2 or"):
        checkpoint_of(compose("epochs=1", f"resume={run}"), run, Net())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["epochs=2", "patience=3"], "patience: 10 → 3"),
        (["epochs=1"], "it is in epoch 2, beyond epochs=1"),
        (["epochs=2", "trainer=gpu"], None),
    ],
)
def test_a_trial_goes_on_unless_its_study_has_accepted_another_training(
    compose: Compose, run: Path, words: list[str], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    found = checkpoint_of(compose(*words, "trial.number=7", "trial.attempt=1"), run, Net())
    assert found == (None if told else str(run / LAST_CHECKPOINT))
    assert (run / LAST_CHECKPOINT).exists() == (not told)
    assert not told or f"trial 7 was begun with another configuration, so it starts afresh: {told}" in caplog.text


def test_the_name_of_a_record_that_is_kept_is_a_name() -> None:
    for epochs, name in (
        (20, "metrics-epoch-20.json"),
        ("../../x", "metrics-epoch-0.json"),
        (None, "metrics-epoch-0.json"),
    ):
        assert resume.set_aside(Path("run"), {"epochs": epochs}) == Path("run") / name


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (["budget_unit=samples", "minutes=null", "samples=900", "epochs=3"], True),
        (["budget_unit=samples", "minutes=null", "samples=100", "epochs=3"], False),  # it has seen more
        (["budget_unit=cpu_seconds", "minutes=1", "epochs=3"], True),
        (["budget_unit=cpu_seconds", "minutes=0.1", "epochs=3"], False),
        (["minutes=3", "epochs=3"], True),
        (["minutes=1", "epochs=3"], False),
    ],
)
def test_a_finished_run_goes_on_under_another_unit_with_more_than_it_has_used(
    compose: Callable[..., DictConfig], tmp_path: Path, words: list[str], goes_on: bool
) -> None:
    (tmp_path / LAST_CHECKPOINT).parent.mkdir()
    (tmp_path / LAST_CHECKPOINT).touch()
    before = compose("minutes=2")
    OmegaConf.save(OmegaConf.create(OmegaConf.to_container(before, resolve=True)), tmp_path / "config.yaml")
    record = {"scores": {"val/fid": 9.0}, "epochs": 2, "seconds": 120.0, "cpu_seconds": 30.0, "samples": 400.0}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    cfg = compose(*words, f"resume={tmp_path}")
    if goes_on:
        resume.check(cfg, tmp_path)
    else:
        with pytest.raises(ConfigError, match=r"that run is finished: 2 epochs, with epochs=2 minutes=2\."):
            resume.check(cfg, tmp_path)
