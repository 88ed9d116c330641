"""`generate.py` of a bundle, in a Python that has its three packages and nothing else."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catsweep.export import standalone
from catsweep.export.graphs import load_bundle
from catsweep.grids import grid
from catsweep.models.generator import draw_latents, generate

RUN = """
import runpy, sys
sys.path.append(sys.argv[1])
sys.argv[:] = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def with_dependencies(*names: str) -> set[str]:
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needed = importlib.metadata.requires(name) or []
            waiting += [re.match(r"[\w.-]+", one)[0].lower() for one in needed if "extra ==" not in one]
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder in which only numpy, onnxruntime, Pillow and what they need can be imported."""
    folder = tmp_path_factory.mktemp("packages")
    for name in with_dependencies("numpy", "onnxruntime", "pillow"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    assert not (folder / "torch").exists()
    return folder


@pytest.fixture
def typed(packages, tmp_path):
    """Runs a script as a stranger would, in a folder of theirs."""

    def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", "-c", RUN, packages, script, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_it_draws_what_the_project_draws(gan, vae, typed, tmp_path) -> None:
    for one, truncation in ((gan, 1.0), (vae, 0.7)):
        done = typed(one.folder / "generate.py", "--n=70", "--seed=5", f"--truncation={truncation}", "--out=cats.png")
        assert (done.returncode, done.stdout, done.stderr) == (0, "cats.png\n", "")
        model = load_bundle(one.folder)
        expected = grid(generate(model, truncation * draw_latents(70, model.latent_size, 5)).numpy())
        with Image.open(tmp_path / "cats.png") as page:
            assert np.array_equal(np.asarray(page), expected)


def test_it_has_nothing_else(packages) -> None:
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.path.append(sys.argv[1]); import torch", packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("word", ["--n=0", "--seed=-1", "--truncation=0", "--truncation=1.5"])
def test_numbers_that_mean_nothing(monkeypatch, capsys, word) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["generate.py", word])
    with pytest.raises(SystemExit):
        runpy.run_path(standalone.__file__, run_name="__main__")
    assert "expected --n of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_page_is_laid_out_as_the_projects(n) -> None:
    images = np.random.default_rng(n).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    assert np.array_equal(standalone.page(images), grid(images))
