"""What needs no Ray: keys that are refused, and a stand-in for it that is away, dies, and is late."""

import json
import os
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from steady.exceptions import ConfigError, StudyError
from steady.jobs import ray_engine
from steady.jobs.engine import EngineAway, State, Status
from steady.jobs.ray_engine import RayEngine, reason
from steady.run.job_factory import ENGINES
from steady.study.failures import Kind

FAKE = """
    import os, time
    from pathlib import Path

    place = Path(os.environ["FAKE_RAY"])

    class exceptions:
        class RayError(Exception): pass
        class ActorUnavailableError(RayError): pass
        class OutOfMemoryError(RayError): pass
        class ActorDiedError(RayError): pass
        class AuthenticationError(RayError): pass

    class util:
        @staticmethod
        def list_named_actors():
            while (place / "away").exists():
                time.sleep(0.01)
            if (place / "dies").exists():
                os._exit(1)

    def init(**given):
        print("Ray prints")
        (place / "init").write_text(repr(given))
        if (place / "wants a token").exists():
            raise exceptions.AuthenticationError
        if given.get("num_cpus") == -1:
            raise ValueError("num_cpus must be positive, see /usr/lib/ray/init.py")

    def nodes():
        return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"GPU": 1.0}}]

    class Method:
        def __init__(self, path): self.path = path
        def remote(self): return self.path

    class Actor:
        def __init__(self, name):
            self.name = name
            self.host, self.wait, self.end = (Method(place / f"{name}.{what}") for what in ("host", "wait", "end"))

    class remote:
        def __init__(self, cls): pass
        def options(self, **given):
            self.given = given
            return self
        def remote(self, command, folder, id):
            (place / f"{id}.options").write_text(repr(self.given))
            return Actor(id)

    def get_actor(name, namespace):
        if not (place / f"{name}.options").exists():
            raise ValueError("no such actor")
        return Actor(name)

    def wait(calls, num_returns=1, timeout=None):
        return [call for call in calls if call.exists()], []

    def get(call):
        value = eval(call.read_text())
        if isinstance(value, Exception):
            call.unlink()
            raise value
        return value

    def kill(actor):
        (place / f"{actor.name}.killed").touch()
"""


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for Ray on the path; files in the folder that is returned say what it does."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "ray.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "path"), *sys.path])
    monkeypatch.setitem(os.environ, "FAKE_RAY", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_engine, "ANSWERING", 1.0)
    return tmp_path


def launcher(init: Any = None, **remote: Any) -> dict[str, Any]:
    return {"_target_": "RayLauncher", "ray": {"init": init or {}, "remote": remote}}


@pytest.fixture
def engine(ray: Path) -> Any:
    engine = RayEngine.from_launcher(launcher(num_cpus=2))
    engine.check()
    yield engine
    engine.close()


def test_the_launcher_is_known_without_its_package() -> None:
    Plugins.instance()
    node = ConfigStore.instance().load("hydra/launcher/ray.yaml").node
    assert node._target_ in ENGINES
    assert OmegaConf.to_container(node.ray) == {"init": {"address": None}, "remote": {}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ray": {"stop": 1}}, r"hydra\.launcher\.ray\.stop is not known"),
        ({"stop_cluster": True}, r"hydra\.launcher\.stop_cluster is not known"),
        (launcher(lifetime="detached"), r"ray\.remote\.lifetime is not known"),
        (launcher(max_calls=1), r"ray\.remote\.max_calls is not known"),
        (launcher(max_restarts=-1), r"ray\.remote\.max_restarts is -1.*hydra\.sweeper\.retries"),
        (launcher(runtime_env={"pip": ["torch"]}), r"ray\.remote\.runtime_env\.pip is not known"),
        (launcher({"runtime_env": {"working_dir": "."}}), r"ray\.init\.runtime_env\.working_dir is not known"),
        (launcher({"address": "ray://head:10001"}), r"ray\.init\.address is 'ray://head:10001'"),
        (launcher({"address": "127.0.0.1:1"}), r"cannot be reached: 127\.0\.0\.1:1: Connection refused"),
        (launcher({"num_cpus": -1}), r"refuses.*ValueError: num_cpus must be positive, see …\.$"),
    ],
)
def test_keys_that_mean_nothing_are_refused(ray: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RayEngine.from_launcher(given).check()


def test_a_missing_ray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(ConfigError, match="pip install 'ray"):
        RayEngine({}, {}).check()


def test_a_missing_token_is_said(ray: Path) -> None:
    (ray / "wants a token").touch()
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE=token.*RAY_AUTH_TOKEN"):
        RayEngine({}, {}).check()


def test_ray_is_quiet_unless_it_is_asked_to_speak(ray: Path) -> None:
    with closing(RayEngine.from_launcher(launcher({"namespace": "mine", "log_to_driver": True}))) as engine:
        engine.check()
    given = eval((ray / "init").read_text())
    assert given == {
        "namespace": "mine", "include_dashboard": False, "log_to_driver": True, "logging_level": "ERROR",
    }  # fmt: skip


def test_actors_are_detached_and_never_restarted(engine: RayEngine, ray: Path) -> None:
    id = engine.start(["true"], ray, "steady")
    assert engine.start(["true"], ray, "steady") == id != engine.start(["true"], ray / "other", "steady")
    options = eval((ray / f"{id}.options").read_text())
    assert options == {
        "num_cpus": 2, "name": id, "namespace": "steady", "lifetime": "detached", "get_if_exists": True,
        "max_restarts": 0, "max_task_retries": 0,
    }  # fmt: skip


ENDS = [
    ("0", Kind.LOST, "Its job ended with exit code 0."),
    ("-9", Kind.LOST, "Its job ended with signal 9."),
    ("exceptions.OutOfMemoryError()", Kind.OUT_OF_MEMORY, "Ray ended its job: the memory of the node was used up."),
    ("exceptions.ActorDiedError('It died.\\n\\tip: 1\\nThe actor is dead because its node has died. Node Id: 3')",
     Kind.LOST, "The actor is dead because its node has died."),
]  # fmt: skip


@pytest.mark.parametrize(("result", "kind", "message"), ENDS)
def test_ends_are_sorted(engine: RayEngine, ray: Path, result: str, kind: Kind, message: str) -> None:
    id = engine.start(["true"], ray, "steady")
    assert engine.statuses({id: ray, "forgotten": ray}) == {id: Status(State.WAITING)}
    (ray / f"{id}.host").write_text("'n1'")
    assert engine.statuses({id: ray}) == {id: Status(State.RUNNING, "n1")}
    (ray / f"{id}.wait").write_text("exceptions.ActorUnavailableError()")  # for a moment
    assert engine.statuses({id: ray}) == {id: Status(State.RUNNING, "n1")}
    (ray / f"{id}.wait").write_text(result)
    assert engine.statuses({id: ray}) == engine.statuses({id: ray}) == {id: Status(State.ENDED, "n1", kind, message)}
    assert (ray / f"{id}.killed").exists()  # else it would linger


def test_another_controller_finds_an_actor_and_cancels_it(engine: RayEngine, ray: Path) -> None:
    id = engine.start(["true"], ray, "steady")
    engine.close()
    (ray / f"{id}.host").write_text("'n1'")
    other = RayEngine({}, {})
    other.check()  # its process has started, which takes longer than an answer may
    assert other.statuses({id: ray}) == {id: Status(State.RUNNING, "n1")}
    other.cancel({id: ray, "forgotten": ray})
    (ray / f"{id}.wait").write_text("-9")
    assert other.statuses({id: ray})[id].cancelled
    other.close()


@pytest.mark.security
def test_an_actor_of_another_folder_is_neither_looked_at_nor_cancelled(engine: RayEngine, ray: Path) -> None:
    """Its id comes from a file, which may be a stranger's."""
    id = engine.start(["true"], ray / "another sweep", "steady")
    assert engine.statuses({id: ray}) == {}
    engine.cancel({id: ray})
    assert not (ray / f"{id}.killed").exists()
    engine.cancel({id: ray / "another sweep"})
    assert (ray / f"{id}.killed").exists()


def test_a_ray_that_is_late_is_away_until_it_answers(engine: RayEngine, ray: Path) -> None:
    id = engine.start(["true"], ray, "steady")
    (ray / "away").touch()
    with pytest.raises(EngineAway, match="does not answer"):
        engine.statuses({id: ray})
    with pytest.raises(EngineAway):
        engine.cancel({id: ray})
    assert not (ray / f"{id}.killed").exists()
    (ray / "away").unlink()
    assert engine.statuses({id: ray}) == {id: Status(State.WAITING)}


def test_a_connection_that_dies_is_made_again(engine: RayEngine, ray: Path) -> None:
    id = engine.start(["true"], ray, "steady")
    (ray / "dies").touch()
    with pytest.raises(EngineAway, match="has ended"):
        engine.statuses({id: ray})
    (ray / "dies").unlink()
    until = time.monotonic() + 60
    while True:
        try:
            assert engine.statuses({id: ray}) == {id: Status(State.WAITING)}
            return
        except EngineAway:
            assert time.monotonic() < until


def test_a_ray_that_is_away_for_too_long_ends_the_sweep(engine: RayEngine, ray: Path) -> None:
    engine.patience = 0.0
    (ray / "away").touch()
    with pytest.raises(EngineAway):
        engine.statuses({})
    with pytest.raises(StudyError, match="the same command goes on"):
        engine.statuses({})
    (ray / "away").unlink()


def test_it_warns_of_what_no_node_has(ray: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(RayEngine({}, {"num_gpus": 1, "resources": {"large": 2}})) as engine:
        engine.check()
    assert "No node of Ray has 1 CPU, 1 GPU, 2 large" in caplog.text


def test_what_ray_says_is_one_line_without_paths() -> None:
    assert reason("") == "no reason is known."
    assert reason("Traceback\n  File '/opt/x/y.py'\nOSError: no /opt/x/y here. More.") == "OSError: no … here."
    assert len(reason(json.dumps(["x" * 5000]))) < 400
