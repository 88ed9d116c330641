import io
import pickle
import zipfile

import pytest
import torch
from torch import Tensor, nn

from catsweep.errors import ExportError
from catsweep.export import graphs
from catsweep.models.generator import draw_latents


class Tiny(nn.Module):
    """Draws from 4 numbers; has a part that only training needs."""

    latent_size = 4
    image_size = 2

    def __init__(self, shift: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.only_trained = nn.Linear(4, 12), nn.Linear(100, 100)
        self.shift = shift

    def decode(self, latents: Tensor) -> Tensor:
        return self.linear(latents).sigmoid().view(-1, 3, 2, 2) + self.shift


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / graphs.PROGRAM
    graphs.write_program(Tiny(), path)
    return path


def test_any_batch_draws_what_the_model_draws(file) -> None:
    assert graphs.difference(Tiny(), file, batches=(1, 2, 64)) < 1e-6


def test_check_sees_a_generator_that_differs(file) -> None:
    assert graphs.difference(Tiny(shift=2e-4), file) == pytest.approx(2e-4, rel=1e-2)


def test_torch_alone_reads_it(file) -> None:
    images = torch.export.load(file).module()(draw_latents(3, 4, seed=0))
    assert images.shape == (3, 3, 2, 2)


def test_what_drawing_does_not_need_is_left_out(file) -> None:
    assert set(torch.export.load(file).state_dict) == {"model.linear.weight", "model.linear.bias"}


def test_no_member_is_a_pickle(file) -> None:
    # Looked at by hand, apart from `pickled_members`: bytes of weights, JSON, and words.
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert content[:2] not in (b"PK", b"\x80\x02", b"\x80\x04"), name
            if name.endswith("sample_inputs/model.pt"):
                assert content == b""
            if name.endswith(".json"):
                assert b'"use_pickle": true' not in content
    assert graphs.pickled_members(file) == []


def test_pickles_are_found(tmp_path) -> None:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(2, 2),)), buffer)
    assert [name.partition("/")[2] for name in graphs.pickled_members(buffer)] == ["data/sample_inputs/model.pt"]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert graphs.is_pickled(pickle.dumps({"a": [1, 2.5, "b"]}, protocol))


@pytest.mark.parametrize(
    "content", [b"", b"pt2", b"6\n", b"{}", b"\x80\x02", torch.randn(500).numpy().tobytes(), b"N.N."]
)
def test_other_bytes_are_no_pickles(content) -> None:
    assert not graphs.is_pickled(content)


def test_part_that_could_only_be_pickled_is_refused(tmp_path, monkeypatch) -> None:
    traced = torch.export.export(nn.Linear(4, 4), (torch.zeros(2, 4),))  # which keeps its example
    monkeypatch.setattr(graphs, "trace_decode", lambda model: traced)
    with pytest.raises(ExportError, match=r"Tiny\.decode cannot be exported as generator\.pt2 without pickles"):
        graphs.write_program(Tiny(), tmp_path / "generator.pt2")
    assert not (tmp_path / "generator.pt2").exists()
