"""A run is tried with one batch: what it would fail of is found, all at once, and nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from catsweep.training.fast_dev_run import FastDevRun

pytestmark = pytest.mark.security


@pytest.fixture(scope="module")
def attempt() -> FastDevRun:
    return FastDevRun(["val/kid"], 1)


@pytest.mark.parametrize("words", [(), ("model=dcgan", "loss=hinge"), ("schedule=cosine", "loss=l1", "block=residual")])
def test_a_sound_run_has_no_problem_and_leaves_nothing(
    words: tuple[str, ...], attempt: FastDevRun, compose: Callable[..., DictConfig], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert attempt.problems(compose(*words)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["objective=[val/fidd]"], ["val/fidd"]),
        (["objective=[val/fid,val/kid]"], ["hydra.sweeper.direction has 1"]),
        (["rungs=[]"], ["Pruning needs rungs"]),
        (["model=dcgan", "loss=mse"], ["adversarial loss"]),
        (["depth=deep", "data.size=16"], ["halved"]),
        (
            [
                "data.reader._target_=catsweep.data.sources.Photos",
                "~data.reader.n",
                "~data.reader.seed",
                "+data.reader.folder=nope",
            ],
            ["nope"],
        ),
        (["+model.nope=1"], ["nope"]),
        (["metrics.rung_samples=99"], ["rung_samples"]),
        (["trainer=ddp", "trainer.accelerator=cpu"], ["A trial of a sweep is one process"]),
        (["objective=[val/nope]", "+model.nope=1", "rungs=[]"], ["nope", "Pruning needs"]),
    ],
)
def test_what_a_run_would_fail_of_is_found(
    words: list[str], said: list[str], attempt: FastDevRun, compose: Callable[..., DictConfig]
) -> None:
    found = attempt.problems(compose(*words))
    assert found
    for word in said:
        assert any(word in line for line in found), found
    assert all("Traceback" not in line for line in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_with_the_rest(attempt: FastDevRun, compose: Callable[..., DictConfig]) -> None:
    found = attempt.problems(compose("trainer=gpu", "objective=[val/nope]"))
    assert any("needs a GPU" in line for line in found)


def test_memory_and_bad_luck_are_for_the_search_to_find_out(
    attempt: FastDevRun, compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_wide(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("catsweep.training.fast_dev_run.train_one_batch", too_wide)
    assert attempt.problems(compose()) == []
