"""With a stand-in for the package, which is large, optional, and needs a network for its models."""

import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from catsweep.errors import ConfigError, DataError
from catsweep.prepare.removers import rembg as module
from catsweep.prepare.removers.rembg import Rembg

PHOTO = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


class FakeRembg(ModuleType):
    """Its masks are the red channel."""

    def __init__(self) -> None:
        super().__init__("rembg")
        self.sessions: list[str] = []
        self.busy = threading.Lock()
        self.local = True

    def new_session(self, model: str) -> Any:
        self.sessions.append(model)
        return SimpleNamespace(model=model, is_local=lambda: self.local)

    def remove(self, photo: np.ndarray, session: Any, only_mask: bool) -> np.ndarray:
        assert only_mask
        assert session.model == "u2net"
        assert self.busy.acquire(blocking=False), "two photos at a time"
        try:
            time.sleep(0.005)  # long enough for another thread to come in
            return photo[..., 0].copy()
        finally:
            self.busy.release()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRembg:
    package = FakeRembg()
    monkeypatch.setitem(sys.modules, "rembg", package)
    return package


def test_the_model_has_to_be_named() -> None:
    for name in (None, ""):
        with pytest.raises(ConfigError, match=r"remover\.model=isnet-general-use.*not free for commercial use"):
            Rembg(name)


def test_its_mask_is_ours_and_its_network_is_loaded_once_for_all_threads(fake: FakeRembg) -> None:
    remove = Rembg("u2net")
    assert not fake.sessions  # not before the first photo
    masks: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: masks.append(remove(PHOTO, None))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake.sessions == ["u2net"]
    assert len(masks) == 8
    for mask in masks:
        np.testing.assert_array_equal(mask, PHOTO[..., 0])


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)  # as if it were not there, wherever the tests run

    def absent(name: str) -> str:
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    with pytest.raises(ConfigError, match=r"pip install 'catsweep\[rembg\]'"):
        Rembg("u2net").parameters()
    with pytest.raises(ConfigError, match=r"pip install 'catsweep\[rembg\]'"):
        Rembg("u2net")(PHOTO, None)


def test_the_key_follows_model_and_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", {"rembg": "2.0.86"}.__getitem__)
    first = Rembg("u2net").parameters()
    assert Rembg("u2net").parameters() == first
    assert Rembg("u2netp").parameters() != first
    monkeypatch.setattr(module, "version", {"rembg": "2.0.87"}.__getitem__)
    assert Rembg("u2net").parameters() != first


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            ValueError("No session class found for model 'u3net'"),
            ConfigError,
            "a model of rembg, but: No session",
        ),
        (
            ConnectionError("name resolution failed"),
            DataError,
            "the first time, but: name resolution",
        ),
    ],
)
def test_no_such_model_and_no_network(
    fake: FakeRembg, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, said: str
) -> None:
    def fail(model: str) -> None:
        raise error

    monkeypatch.setattr(fake, "new_session", fail)
    with pytest.raises(kind, match=said):
        Rembg("u2net")(PHOTO, None)


def test_photos_are_sent_to_no_service(fake: FakeRembg) -> None:
    fake.local = False
    with pytest.raises(ConfigError, match="u2net would send every photo to a service"):
        Rembg("u2net")(PHOTO, None)
