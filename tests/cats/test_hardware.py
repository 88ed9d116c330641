"""What `src/cats.py` trains on, with graphics cards that are not there."""

import os
from pathlib import Path

import pytest
import yaml

from catsweep.cats import hardware
from catsweep.cats.hardware import Hardware
from catsweep.errors import ConfigError
from steady import resources


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 16 cores and memory for as many, and a GPU of 80 GiB that torch can use."""
    monkeypatch.setattr(resources, "cores", lambda: 16)
    monkeypatch.setattr(resources, "MEMORY_PER_SLOT", 1.0)
    has(monkeypatch, 1, 80.0)


def has(monkeypatch: pytest.MonkeyPatch, gpus: int, memory: float, usable: bool = True) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = {"index": [str(index) for index in range(gpus)], "memory.free": [f"{int(1024 * memory)} MiB"] * gpus}
    monkeypatch.setattr(resources, "_query", lambda key, ids=(): told[key])
    monkeypatch.setattr(hardware, "_torch_without_gpus", lambda: "" if usable else "2.13.0+cpu")


@pytest.mark.parametrize(
    ("gpus", "memory", "cores", "slots", "share"),
    [
        (1, 80, 16, 8, 1 / 8), (1, 80, 7, 7, 1 / 7), (1, 12, 16, 4, 1 / 4), (2, 24, 16, 16, 1 / 8), (4, 80, 4, 4, 1),
        (1, 2, 8, 1, 1),
    ],
)  # fmt: skip
def test_trials_share_a_gpu_as_far_as_its_memory_and_the_cores_go(
    gpus: int, memory: float, cores: int, slots: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, gpus, memory)
    monkeypatch.setattr(resources, "cores", lambda: cores)
    found = Hardware.of(["seed=1"])
    assert (found.slots, found.words[0]) == (slots, "trainer=gpu")
    told = float(found.words[1].removeprefix("hydra.sweeper.gpus_per_slot="))
    assert told == share
    assert resources.slots("auto", "auto", told) == slots  # as the sweeper counts them


def test_a_driver_that_does_not_tell_its_memory_has_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_query", lambda key, ids=(): ["0"] if key == "index" else ["[N/A]"])
    assert Hardware.of([]).slots == 1


def test_larger_images_and_less_memory_of_the_machine_have_fewer_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, 1, 24.0)
    assert [Hardware.of([], size).slots for size in (32, 64, 96, 128, 512)] == [8, 8, 3, 2, 1]
    monkeypatch.setattr(resources, "MEMORY_PER_SLOT", 1e15)
    assert Hardware.of([]).slots == 1


def test_only_the_gpus_that_may_be_used_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho 1024 MiB\n')
    tool.chmod(0o755)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert resources.free_gpu_memory() == [1.0]
    assert "--id=1,3" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("words", "gpus"),
    [
        (["trainer=cpu", "hydra.sweeper.gpus=0"], []),
        (["trainer=gpu", "hydra.sweeper.gpus_per_slot=0.25"], ["0", "1", "2"]),
        (["hydra.sweeper.gpus=0", "hydra.sweeper.gpus=[1,2]"], ["1", "2"]),
        (["hydra.sweeper.gpus=2"], ["0", "1"]),
    ],
)
def test_training_on_uses_the_gpus_of_the_search(
    words: list[str], gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, 3, 80.0)
    assert hardware.gpus_of(words) == gpus


@pytest.mark.parametrize(
    ("usable", "given", "said"),
    [
        (False, [], "on the processor, since torch 2.13.0+cpu can use no GPU"),
        (True, ["trainer=gpu", "trainer=cpu"], "on the processor"),
    ],
)
def test_on_the_processor_a_gpu_bounds_no_slots(
    usable: bool, given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, 1, 80.0, usable)
    found = Hardware.of(given)
    assert found.words[-1] == "hydra.sweeper.gpus=0"
    assert ("trainer=cpu" in found.words) == (not given)
    assert (found.slots, found.said) == (resources.slots("auto", 0, 1.0), said)


def test_what_was_begun_without_a_gpu_stays_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Hardware.of(["trainer=ddp"]).words == []
    has(monkeypatch, 0, 0.0)
    assert Hardware.of([]).words == ["trainer=cpu", "hydra.sweeper.gpus=0"]
    assert Hardware.of(["trainer=gpu"]).words == []


@pytest.mark.parametrize(
    ("given", "slots"),
    [
        (["hydra.sweeper.n_jobs=3"], 3), (["hydra.sweeper.gpus_per_slot=1"], 2), (["hydra.sweeper.gpus=1"], 1),
        (["hydra.sweeper.gpus_per_slot=0.5", "hydra.sweeper.gpus=[1]"], 2),
        (["trainer=cpu", "hydra.sweeper.n_jobs=auto"], 16),
    ],
)  # fmt: skip
def test_who_says_how_many_slots_has_them(given: list[str], slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, 2, 80.0)
    found = Hardware.of(given)
    assert found.slots == slots
    asked = {word.partition("=")[0]: word.partition("=")[2] for word in [*found.words, *given]}
    keys = {key: yaml.safe_load(asked.get(f"hydra.sweeper.{key}", str(value))) for key, value in hardware.OWN.items()}
    assert resources.slots(keys["n_jobs"], keys["gpus"], keys["gpus_per_slot"]) == slots  # as the sweeper counts them


def test_a_number_of_slots_that_is_none_is_refused() -> None:
    for word in ("gpus_per_slot=0", "gpus_per_slot=many", "n_jobs=0"):
        with pytest.raises(ConfigError, match=r"hydra\.sweeper"):
            Hardware.of([f"hydra.sweeper.{word}"])


def test_a_run_that_was_begun_on_a_gpu_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.require(Hardware.of([]).words)
    has(monkeypatch, 0, 0.0)
    with pytest.raises(ConfigError, match="begun on a GPU, and torch finds none now"):
        hardware.require(["trainer=gpu", "hydra.sweeper.gpus_per_slot=0.125"])


@pytest.mark.parametrize(
    "content", ["no program", "#!/bin/sh\nprintf 'No devices \\377'\n", "#!/bin/sh\nexec sleep 60\n"]
)
def test_a_tool_that_is_broken_or_hangs_has_no_gpus(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia-smi").write_text(content)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(resources, "ANSWERS", 0.2)
    assert resources.visible_gpus("auto") == []
