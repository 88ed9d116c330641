"""Checkpoints that are torn in every way, and a disk that takes no more."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytorch_lightning import LightningModule
from tests.disk import largest_file
from torch import nn

from catsweep import checkpoints
from catsweep.checkpoints import Checkpoints, newest, read, refuse_others
from catsweep.errors import DataError, TrainingError
from catsweep.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT

pytestmark = pytest.mark.security
SAME_FOLDER = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example writes its file anew


class Net(LightningModule):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2)


def content(epoch: int, numbers: int = 6) -> dict[str, Any]:
    """What Lightning writes, of a net of some numbers."""
    weights = {"layer.weight": torch.full((2, numbers // 2), float(epoch)), "layer.bias": torch.arange(2.0)}
    return {"state_dict": weights, "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": epoch}}}}}


def epoch_in(file: Path) -> int:
    return checkpoints.epoch_of(read(file))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / LAST_CHECKPOINT).parent.mkdir()
    return tmp_path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of some 3 kB."""
    file = tmp_path_factory.mktemp("whole") / "last.ckpt"
    torch.save(content(5), file)
    return file.read_bytes()


def same_or_named(file: Path, damaged: bytes, whole: bytes) -> None:
    """Read what was damaged: refused by its name in one line, unless only bytes were that mean nothing."""
    file.write_bytes(damaged)
    try:
        found = read(file)
    except DataError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert str(file) in said
        assert len(said.splitlines()) == 1
        return
    assert len(damaged) == len(whole)
    expected = content(5)
    assert found["loops"] == expected["loops"]
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    assert all(torch.equal(found["state_dict"][name], one) for name, one in expected["state_dict"].items())


@SAME_FOLDER
@given(st.data())
def test_one_that_was_cut_anywhere_is_named(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    file = tmp_path / "last.ckpt"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=r"last\.ckpt is torn, or none of catsweep's \([\d,]+ bytes: .+\)\.$"):
        read(file)


@SAME_FOLDER
@given(st.data())
def test_one_with_zeros_or_noise_in_it_is_named_or_the_same(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, len(whole)) | st.just(len(whole)))
    noise = data.draw(st.sampled_from([b"\x00", b"\xff", b"PK", b"\x80\x02"]))
    end = min(start + length, len(whole))
    filling = (noise * (end - start))[: end - start]
    same_or_named(tmp_path / "last.ckpt", whole[:start] + filling + whole[end:], whole)


def test_zeros_within_the_weights_are_no_weights(tmp_path: Path) -> None:
    """As some disks leave what they had no time to write: torch alone would read them."""
    file = tmp_path / "best.ckpt"
    torch.save(content(1, numbers=2000), file)
    damaged = bytearray(file.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 512] = bytes(512)
    file.write_bytes(damaged)
    torch.load(file, weights_only=True)
    with pytest.raises(DataError, match="not what was written"):
        read(file)


class Opened:
    """What a pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("opened",)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([1], "TypeError|indices|list"),
        ({"weights": 1}, "state_dict"),
        ({"state_dict": None}, "NoneType"),
        ({"state_dict": {"layer.bias": "text"}}, "no tensors"),
        ({"state_dict": {3: torch.zeros(1)}}, "no tensors"),
        ({"state_dict": {}, "more": Opened()}, "holds more than tensors"),
    ],
    ids=["a list", "no weights", "none", "text", "numbers for names", "a pickle that runs code"],
)
def test_other_content_is_named_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(made, tmp_path / "best.ckpt")
    with pytest.raises(DataError, match=said):
        read(tmp_path / "best.ckpt")
    assert not Path("opened").exists()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "loop.ckpt").symlink_to("loop.ckpt")
    for name in ("pipe", "folder", "loop", "absent"):
        with pytest.raises(DataError, match=r"Expected the checkpoint .*; it is not there"):
            read(tmp_path / f"{name}.ckpt")


@pytest.mark.parametrize("loops", [None, {}, {"fit_loop": 3}, {"fit_loop": {"epoch_progress": {"current": {}}}}])
def test_one_that_does_not_tell_its_epoch_says_so(loops: Any) -> None:
    with pytest.raises(DataError, match="does not tell its epoch"):
        checkpoints.epoch_of({"loops": loops})


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    state = content(1)["state_dict"]
    refuse_others(Net(), state, tmp_path)
    for model, weights, said in (
        (Net(5), state, r"other shapes: layer\.weight \(2, 3\) instead of \(2, 5\)"),
        (Net(), {"layer.bias": state["layer.bias"]}, r"it lacks layer\.weight"),
        (
            Net(),
            state | {f"block.{n}": torch.zeros(1) for n in range(9)},
            r"it has besides block\.0, block\.1, block\.2",
        ),
    ):
        with pytest.raises(DataError, match=rf"not of the Net that config\.yaml describes: {said}"):
            refuse_others(model, weights, tmp_path)


# Written


def test_the_last_keeps_the_one_before_and_no_more(run: Path) -> None:
    writer = Checkpoints()
    for epoch in (1, 2, 3):
        writer.save_checkpoint(content(epoch), run / LAST_CHECKPOINT)
        writer.save_checkpoint(content(epoch), run / BEST_CHECKPOINT)
    assert [epoch_in(run / name) for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, BEST_CHECKPOINT)] == [3, 2, 3]
    assert len(list((run / LAST_CHECKPOINT).parent.iterdir())) == 3


def test_a_torn_one_does_not_take_the_place_of_the_whole_one_that_was_gone_on_from(run: Path) -> None:
    before = Checkpoints()
    for epoch in (1, 2):
        before.save_checkpoint(content(epoch), run / LAST_CHECKPOINT)
    (run / LAST_CHECKPOINT).write_bytes(b"torn")
    resumed = Checkpoints()
    resumed.load_checkpoint(run / PREVIOUS_CHECKPOINT)
    resumed.save_checkpoint(content(20), run / LAST_CHECKPOINT)
    assert [epoch_in(run / name) for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)] == [20, 1]
    resumed.save_checkpoint(content(30), run / LAST_CHECKPOINT)
    assert [epoch_in(run / name) for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)] == [30, 20]


def test_a_run_that_begins_afresh_keeps_nothing_of_another(run: Path) -> None:
    other = Checkpoints()
    for epoch in (8, 9):
        other.save_checkpoint(content(epoch), run / LAST_CHECKPOINT)
    Checkpoints().save_checkpoint(content(1), run / LAST_CHECKPOINT)
    assert epoch_in(run / LAST_CHECKPOINT) == 1
    assert not (run / PREVIOUS_CHECKPOINT).exists()


def test_a_file_system_without_links_keeps_it_as_well(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    writer = Checkpoints()
    for epoch in (1, 2):
        writer.save_checkpoint(content(epoch), run / LAST_CHECKPOINT)
    assert [epoch_in(run / name) for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)] == [2, 1]


@pytest.mark.parametrize("name", [LAST_CHECKPOINT, BEST_CHECKPOINT])
def test_a_full_disk_leaves_what_was_there_and_says_what_to_do(run: Path, name: Path) -> None:
    writer = Checkpoints()
    for epoch in (1, 2):
        writer.save_checkpoint(content(epoch), run / name)
    before = {file: file.read_bytes() for file in (run / name).parent.iterdir()}
    with largest_file(1 << 20), pytest.raises(TrainingError) as raised:
        writer.save_checkpoint(content(3, numbers=1 << 20), run / name)
    assert {file: file.read_bytes() for file in (run / name).parent.iterdir()} == before
    assert f"{run / name} could not be written: File too large." in str(raised.value)
    assert f"resume={run}" in str(raised.value)


def test_it_is_on_the_disk_before_it_is_in_its_place(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    Checkpoints().save_checkpoint(content(1), run / LAST_CHECKPOINT)
    assert done == ["fsync", "replace"]


# Where a run goes on


def test_the_newest_that_is_whole_is_gone_on_from(run: Path, whole: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert newest(run) is None
    torch.save(content(4), run / PREVIOUS_CHECKPOINT)
    (run / LAST_CHECKPOINT).write_bytes(whole)
    found = newest(run)
    assert found is not None
    assert found[0] == run / LAST_CHECKPOINT
    assert not caplog.messages

    for damaged in (b"", whole[: random.Random(3).randrange(len(whole))], whole[:-600] + bytes(600), None):
        caplog.clear()
        (run / LAST_CHECKPOINT).unlink()
        if damaged is not None:
            (run / LAST_CHECKPOINT).write_bytes(damaged)
        found = newest(run)
        assert found is not None
        assert (found[0], checkpoints.epoch_of(found[1])) == (run / PREVIOUS_CHECKPOINT, 4)
        [line] = caplog.messages
        assert "last.ckpt is " in line
        assert line.endswith("Going on from the one before it, of epoch 4.")


def test_two_torn_ones_are_both_named(run: Path) -> None:
    for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        (run / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"last\.ckpt is torn.*last-previous\.ckpt is torn"):
        newest(run)


def test_one_that_will_not_do_is_passed_over_too(run: Path) -> None:
    torch.save(content(2, numbers=10), run / LAST_CHECKPOINT)
    torch.save(content(1), run / PREVIOUS_CHECKPOINT)
    found = newest(run, lambda checkpoint, file: refuse_others(Net(), checkpoint["state_dict"], file))
    assert found is not None
    assert found[0].name == PREVIOUS_CHECKPOINT.name


@pytest.mark.security
@pytest.mark.parametrize(
    "claims",
    [
        torch.zeros(1).expand(1 << 40),
        torch.empty(1 << 40, device="meta"),
        torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (1 << 40,), check_invariants=True),
    ],
)
def test_weights_that_claim_more_than_the_file_holds(claims: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": claims}}, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match="is torn, or none of catsweep's"):
        read(tmp_path / "a.ckpt")


@pytest.mark.security
def test_tied_weights_are_as_many_as_their_names(tmp_path: Path) -> None:
    weight = torch.ones(4096)
    torch.save({"state_dict": {"a": weight, "b": weight}}, tmp_path / "a.ckpt")
    assert torch.equal(read(tmp_path / "a.ckpt")["state_dict"]["b"], weight)
