"""Pushing a bundle: the clients are faked at their boundary; what W&B records offline is read back by its reader."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import wandb
from omegaconf import DictConfig, OmegaConf

from catsweep import publish
from catsweep.errors import ConfigError, ExportError
from catsweep.tracking import loggers

METRICS = {"scores": {"val/fid": 41.5}, "intervals": {"val/fid": {"low": 40, "high": 43}}, "cards": {"val/fid": {}}}
PROVENANCE = {"export": {"study": "cats", "trial": 3}, "data_digest": "d1", "git": {"commit": "abc"}}


@pytest.fixture(autouse=True)
def signed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A user without any key, in a folder of the test's."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "exports" / "cats-3"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    (folder / "generator.onnx").write_bytes(b"network")
    return folder


def config(**keys: Any) -> DictConfig:
    return OmegaConf.create({"push": None, "hub_repo": None, "private": True, "wandb_registry": None} | keys)


class Hub:
    """`huggingface_hub.HfApi`, which remembers what it was asked for, and may be out of reach."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []
        self.failure = failure
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)

    def create_repo(self, repo_id: str, **keys: Any) -> str:
        self.asked.append(("create_repo", repo_id, keys))
        return f"hub:{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, **keys: Any) -> None:
        if self.failure:
            raise self.failure
        self.asked.append(("upload_folder", (repo_id, sorted(path.name for path in folder_path.iterdir())), keys))


def test_nothing_is_pushed_unless_asked_for(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish.check(config())
    publish.push(bundle, config())
    assert capsys.readouterr().out == ""


def test_a_study_is_refused_with_the_command_that_takes_one() -> None:
    with pytest.raises(ConfigError, match=r"no study; got study=tiny.*make best-model export STUDY=tiny"):
        publish.check(config(study="tiny"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"push": "hub"}, "hub_repo=USER/NAME .*got None"),
        ({"push": "hub", "hub_repo": "cats"}, "hub_repo=USER/NAME .*got 'cats'"),
        ({"push": "hub", "hub_repo": "me/two words"}, "hub_repo=USER/NAME"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_export(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        publish.check(config(**keys))


def test_the_package_of_the_hub_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"huggingface_hub: pip install 'catsweep\[hub\]'"):
        publish.check(config(push="hub", hub_repo="me/cats"))


def test_a_bundle_goes_to_the_hub_whole_and_private(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, cfg = Hub(monkeypatch), config(push="hub", hub_repo="me/cats")
    publish.check(cfg)
    publish.push(bundle, cfg)
    (first, repo, created), (second, uploaded, keys) = hub.asked
    assert (first, repo, created) == (
        "create_repo",
        "me/cats",
        {"private": True, "repo_type": "model", "exist_ok": True},
    )
    assert (second, uploaded[0]) == ("upload_folder", "me/cats")
    assert uploaded[1] == ["generator.onnx", "metrics.json", "provenance.json"]
    assert {"reconstructor.onnx", "judge.json", "nearest_neighbours.png"} <= set(keys.pop("delete_patterns"))
    assert keys == {"repo_type": "model", "commit_message": "catsweep: cats-3"}
    assert capsys.readouterr().out == f"Pushed {bundle} to hub:me/cats\n"
    publish.push(bundle, config(push="hub", hub_repo="me/cats", private=False))
    assert hub.asked[2][2]["private"] is False


@pytest.mark.parametrize(
    ("function", "value", "missing"),
    [("get_token", None, "hf auth login"), ("is_offline_mode", True, "HF_HUB_OFFLINE is set; unset it")],
)
def test_what_the_hub_lacks_is_said_before_and_after_the_export(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
    value: Any,
    missing: str,
) -> None:
    hub, cfg = Hub(monkeypatch), config(push="hub", hub_repo="me/cats")
    monkeypatch.setattr(huggingface_hub, function, lambda: value)
    publish.check(cfg)
    said = capsys.readouterr().out
    assert missing in said
    assert "The bundle is written all the same" in said
    with pytest.raises(ExportError, match=f"not pushed to me/cats: .*{missing}.* hf upload me/cats {bundle}"):
        publish.push(bundle, cfg)
    assert hub.asked == []


def test_a_hub_out_of_reach_leaves_the_bundle_and_says_how_to_go_on(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, failure=ConnectionError("no route to host\nand more"))
    with pytest.raises(ExportError, match=rf"no route to host\. A network, .*hf upload me/cats {bundle}$"):
        publish.push(bundle, config(push="hub", hub_repo="me/cats"))
    assert len(list(bundle.iterdir())) == 3


class Run:
    """An online run of W&B."""

    offline, url, failure = False, "wandb:run", None

    def __init__(self) -> None:
        self.summary: dict[str, float] = {}
        self.artifacts: list[wandb.Artifact] = []
        self.linked: list[str] = []

    def log_artifact(self, artifact: wandb.Artifact) -> None:
        if self.failure:
            raise self.failure
        self.artifacts.append(artifact)

    def link_artifact(self, artifact: wandb.Artifact, target_path: str) -> None:
        assert artifact is self.artifacts[-1]
        self.linked.append(target_path)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> tuple[Run, dict[str, Any], list[str]]:
    """The run, what it was started with, and how it ended."""
    run, settings, ends = Run(), dict[str, Any](), list[str]()

    def logger(run_dir: Path, **keys: Any) -> SimpleNamespace:
        settings.update(keys, run_dir=run_dir)
        return SimpleNamespace(experiment=run)

    monkeypatch.setattr(publish, "resolve_mode", lambda mode: "online")
    monkeypatch.setattr(loggers, "wandb_logger", logger)
    monkeypatch.setattr(loggers, "finish", lambda started, outcome: ends.append(outcome))
    monkeypatch.setattr(wandb.Artifact, "wait", lambda self: self)
    return run, settings, ends


def test_a_bundle_becomes_an_artifact_with_its_scores(
    bundle: Path, online: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, settings, ends = online
    cfg = config(push="wandb", wandb_registry="model/Cats", wandb_entity="me")
    publish.check(cfg)
    publish.push(bundle, cfg)
    [artifact] = run.artifacts
    assert (artifact.name, artifact.type) == ("cats-3", "model")
    assert sorted(artifact.manifest.entries) == ["generator.onnx", "metrics.json", "provenance.json"]
    assert artifact.metadata["scores"] == {"val/fid": 41.5}
    assert (artifact.metadata["study"], artifact.metadata["trial"], artifact.metadata["commit"]) == ("cats", 3, "abc")
    assert run.linked == ["wandb-registry-model/Cats"]
    assert run.summary == {"val/fid": 41.5}
    wanted = {"project": "catsweep", "entity": "me", "group": "cats", "job_type": "export", "name": "export cats-3"}
    assert wanted.items() <= settings.items()
    assert ends == ["complete"]
    assert capsys.readouterr().out == f"Pushed {bundle} to wandb:run\n"


def test_without_a_registry_nothing_is_linked(bundle: Path, online: Any) -> None:
    publish.push(bundle, config(push="wandb"))
    assert online[0].linked == []


def test_a_failed_upload_ends_the_run_and_leaves_the_bundle(bundle: Path, online: Any) -> None:
    run, _, ends = online
    run.failure = wandb.errors.CommError("the server is away")
    with pytest.raises(ExportError, match=r"the server is away\. The bundle is whole.*wandb login.*make wandb-sync"):
        publish.push(bundle, config(push="wandb"))
    assert ends == ["failed"]


@pytest.mark.parametrize(
    ("registry", "path"),
    [
        ("model", "wandb-registry-model/cats-3"),
        ("model/Cats", "wandb-registry-model/Cats"),
        ("wandb-registry-model/Cats", "wandb-registry-model/Cats"),
    ],
)
def test_paths_of_registries(registry: str, path: str) -> None:
    assert publish.registry_path(registry, "cats-3") == path


def test_names_keep_to_the_characters_of_wandb() -> None:
    name = publish.artifact_name("my cats/ü-3" + "x" * 200)
    assert name == "my-cats--3" + "x" * 118
    wandb.Artifact(name, type="model")


def test_switched_off_wandb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"switched off\. Unset WANDB_MODE"):
        publish.check(config(push="wandb"))


def test_offline_an_artifact_is_recorded_for_later(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = config(push="wandb", wandb_registry="model")
    publish.check(cfg)
    assert "there is no key of W&B; run `wandb login`" in capsys.readouterr().out
    publish.push(bundle, cfg)
    said = capsys.readouterr().out
    assert said.startswith(f"Recorded {bundle} as a W&B artifact, offline: there is no key of W&B")
    assert "make wandb-sync" in said
    assert "registry model takes a connection" in said

    [folder] = Path("outputs/wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    records = {record["type"]: record[record["type"]] for record in map(json.loads, done.stdout.splitlines())}
    run, artifact = records["run"], records["artifact"]
    assert (run["job_type"], run["run_group"], run["display_name"]) == ("export", "cats", "export cats-3")
    assert (artifact["type"], artifact["name"], artifact["finalize"]) == ("model", "cats-3", True)
    assert json.loads(artifact["metadata"]) == publish.metadata(bundle)
    kept = {entry["path"]: Path(entry["local_path"]).read_bytes() for entry in artifact["manifest"]["contents"]}
    assert kept == {path.name: path.read_bytes() for path in bundle.iterdir()}  # copies, for a later export replaces it
    assert records["exit"]["exit_code"] == 0
