"""The wheel of `hydra-steady-sweeper` in an empty environment, beside the app that its front page shows."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.docs.pages import PAGES, blocks

ROOT = Path(__file__).resolve().parents[2]
MOST_DIRECT, MOST_PACKAGES = 10, 30  # that the sweeper may ask for, itself and in all
INSTALLED = """
import importlib.metadata, importlib.util, json
names = "torch pytorch_lightning lightning catsweep matplotlib wandb pip".split()
print(json.dumps([
    sorted({dist.metadata["Name"] for dist in importlib.metadata.distributions()}),
    [name for name in names if importlib.util.find_spec(name)],
]))
"""
SECONDS = 120  # that anything here may take, on a machine that is busy


def closure(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """What pip would install for requirements, out of what is installed here: {name: distribution}."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [Requirement(line) for line in requirements]
    while wanted:
        requirement = wanted.pop()
        extras = [*requirement.extras, ""]
        name = canonicalize_name(requirement.name)
        distribution = metadata.distribution(name)
        assert requirement.specifier.contains(distribution.version, prereleases=True), str(requirement)
        if name in found and not requirement.extras:
            continue
        found[name] = distribution
        needed = [Requirement(line) for line in distribution.requires or []]
        wanted += [one for one in needed if not one.marker or any(one.marker.evaluate({"extra": e}) for e in extras)]
    return found


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Make a distribution importable in another `site-packages`: by links to exactly its files."""
    for file in distribution.files or []:
        if ".." in file.parts:
            continue  # a script or a manual page
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(Path(str(distribution.locate_file(file))).resolve())


class Place:
    """A virtual environment with the wheel and what it requires, and a folder with the page's apps.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        wheels = folder / "wheels"
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, cwd=ROOT / "src", check=True, capture_output=True)
        (self.wheel,) = wheels.glob("hydra_steady_sweeper-*.whl")
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        (self.site,) = (folder / "venv").glob("lib/python*/site-packages")
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(self.site)
        (self.of_the_wheel,) = metadata.distributions(name="hydra-steady-sweeper", path=[str(self.site)])
        for distribution in closure(self.requires()).values():
            link(distribution, self.site)
        self.app = folder / "app"
        self.app.mkdir()
        for block in blocks(PAGES["docs/steady.md"]):
            if block.title:
                (self.app / block.title).write_text(block.text, encoding="utf-8")

    def requires(self, extra: str = "") -> list[str]:
        """The direct requirements, with those of an extra."""
        every = [Requirement(line) for line in self.of_the_wheel.requires or []]
        return [
            f"{one.name}{one.specifier}" for one in every if not one.marker or one.marker.evaluate({"extra": extra})
        ]

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start Python there, with nothing of this environment."""
        kept = {"PATH", "HOME", "LANG", "TMPDIR"}
        env = {name: value for name, value in os.environ.items() if name in kept} | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [str(self.python), *words], cwd=self.app, env=env, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0) -> str:
        """Run Python there to its end; what it said."""
        process = self.start(*words)
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == code, said
        return said

    def trials(self, study: str) -> list[optuna.trial.FrozenTrial]:
        """The trials of a study there, by number."""
        url = f"sqlite:///{self.app / 'sweeps' / study / 'study.db'}"
        return optuna.load_study(study_name=study, storage=url).trials


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("foreign")
    yield Place(folder)
    shutil.rmtree(folder)


def test_it_needs_few_packages_and_none_that_trains(place: Place) -> None:
    names, forbidden = json.loads(place.run("-c", INSTALLED))
    assert forbidden == []
    assert "hydra-steady-sweeper" in names
    assert len(names) < MOST_PACKAGES, names
    assert len(place.requires()) <= MOST_DIRECT


def test_the_wheel_holds_the_page_the_licence_and_one_version(place: Place) -> None:
    said = place.of_the_wheel.metadata
    assert said["Version"] == place.run("-c", "import steady; print(steady.__version__)").strip()
    assert str(said.json["description"]).strip() == (ROOT / "docs" / "steady.md").read_text(encoding="utf-8").strip()
    (licence,) = (file for file in place.of_the_wheel.files or [] if file.name == "LICENSE")
    assert licence.read_text() == (ROOT / "LICENSE").read_text()
    tops = {file.parts[0] for file in place.of_the_wheel.files or []}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"steady", "hydra_plugins"}


def test_the_app_is_ten_lines(place: Place) -> None:
    assert len([line for line in (place.app / "my_app.py").read_text().splitlines() if line]) <= 10


@pytest.mark.trains
def test_a_sweep_that_is_killed_goes_on_to_its_exact_total(place: Place) -> None:
    slow = place.app / "my_app.py"
    slow.write_text(slow.read_text().replace("import hydra\n", "import time\n\nimport hydra\n", 1))
    slow.write_text(slow.read_text().replace("    return", "    time.sleep(0.3)\n    return"))
    words = ("my_app.py", "-m", "hydra.sweeper.n_jobs=2")
    controller = place.start(*words)
    assert controller.stdout is not None
    for line in controller.stdout:
        if "trial 2 started" in line:
            break
    controller.send_signal(signal.SIGKILL)
    controller.communicate(timeout=SECONDS)
    assert any(trial.state == TrialState.RUNNING for trial in place.trials("parabola"))
    said = place.run(*words)
    assert "8 trials: 8 finished" in said
    trials = place.trials("parabola")
    assert [(trial.number, trial.state) for trial in trials] == [(number, TrialState.COMPLETE) for number in range(8)]
    assert all(trial.value == (trial.params["x"] - 2) ** 2 + trial.params["y"] for trial in trials)
    assert "is finished" in place.run(*words)
    assert len(place.trials("parabola")) == 8


@pytest.mark.trains
def test_trials_are_pruned(place: Place) -> None:
    place.run("my_loop.py", "-m")
    states = [trial.state for trial in place.trials("loop")]
    assert len(states) == 12
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.trains
def test_the_dashboard_is_optional_and_shows_the_study(place: Place) -> None:
    place.run("my_app.py", "-m", "hydra.sweeper.study_name=seen", "hydra.sweeper.n_trials=1")
    words = ("-m", "steady.watch.dashboard", "seen", "--port", "0")
    assert "optuna-dashboard is not installed: pip install optuna-dashboard." in place.run(*words, code=1)
    for distribution in closure(place.requires("dashboard")).values():
        link(distribution, place.site)
    server = place.start(*words)
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address[0], timeout=SECONDS) as page:
            assert "Optuna Dashboard" in page.read().decode()
        with opener.open(re.sub("/dashboard.*", "/api/studies", address[0]), timeout=SECONDS) as listed:
            assert "seen" in listed.read().decode()
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
            raise
