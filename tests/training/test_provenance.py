import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from omegaconf import MissingMandatoryValue, OmegaConf

from catsweep.training.provenance import collect, git_state, write


def git(folder, *arguments):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("one = 1\n")
    (folder / ".gitignore").write_text("outputs/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout_is_its_commit(checkout):
    (checkout / "outputs").mkdir()
    (checkout / "outputs" / "result").write_text("ignored, so not a change")
    assert git_state(checkout) == {
        "commit": git(checkout, "rev-parse", "HEAD"),
        "dirty": False,
        "changed": [],
        "diff_sha256": None,
        "diff": None,
        "reason": None,
    }


def test_a_dirty_checkout_names_what_changed_and_tells_one_change_from_another(checkout):
    digests = set()
    for text in ("one = 2\n", "one = 3\n", "one = 3\n"):
        (checkout / "code.py").write_text(text)
        state = git_state(checkout)
        assert (state["dirty"], state["changed"]) == (True, ["code.py"])
        digests.add(state["diff_sha256"])
        assert f"-one = 1\n+{text}" in state["diff"]
    assert len(digests) == 2
    (checkout / "new.py").write_text("two = 2\n")
    assert git_state(checkout)["changed"] == ["code.py", "new.py"]


def test_a_git_hook_of_another_repository_does_not_mislead(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git_state(checkout)["reason"] is None


def test_outside_a_checkout_without_a_commit_and_without_git_there_is_a_reason(tmp_path, monkeypatch):
    nothing = dict.fromkeys(("commit", "dirty", "changed", "diff_sha256", "diff"))
    state = git_state(tmp_path)
    assert "not a git repository" in state.pop("reason")
    assert state == nothing
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path)["reason"]
    monkeypatch.setenv("PATH", str(tmp_path))
    state = git_state(tmp_path)
    assert "git" in state.pop("reason")
    assert state == nothing


def test_collects_what_a_result_depends_on(checkout):
    facts = collect(7, checkout, "digest")
    assert (facts["seed"], facts["data_digest"]) == (7, "digest")
    assert facts["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert facts["machine"]["cores"] >= 1
    assert datetime.fromisoformat(facts["started"]).tzinfo is not None
    assert json.loads(json.dumps(facts)) == facts


def test_no_machine_path_and_no_secret_gets_in(checkout, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "environment-secret")
    home = Path.home()
    words = [
        f"{checkout}/src/train.py", f"data.source={home}/cats", "logger.api_key=command-secret", "data.monkeys=3",
        "hydra.sweeper.storage=postgresql://me:url-secret@host/db", "epochs=5",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    facts = collect(0, checkout)
    source = "data.source=~/cats" if len(str(home)) > 1 else f"data.source={home}/cats"
    assert facts["command"] == [
        "src/train.py", source, "logger.api_key=***", "data.monkeys=***",
        "hydra.sweeper.storage=postgresql://***@host/db", "epochs=5",
    ]  # fmt: skip
    assert "secret" not in json.dumps(facts)
    assert str(checkout) not in json.dumps(facts)


def test_the_configuration_is_written_resolved_plain_and_relative(checkout):
    run = checkout / "outputs" / "run"
    cfg = OmegaConf.create(
        {"seed": 3, "again": "${seed}", "paths": [f"{checkout}/data", "/elsewhere"], "deep": {"x": None}}
    )
    write(run, cfg, {"seed": 3}, checkout)
    assert "${" not in (run / "config.yaml").read_text()
    assert OmegaConf.load(run / "config.yaml") == {
        "seed": 3, "again": 3, "paths": ["data", "/elsewhere"], "deep": {"x": None},
    }  # fmt: skip
    assert json.loads((run / "provenance.json").read_text()) == {"seed": 3}
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "provenance.json"]


def test_a_resumed_run_remembers_its_earlier_sessions(tmp_path):
    for session in (1, 2, 3):
        write(tmp_path, OmegaConf.create({}), {"session": session}, tmp_path)
    assert json.loads((tmp_path / "provenance.json").read_text()) == {
        "session": 3,
        "earlier": [{"session": 1}, {"session": 2, "record": None}],
        "record": None,
    }


def test_the_record_of_a_run_stays_that_of_its_first_session(tmp_path):
    for session in "abc":
        write(tmp_path, OmegaConf.create({}), {"record": session}, tmp_path)
    assert json.loads((tmp_path / "provenance.json").read_text())["record"] == "a"
    assert collect(0, tmp_path)["record"] != collect(0, tmp_path)["record"]


def test_an_incomplete_configuration_is_not_written(tmp_path):
    with pytest.raises(MissingMandatoryValue):
        write(tmp_path, OmegaConf.create({"data": "???"}), {}, tmp_path)
    assert not list(tmp_path.iterdir())
