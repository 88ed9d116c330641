"""Which GPU and how many cores a slot gets."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import hostile

from steady.exceptions import ConfigError
from steady.resources import ALLOCATOR, environment, machine, processor, slots, visible_gpus, without_rank


def devices(many: int, gpus: list[str], share: float) -> list[str]:
    return [environment(slot, many, gpus, share).get("CUDA_VISIBLE_DEVICES", "") for slot in range(many)]


@pytest.mark.parametrize(
    ("many", "gpus", "share", "expected"),
    [
        (3, ["0", "1"], 1.0, ["0", "1", "0"]),
        (4, ["0", "1"], 0.5, ["0", "0", "1", "1"]),
        (6, ["0", "1"], 1 / 3, ["0", "0", "0", "1", "1", "1"]),
        (4, ["0", "1"], 0.4, ["0", "0", "1", "1"]),  # a third of them would want more than there is
        (2, ["0", "1", "2", "3"], 2.0, ["0,1", "2,3"]),
        (2, [], 1.0, ["", ""]),
    ],
)
def test_slots_take_gpus_in_turn(many: int, gpus: list[str], share: float, expected: list[str]) -> None:
    assert devices(many, gpus, share) == expected


def test_slots_of_one_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    assert environment(0, 2, ["0"], 0.5)["PYTORCH_CUDA_ALLOC_CONF"] == "per_process_memory_fraction:0.4750"
    for whole in (1.0, 2.0):
        assert "PYTORCH_CUDA_ALLOC_CONF" not in environment(0, 2, ["0", "1"], whole)
    assert "PYTORCH_CUDA_ALLOC_CONF" not in environment(0, 2, [], 0.5)


@pytest.mark.parametrize(("installed", "shared"), [("2.9.1", False), ("2.10.0+cu130", True), ("3.0.0a0+git1", True)])
def test_an_older_torch_is_not_given_what_it_refuses(
    monkeypatch: pytest.MonkeyPatch, installed: str, shared: bool
) -> None:
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("steady.resources.version", lambda _: installed)
    assert bool(set(environment(0, 2, ["0"], 0.5)) & set(ALLOCATOR)) is shared


@pytest.mark.parametrize("name", ALLOCATOR)
def test_the_users_own_settings_of_a_gpus_memory_stand(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "expandable_segments:True")
    assert not set(environment(0, 2, ["0"], 0.5)) & set(ALLOCATOR)


@given(share=st.floats(0.01, 1.0), gpus=st.integers(1, 8))
def test_no_gpu_is_promised_more_than_once(share: float, gpus: int) -> None:
    ids = [str(gpu) for gpu in range(gpus)]
    loads = Counter(devices(slots("auto", ids, share), ids, share))
    assert len(loads) == gpus
    assert all(load * share <= 1 + 1e-6 for load in loads.values())


def test_a_share_of_one_in_n_makes_n_slots() -> None:
    assert [slots("auto", ["0"], 1 / n) for n in range(1, 101)] == list(range(1, 101))


def test_threads_are_left_alone_when_the_user_has_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(0, 1, [], 1.0) == {}
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert environment(0, 3, [], 1.0) == {"OMP_NUM_THREADS": "2"}
    assert environment(0, 16, [], 1.0) == {"OMP_NUM_THREADS": "1"}


def test_gpus_are_those_that_are_visible_or_that_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab")
    assert visible_gpus("auto") == ["2", "GPU-ab"]
    assert visible_gpus(1) == ["2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus("auto") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus("auto") == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus("auto") == []
    assert visible_gpus(["3", 5]) == ["3", "5"]


def test_a_slot_knows_the_allocation_but_no_place_among_its_tasks() -> None:
    given = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "RANKING": "1", **hostile.SLURM, **hostile.TORCHRUN}
    left = {"PATH", "CUDA_VISIBLE_DEVICES", "RANKING", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST"}
    assert without_rank(given).keys() == left | {"SLURM_NODELIST", "SLURM_NNODES", "SLURM_CPUS_ON_NODE"}


def test_a_machine_is_its_processor_its_cores_and_its_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA H100\necho NVIDIA H100\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert machine() == f"{processor() or 'an unknown processor'}, 1 core, 2 x NVIDIA H100"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine().endswith(", 1 core")


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: another\n", "AMD EPYC"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\nCPU part\t: 0xd0b\n", "ARM 0x41 0xd0c"),
        ("processor\t: 0\nhart\t: 1\n", "riscv64"),
        (None, "riscv64"),
    ],
    ids=["x86", "ARM", "another", "no such file"],
)
def test_a_processor_has_a_name_on_each_architecture(
    cpuinfo: str | None, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr("steady.resources.CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert processor() == name


@pytest.mark.parametrize("wrong", ["all", -1, 1.5, None])
def test_gpus_that_mean_nothing_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.gpus"):
        visible_gpus(wrong)
