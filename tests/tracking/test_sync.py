"""What was recorded offline goes up once, in order, and only when it has ended; wandb itself is stood in for."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catsweep.errors import ConfigError
from catsweep.tracking import sync


class Wandb:
    """`wandb sync` and `wandb leet inspect`: marks what it was given, unless that is damaged."""

    def __init__(self) -> None:
        self.synced: list[list[str]] = []
        self.damaged: set[str] = set()
        self.states: dict[str, str] = {}

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        _, _, _, verb, *words = command
        if verb == "leet":
            state = self.states.get(Path(words[-1]).parent.name, "finished")
            return subprocess.CompletedProcess(command, 0, f'{{"state": "{state}"}}', "")
        parts = [Path(word) for word in words]
        self.synced.append([part.name for part in parts])
        if not any(part.name in self.damaged for part in parts):  # one of them stops it before it begins
            for part in parts:
                (part / "run-x.wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    made = Wandb()
    monkeypatch.setattr(subprocess, "run", made)
    return made


@pytest.fixture
def part(tmp_path: Path) -> Callable[..., Path]:
    """An offline record of a run, written some seconds ago."""

    def made(run: str, begun: str = "20260101_000000", ago: float = 3600.0) -> Path:
        folder = tmp_path / "wandb" / f"offline-run-{begun}-{run}"
        folder.mkdir(parents=True)
        log = folder / "run-x.wandb"
        log.touch()
        os.utime(log, (time.time() - ago, time.time() - ago))
        return folder

    return made


@pytest.mark.usefixtures("signed_in")
def test_the_parts_of_all_runs_go_up_in_one_call_in_order_and_never_again(
    part: Callable[..., Path], program: Wandb, tmp_path: Path
) -> None:
    later = part("cats-3", "20260101_000002")
    first, other = part("cats-3", "20260101_000001"), part("cats-4", "20260101_000003", ago=5)
    (tmp_path / "wandb" / "latest-run").symlink_to(other)
    (tmp_path / "wandb" / "run-20260101_000000-online").mkdir()
    assert sync.sync(tmp_path / "wandb") == "Uploaded 2 runs, in 3 parts."
    assert program.synced == [[first.name, later.name, other.name]]
    assert sync.sync(tmp_path / "wandb").startswith("Nothing to upload: no offline run")
    part("cats-4", "20260101_000004")
    assert sync.sync(tmp_path / "wandb") == "Uploaded 1 run, in 1 part."
    assert len(program.synced) == 2


@pytest.mark.usefixtures("signed_out")
def test_without_a_key_it_says_what_is_missing(part: Callable[..., Path], program: Wandb, tmp_path: Path) -> None:
    part("cats-3")
    with pytest.raises(ConfigError, match=r"1 run is waiting .* no key here.*wandb login.*WANDB_API_KEY"):
        sync.sync(tmp_path / "wandb")
    assert program.synced == []


@pytest.mark.usefixtures("signed_out")
def test_with_nothing_to_upload_no_key_is_asked_for(
    program: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sync.main([])
    assert capsys.readouterr().out.startswith("Nothing to upload")
    (tmp_path / "outputs/wandb/offline-run-20260101_000000-empty").mkdir(parents=True)
    sync.main([])


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("state", ["running", "unknown"])
def test_a_run_that_goes_on_is_left_for_later_with_its_earlier_parts(
    part: Callable[..., Path], program: Wandb, tmp_path: Path, state: str
) -> None:
    part("cats-3", "20260101_000001")
    program.states[part("cats-3", "20260101_000002", ago=5).name] = state
    assert sync.sync(tmp_path / "wandb") == "Nothing to upload yet: 1 run is still going on, and left for later."
    ended = part("cats-4")
    program.states[part("cats-5", ago=7200).name] = state  # killed two hours ago
    assert "Uploaded 2 runs, in 2 parts. 1 run is still going on" in sync.sync(tmp_path / "wandb")
    assert ended.name in program.synced[0]


@pytest.mark.usefixtures("signed_in")
def test_a_record_that_a_process_has_open_goes_on(
    part: Callable[..., Path], program: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "SERVICE", __import__("psutil").Process().name())  # this one stands for wandb's
    folder = part("cats-3")
    with (folder / "run-x.wandb").open():
        assert "1 run is still going on" in sync.sync(tmp_path / "wandb")
    assert sync.sync(tmp_path / "wandb") == "Uploaded 1 run, in 1 part."


@pytest.mark.usefixtures("signed_in")
def test_a_damaged_record_keeps_no_other_run_back(part: Callable[..., Path], program: Wandb, tmp_path: Path) -> None:
    well, bad = part("cats-3"), part("cats-4")
    program.damaged.add(bad.name)
    with pytest.raises(SystemExit, match=f"did not upload {bad.name}; above it says why"):
        sync.main([str(tmp_path / "wandb")])
    assert (well / "run-x.wandb.synced").exists()
