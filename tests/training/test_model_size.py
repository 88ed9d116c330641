"""How large and how fast a generator is, without training it."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from catsweep.export.graphs import write_onnx
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
    compose: Callable[..., DictConfig], tmp_path: Path, model: str
) -> None:
    made = instantiate(compose(f"model={model}").model)
    found = measure(made, NAMES)
    write_onnx(made, tmp_path / "generator.onnx")
    assert found[ONNX_MB] == (tmp_path / "generator.onnx").stat().st_size / 1e6
    kept = onnx.load(tmp_path / "generator.onnx").graph.initializer
    numbers = sum(torch.Size(tensor.dims).numel() for tensor in kept)
    # An exporter folds the statistics of a normalization into two numbers for four, and adds shapes.
    assert 0.9 * found[WEIGHTS] < numbers <= found[WEIGHTS] * 1.01
    assert found[MILLISECONDS] > 0
