import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from catsweep import generation
from catsweep.errors import ConfigError, DataError, ExportError
from catsweep.export import onnx
from catsweep.models.latents import draw_latents

SIDE, PADDING = 2, 2


class Painter:
    """Paints each image in one colour, which tells the first three numbers of its latent."""

    latent_size = 5
    image_size = SIDE

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :3, None, None].sigmoid().expand(-1, 3, SIDE, SIDE)


def config(**changes):
    keys = OmegaConf.load(Path(__file__).parents[1] / "conf" / "generate.yaml")
    return OmegaConf.merge({key: keys[key] for key in keys if key not in ("defaults", "hydra")}, changes)


@pytest.fixture
def painted(monkeypatch):
    """Draws with the painter; returns the colours of the page's cells, shape (rows, columns, 3)."""
    monkeypatch.setattr(generation, "load_generator", lambda source, checkpoint: Painter())

    def draw(**changes):
        with Image.open(generation.run(config(**changes))) as image:
            page = np.asarray(image).astype(int)
        return page[PADDING :: SIDE + PADDING, PADDING :: SIDE + PADDING][:, : (page.shape[1] - PADDING) // 4]

    return draw


def colours(latents: Tensor) -> np.ndarray:
    return (latents[:, :3].sigmoid() * 255).round().int().numpy()


def test_page_shows_the_cats_of_the_seed(painted, tmp_path) -> None:
    page = painted(run=str(tmp_path), n=6, seed=7, columns=3)
    assert page.shape == (2, 3, 3)
    assert np.array_equal(page.reshape(6, 3), colours(draw_latents(6, 5, seed=7)))


def test_more_cats_begin_with_the_same_ones(painted, tmp_path) -> None:
    few, many = (painted(run=str(tmp_path), n=n, columns=1) for n in (3, 5))
    assert np.array_equal(few, many[:3])


def test_page_is_as_square_as_possible(painted, tmp_path) -> None:
    assert painted(run=str(tmp_path), n=64).shape == (8, 8, 3)


def test_truncation_pulls_towards_the_mean(painted, tmp_path) -> None:
    page = painted(run=str(tmp_path), n=4, columns=4, truncation=0.25)
    assert np.array_equal(page[0], colours(0.25 * draw_latents(4, 5, seed=0)))


def test_each_row_walks_from_one_cat_to_another(painted, tmp_path) -> None:
    page = painted(run=str(tmp_path), n=16, interpolate=5, seed=3, columns=2)
    ends = colours(draw_latents(6, 5, seed=3))
    assert page.shape == (3, 5, 3)  # three whole rows fit into 16
    assert np.array_equal(page[:, 0], ends[0::2])
    assert np.array_equal(page[:, -1], ends[1::2])
    assert not np.array_equal(page[:, 1], page[:, 0])


@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "generated_0.png"), ({"seed": 4}, "generated_4.png"), ({"interpolate": 2}, "interpolation_0.png")],
)
def test_page_goes_to_the_run_folder_and_is_printed(painted, tmp_path, capsys, changes, name) -> None:
    painted(run=str(tmp_path), n=4, **changes)
    assert capsys.readouterr().out == f"{tmp_path / name}\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_page_goes_where_it_is_asked_to(painted, tmp_path) -> None:
    painted(run=str(tmp_path / "run"), n=4, out=str(tmp_path / "new" / "cats.PNG"))
    assert (tmp_path / "new" / "cats.PNG").is_file()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", 0),
        ("n", "many"),
        ("n", 1.5),
        ("n", None),
        ("n", True),
        ("seed", -1),
        ("seed", None),
        ("columns", 0),
        ("truncation", 0),
        ("truncation", 1.1),
        ("truncation", "half"),
        ("truncation", float("nan")),
        ("interpolate", 1),
        ("interpolate", 65),
        ("out", "cats.jpg"),
        ("out", "folder"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(monkeypatch, key, value) -> None:
    monkeypatch.setattr(generation, "load_generator", pytest.fail)
    with pytest.raises(ConfigError, match=rf"^{key}[ =].*{value!r}" if key != "interpolate" else key):
        generation.run(config(**{key: value}))


class Net(nn.Module):
    """A painter that can be exported."""

    latent_size, image_size = 5, SIDE

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def decode(self, latents: Tensor) -> Tensor:
        return (self.scale * latents[:, :3, None, None]).sigmoid() + torch.zeros(1, 1, SIDE, SIDE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    onnx.write(Net(), folder / "generator.onnx")
    return folder


def test_bundle_is_drawn_with_onnx_runtime(bundle, tmp_path) -> None:
    out = generation.run(config(run=str(bundle), n=3, columns=3, out=str(tmp_path / "cats.png")))
    with Image.open(out) as image:
        page = np.asarray(image)
    assert np.array_equal(page[PADDING, PADDING :: SIDE + PADDING][:3], colours(draw_latents(3, 5, seed=0)))


def test_run_is_drawn_from_the_checkpoint_asked_for(monkeypatch, tmp_path) -> None:
    import catsweep.runs

    model = Net()
    monkeypatch.setattr(
        catsweep.runs, "load_run", lambda run, name: (model, None) if (run, name) == (tmp_path, "last") else None
    )
    assert generation.load_generator(tmp_path, "last") is model


def test_folder_that_is_no_run(tmp_path) -> None:
    with pytest.raises(DataError, match="Expected the folder of a run"):
        generation.load_generator(tmp_path / "nowhere")


def test_damaged_bundle(tmp_path) -> None:
    (tmp_path / "generator.onnx").write_bytes(b"cut short")
    with pytest.raises(ExportError, match="not a generator"):
        generation.load_generator(tmp_path)


def test_command_line_draws_without_lightning_and_leaves_only_the_page(root, bundle, tmp_path) -> None:
    command = [sys.executable, "-X", "importtime", str(root / "src" / "generate.py"), f"run={bundle}", "n=4"]
    result = subprocess.run([*command, "out=cats.png"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "cats.png\n"
    assert [path.name for path in tmp_path.iterdir()] == ["cats.png"]
    assert " torch\n" in result.stderr
    assert " pytorch_lightning\n" not in result.stderr
