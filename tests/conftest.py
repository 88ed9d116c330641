"""Fixtures shared by all tests. One thread: the suite runs on two shared cores."""

from tests import environment  # isort: skip  # noqa: F401  # they are read when others are imported

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings
from omegaconf import DictConfig
from playwright.sync_api import Browser, expect, sync_playwright
from tests import memory
from tests.fake_sweeps import Sweep

from steady import reporting

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
# No time limit: on a busy machine it would tell of the neighbours.
settings.register_profile("catsweep", deadline=None)
settings.load_profile("catsweep")
expect.set_options(timeout=120_000)  # likewise


def pytest_collection_finish() -> None:
    memory.begin()


@pytest.fixture(autouse=True)
def one_trial_a_process() -> Iterator[None]:
    """Leave nothing of a trial to the next test, as none is left to the next trial, which has a process of its own."""
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before
    reporting._unwritten.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Keep the memory of this process within its limit, or have the test fail that has broken it."""
    before = memory.peak()
    yield
    memory.settle()
    if before <= memory.LIMIT < memory.peak():
        pytest.fail(f"This process of the suite took {memory.peak() / 2**30:.1f} GiB of the 2 GiB it may.")


@pytest.fixture
def sweep(tmp_path: Path, empty_database: Path) -> Sweep:
    """An empty project."""
    return Sweep(tmp_path, empty_database)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def photos() -> Path:
    """The real photos (../shared/photos); the test is skipped where they are absent."""
    folder = ROOT.parent / "shared" / "photos"
    if not folder.is_dir():
        pytest.skip("the real photos (../shared/photos) are not here")
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's tables without a study: making them takes ten times as long as all the rest of a test."""
    path = tmp_path_factory.mktemp("optuna") / "empty.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")  # not the session: while it is open, nothing else in its process may run asyncio
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window; the test is skipped where it is absent, except in CI."""
    program = shutil.which("chromium")
    if program is None:
        assert "CI" not in os.environ, "Chromium is to be there in CI (.ci/run installs it)."
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    quiet = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync",
             "host-resolver-rules=MAP *.test 127.0.0.1"]  # fmt: skip  # names of strangers, see `tests.foreign`
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[f"--{word}" for word in quiet])
        yield started
        started.close()


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of the suite."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def graphs(suite: Path) -> Path:
    """Where the extractor's exported graph is kept, for all processes of the suite: an export takes ten seconds.

    And the features of real images, which are found by what they are of.
    """
    return suite / "graphs"


@pytest.fixture(scope="session")
def sessions() -> dict[tuple[object, ...], Any]:
    """The sessions of ONNX Runtime that `quick_scorers` have opened."""
    return {}


@pytest.fixture
def quick_scorers(sessions: dict[tuple[object, ...], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scorers open one session between them, and check themselves on two images: for tests that build many.

    Both are tested in `tests/metrics`.
    """
    from catsweep.metrics import scorer  # here, for most tests do without what it imports
    from catsweep.metrics.extractors import Extractor

    open_session = Extractor._open_session

    def shared(extractor: Extractor) -> Any:
        threads = extractor.threads or torch.get_num_threads()
        key = (extractor.weights_sha256, extractor.size, threads, extractor.cache_root)
        if key not in sessions:
            sessions[key] = open_session(extractor)
        return sessions[key]

    monkeypatch.setattr(Extractor, "_open_session", shared)
    monkeypatch.setattr(scorer, "SELF_CHECK_IMAGES", 2)


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Callable[..., DictConfig]:
    """Compose conf/train.yaml for a run of seconds: 96 demo cats of 32 pixels, tiny nets; caches are the session's."""
    cache = tmp_path_factory.mktemp("cache")
    tiny = [
        "data.reader.n=96", "data.size=32", f"data.root={cache / 'ready'}", "data.batch_size=16",
        "depth=shallow", "width.channels=4", "model.latent_size=8",
        f"metrics.cache_root={graphs}",
        "metrics.samples=16", "metrics.rung_samples=8", "metrics/judge=none",
        "epochs=2", "eval_every=1", "logger=none", "trainer.threads=1", "trainer.precision=32-true",
    ]  # fmt: skip

    @lru_cache(maxsize=64)
    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf")):
            return hydra.compose("train", overrides=[*tiny, *overrides])

    return lambda *overrides: copy.deepcopy(composed(*overrides))
