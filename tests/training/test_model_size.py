"""How large and how fast a generator is, without training it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from catsweep.export import graphs
from catsweep.instantiation import instantiate
from catsweep.schema.noted import MILLISECONDS, NAMES, ONNX_MB, WEIGHTS
from catsweep.training.model_size import count_weights, measure


class Drawing(nn.Module):
    """Draws with one of its two layers."""

    latent_size, image_size = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.drawing, self.judging = nn.Linear(2, 48), nn.Linear(48, 1000)

    def decode(self, latents: Tensor) -> Tensor:
        return self.drawing(latents).sigmoid().view(-1, 3, 4, 4)


def test_only_what_draws_is_counted_and_the_model_is_as_before() -> None:
    model = Drawing()
    assert count_weights(model) == 2 * 48 + 48
    assert model.training
    assert not model.drawing._forward_pre_hooks


def test_only_what_is_asked_for_is_measured() -> None:
    threads = torch.get_num_threads()
    assert measure(Drawing()) == {WEIGHTS: 144}
    assert set(measure(Drawing(), [MILLISECONDS, "else"])) == {WEIGHTS, MILLISECONDS}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("model", ["vae", "dcgan"])
def test_the_weights_are_those_of_the_exported_generator(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    write, file = graphs.write_onnx, tmp_path / "generator.onnx"

    def kept(model: Any, path: Path) -> None:
        write(model, path)
        shutil.copyfile(path, file)

    monkeypatch.setattr(graphs, "write_onnx", kept)
    made = instantiate(compose(f"model={model}").model)
    found = measure(made, NAMES)
    assert found[ONNX_MB] == file.stat().st_size / 1e6
    initializers = onnx.load(file).graph.initializer
    numbers = sum(torch.Size(tensor.dims).numel() for tensor in initializers)
    # An exporter folds the statistics of a normalization into two numbers for four, and adds shapes.
    assert 0.9 * found[WEIGHTS] < numbers <= found[WEIGHTS] * 1.01
    assert found[MILLISECONDS] > 0
