import pytest
import torch
from torch import Tensor, nn

from catsweep.errors import ExportError
from catsweep.export import graphs


class Tiny(nn.Module):
    """Draws and reconstructs, each with a part of its own."""

    latent_size = 4
    image_size = 2

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(4, 12), nn.Linear(12, 4)
        self.register_buffer("unused", torch.zeros(3), persistent=False)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents).sigmoid().view(-1, 3, 2, 2)

    def reconstruct(self, photos: Tensor) -> Tensor:
        return self.decode(self.encoder(photos.flatten(1)))


def test_only_what_is_read_is_kept() -> None:
    drawing, again = graphs.trace_decode(Tiny()), graphs.trace_reconstruct(Tiny())
    assert {name.split(".")[1] for name in drawing.state_dict} == {"decoder"}
    assert {name.split(".")[1] for name in again.state_dict} == {"decoder", "encoder"}
    assert drawing.constants == {}
    assert drawing.module()(torch.zeros(5, 4)).shape == again.module()(torch.zeros(5, 3, 2, 2)).shape == (5, 3, 2, 2)


def test_neither_an_example_nor_a_source_file_is_kept() -> None:
    program = graphs.trace_decode(Tiny())
    assert program.example_inputs is None
    assert not [node for node in program.graph.nodes if "stack_trace" in node.meta]


def test_model_stays_in_its_mode_and_keeps_its_weights() -> None:
    model = Tiny().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graphs.trace_decode(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_step_that_depends_on_a_value_is_refused() -> None:
    class Fickle(Tiny):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents if latents.sum() > 0 else -latents)

    with pytest.raises(ExportError, match=r"Fickle\.decode cannot be exported: .* any batch size"):
        graphs.trace_decode(Fickle())


def test_fixed_batch_is_refused() -> None:
    class Rigid(Tiny):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents).view(2, 3, 2, 2)

    with pytest.raises(ExportError, match=r"Rigid\.decode cannot be exported"):
        graphs.trace_decode(Rigid())
