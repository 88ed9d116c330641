"""Servers for the tests of studies that several machines share; `make test-engines` installs and starts them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engines.postgres import Postgres
from tests.engines.slurm import Slurm
from tests.engines.sshd import Hosts


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engines", action="store_true", help="the servers are installed, and may be started")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--engines", default=False):
        items.sort(key=lambda item: item.get_closest_marker("trains") is None)  # long ones first
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs real servers: make test-engines installs and starts them"))


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path, for sockets, that the server's account may enter."""
    folder = Path(tempfile.mkdtemp(prefix=""))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(short_folder: Path) -> Iterator[Postgres]:
    server = Postgres(short_folder / "postgres")
    server.create()
    yield server
    server.stop()


@pytest.fixture
def slurm(short_folder: Path) -> Iterator[Slurm]:
    cluster = Slurm(Path(tempfile.mkdtemp(prefix="", dir=short_folder)) / "slurm")
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def hosts(short_folder: Path) -> Iterator[Hosts]:
    both = Hosts(Path(tempfile.mkdtemp(prefix="", dir=short_folder)))
    both.start()
    yield both
    both.stop()
