"""What is read off a running sweep from outside."""

import json
import os
from pathlib import Path

import pytest
from tests.gpu import processes


def test_only_files_of_the_driver_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "nvidia0").open("w") as file, (tmp_path / "other").open("w"):
        monkeypatch.setattr(processes, "DEVICES", str(tmp_path / "nvidia"))
        assert processes.devices(os.getpid()) == {file.name}
    assert processes.devices(os.getpid()) == set()


def test_a_process_that_is_gone_has_nothing_open() -> None:
    assert processes.devices(2**22 + 1) == set()


@pytest.mark.parametrize(
    ("listing", "expected"),
    [("12\n345\n", {12, 345}), ("", set()), ("[Not Supported]\n", set()), ("No devices were found\n", set())],
)
def test_pids_are_the_numbers_of_a_listing(listing: str, expected: set[int]) -> None:
    assert processes.pids(listing) == expected


def test_only_forks_of_the_fork_server_count() -> None:
    notes = [{"pid": 7, "touched": False}, {"pid": 7, "touched": True}, {"pid": 8, "touched": True}]
    assert processes.touched(map(json.dumps, notes), 7) == (2, 1)
    assert processes.touched([], None) == (0, 0)
