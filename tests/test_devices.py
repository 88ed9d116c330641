"""What a run computes on."""

import pytest
import torch

from catsweep.devices import device_name, require
from catsweep.errors import ConfigError


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, accelerator: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    with pytest.raises(ConfigError, match=rf"{accelerator} needs a GPU, but torch .* finds none.*trainer=cpu"):
        require(accelerator)
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(ConfigError, match="a build for processors only"):
        require(accelerator)


def test_what_is_there_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    require("gpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    require("cpu")
    require("auto")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    require("gpu")


@pytest.mark.security
@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "auto"])
@pytest.mark.parametrize(("devices", "needs"), [(3, 3), ([0, 2], 3), ([5], 6)])
def test_more_gpus_than_there_are_are_refused(monkeypatch, accelerator: str, devices: object, needs: int) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=rf"needs {needs} GPUs, but torch finds 2.*trainer\.devices=2 or less"):
        require(accelerator, devices)
    require("cpu", devices)  # processes
    for enough in (1, 2, [1], [0, 1], "auto"):
        require(accelerator, enough)


def test_a_device_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "A GPU")
    assert device_name(torch.device("cpu")) == "cpu"
    assert device_name(torch.device("cuda", 0)) == "A GPU"
