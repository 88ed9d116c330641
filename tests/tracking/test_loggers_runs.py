"""Online or offline, which id, and who decides on them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from catsweep.errors import ConfigError
from catsweep.tracking.loggers import RunLogger, build, finish, resolve_mode, run_id

KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters, as a key has; belongs to nobody
Node = Callable[[str], DictConfig]


@pytest.mark.usefixtures("signed_out")
def test_auto_is_online_when_wandb_has_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert resolve_mode("auto") == "offline"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert resolve_mode("auto") == "online"
    assert resolve_mode("offline") == "offline"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(("value", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_auto_follows_the_users_own_setting(monkeypatch: pytest.MonkeyPatch, value: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", value)
    assert resolve_mode("auto") == mode


@pytest.mark.usefixtures("signed_out")
def test_a_malformed_key_and_an_unknown_mode_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(ConfigError, match=r"logger\.mode=offline"):
        resolve_mode("auto")
    with pytest.raises(ConfigError, match="got 'sometimes'"):
        resolve_mode("sometimes")  # type: ignore[arg-type]


class FakeRun:
    """A run of the server's, resumed at some step."""

    def __init__(self, starting_step: int = 0) -> None:
        self.starting_step = starting_step
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, data: dict[str, float], step: int, commit: bool | None = None) -> None:
        self.rows.append((step, data))


@pytest.fixture
def online(logger_node: Node, tmp_path: Path, signed_in: None) -> Callable[[FakeRun], RunLogger]:
    def made(run: FakeRun) -> RunLogger:
        [logger] = build(logger_node("wandb"), tmp_path, "cats", 3)
        assert isinstance(logger, RunLogger)
        assert logger._wandb_init["mode"] == "online"
        logger._experiment = run
        return logger

    return made


def test_a_run_resumed_online_goes_on_where_the_servers_record_ends(online: Callable[[FakeRun], RunLogger]) -> None:
    run = FakeRun(starting_step=21)
    logger = online(run)
    for step in (15, 20, 25):  # trained again since the checkpoint, with the same values, and then new
        logger.log_metrics({"loss": 1.0}, step=step)
    assert run.rows == [(25, {"loss": 1.0, "trainer/global_step": 25})]

    scored = FakeRun(starting_step=31)  # it was killed behind its last step
    online(scored).close_step({"objective": 4.0})
    assert [step for step, _ in scored.rows] == [31]


def test_what_comes_late_is_kept_in_the_latest_row(online: Callable[[FakeRun], RunLogger]) -> None:
    run = FakeRun()
    logger = online(run)
    logger.log_metrics({"val/kid": 1.0}, step=12)
    logger.log_metrics({"train/loss": 2.0}, step=11)  # wandb would drop it
    logger.log_metrics({"extra": 3.0})
    logger.close_step({"objective": 4.0})
    assert [step for step, _ in run.rows] == [12] * 4
    assert [row["trainer/global_step"] for _, row in run.rows] == [12, 11, 12, 12]


@pytest.mark.usefixtures("signed_in")
def test_a_server_that_cannot_be_reached_makes_an_auto_run_offline(
    logger_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, modes = wandb.init, []

    def unreachable(**arguments: str) -> object:
        modes.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no route")
        return start(**{**arguments, "mode": "disabled"})

    monkeypatch.setattr(wandb, "init", unreachable)
    node = logger_node("wandb")
    loggers = build(node, tmp_path / "outputs" / "run")
    loggers[0].log_metrics({"val/fid": 1.0}, step=1)
    finish(loggers)
    assert modes == ["online", "offline"]
    assert "recorded offline: no route" in caplog.text

    node.mode = "online"
    with pytest.raises(wandb.errors.CommError):
        build(node, tmp_path / "outputs" / "run")[0].log_metrics({"val/fid": 1.0}, step=1)


@pytest.mark.usefixtures("signed_in")
def test_under_an_agent_its_names_stand(logger_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = tmp_path / "config.yaml"
    chosen.write_text("wandb_version: 1\nloss:\n  value: mse\noptimizer.lr:\n  value: 0.001\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc123")
    monkeypatch.setenv("WANDB_RUN_ID", "run456")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(chosen))
    node = OmegaConf.merge(logger_node("wandb"), {"entity": "me", "tags": ["mine"]})
    [logger] = build(node, tmp_path / "outputs" / "runs" / "now")
    assert isinstance(logger, RunLogger)
    init = logger._wandb_init
    assert not {"id", "project", "entity"} & init.keys()  # wandb would warn that it ignores them
    assert (init["name"], init["group"], init["job_type"], init["tags"]) == (None, None, "trial", ["mine"])

    run = FakeRun()
    run.config = wandb.Config()  # type: ignore[attr-defined]
    logger._experiment = run
    logger.log_hyperparams({"loss": {"_target_": "a.b"}, "optimizer": {"lr": 0.001}})
    assert dict(run.config) == {"optimizer": {"lr": 0.001}}  # type: ignore[attr-defined]


@given(st.text(min_size=1, max_size=90))
@settings(max_examples=40)
def test_an_id_is_plain_and_short(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9](-?[a-z0-9]+)*", run_id(name))
    assert len(run_id(name)) <= 64


@given(st.text("aA-_/1", max_size=5), st.text("aA-_/1", max_size=5))
@settings(max_examples=40)
def test_different_names_have_different_ids(one: str, other: str) -> None:
    assert (run_id(one) == run_id(other)) == (one == other)
