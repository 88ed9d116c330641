import json
from pathlib import Path
from typing import Any

import pytest

from catsweep.errors import ExportError
from catsweep.export.recorded import FinishedRun, portable


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "outputs" / "cats" / "3"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "model: {}\ntrial: {study: cats, number: 3, storage: 'postgresql://me:pw@h/db'}\n"
    )
    (folder / "metrics.json").write_text(json.dumps({"scores": {"val/fid": 1.0}, "checkpoint": "best"}))
    (folder / "provenance.json").write_text("{}")
    return folder


def test_names_and_origin(run) -> None:
    finished = FinishedRun.read(run)
    assert (finished.name, finished.origin, finished.choice) == ("cats-3", {"study": "cats", "trial": 3}, None)
    (run / "choice.json").write_text(json.dumps({"study": "dogs", "trial": 0, "selected_by": "luck"}))
    finished = FinishedRun.read(run)
    assert finished.name == "dogs-0"
    assert finished.origin == {"study": "dogs", "trial": 0, "selected_by": "luck"}


def test_runs_that_confirm_trials_of_two_studies_have_two_names(run) -> None:
    place = run.parents[1] / "a" / "confirm" / "0"
    place.parent.mkdir(parents=True)
    run.rename(place)
    (place / "config.yaml").write_text("model: {}\ntrial: {study: a.confirm, number: 0}\n")
    assert FinishedRun.read(place).name == "a-confirm-0"


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "provenance.json"])
def test_damaged_records_are_told(run, name) -> None:
    (run / name).write_text("{")
    with pytest.raises(ExportError, match="cannot be read"):
        FinishedRun.read(run)


def test_run_without_scores_is_not_finished(run) -> None:
    (run / "metrics.json").write_text("{}")
    with pytest.raises(ExportError, match="lacks scores"):
        FinishedRun.read(run)


def test_portable_configuration_keeps_no_storage_and_the_usual_caches(run) -> None:
    (run / "config.yaml").write_text(
        "trial: {study: cats, storage: 'postgresql://me:pw@h/db'}\n"
        "data: {root: /big/ready, source: /big/cats}\n"
        "metrics: {cache_root: data/stats, extractor: {cache_root: /big/s}}\n"
    )
    assert FinishedRun.read(run).portable_config == {
        "trial": {"study": "cats", "storage": None},
        "data": {"root": "data/ready", "source": "…/cats"},
        "metrics": {"cache_root": "data/stats", "extractor": {"cache_root": "data/statistics"}},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/work/project/data/ready", "data/ready"),
        ("data.source=/work/project/data/cats", "data.source=data/cats"),
        (f"{Path.home()}/photos of cats", "~/photos of cats"),
        ("/mnt/disk/photos of cats", "…/photos of cats"),
        ("data.source=/mnt/disk/cats", "data.source=…/cats"),
        ("'data.source=/mnt/disk/cats'", "'data.source=…/cats'"),
        ("storage=sqlite:////mnt/disk/study.db", "storage=sqlite:///…/study.db"),
        ("sqlite:///sweeps/cats/study.db", "sqlite:///sweeps/cats/study.db"),
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("data/ready/cats-64", "data/ready/cats-64"),
        ("../shared/photos/cats", "../shared/photos/cats"),
        ("https://host/a/b", "https://host/a/b"),
        ("val/fid", "val/fid"),
        ("a / b", "a / b"),
        (3, 3),
        (None, None),
    ],
)
def test_places_are_taken_out(before, after) -> None:
    assert portable(before, Path("/work/project")) == after
    assert portable({"a": [before]}, Path("/work/project")) == {"a": [after]}


def test_diff_stays_as_it_is() -> None:
    diff = "--- /dev/null/x\n+++ /mnt/disk/x\n"
    assert portable({"git": {"diff": diff}}) == {"git": {"diff": diff}}


NO_NAMES: list[Any] = [
    "/../../../../victim",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "C:x",
    "",
    ".",
    "x\0y",
    "x" * 300,
    "con",
    None,
    True,
    1.5,
    {},
]


@pytest.mark.security
@pytest.mark.parametrize("key", ["study", "trial"])
@pytest.mark.parametrize("name", NO_NAMES)
def test_a_choice_of_a_stranger_names_no_folder_elsewhere(run, key, name) -> None:
    """Its study and trial name the folder of the bundle, in whose place nothing else may be."""
    (run / "choice.json").write_text(json.dumps({"study": "dogs", "trial": 0, key: name}))
    with pytest.raises(ExportError, match=rf'"{key}" in .*choice\.json must be a name'):
        FinishedRun.read(run)


@pytest.mark.security
@pytest.mark.parametrize("choice", [[], "x", 1, {}])
def test_a_choice_that_is_none_is_damage(run, choice) -> None:
    (run / "choice.json").write_text(json.dumps(choice))
    with pytest.raises(ExportError, match=r"cannot be read|must be a name|is torn"):
        FinishedRun.read(run)


@pytest.mark.security
@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "provenance.json", "choice.json"])
def test_records_that_are_links_out_of_the_run_are_refused(run, tmp_path, name) -> None:
    """They would go into a bundle that is published."""
    said = {"study": "dogs", "trial": 0, "scores": {}, "checkpoint": "best"}
    (secret := tmp_path / "secret").write_text(json.dumps(said))
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(secret)
    with pytest.raises(ExportError, match=f"{name} is a link to a file outside"):
        FinishedRun.read(run)


@pytest.mark.security
def test_a_run_in_the_root_of_the_file_system_has_a_name(run, monkeypatch) -> None:
    finished = FinishedRun.read(run)
    monkeypatch.setattr(type(finished.folder), "resolve", lambda self: Path("/run"))
    assert finished.name == "run"


@pytest.mark.security
@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("metrics.json", ["cards"], [1]),
        ("metrics.json", ["cards", "val/fid"], {"seed": [1]}),
        ("metrics.json", ["scores", "val/fid"], "<b>"),
        ("metrics.json", ["scores", "val/fid"], None),
        ("metrics.json", ["scores", "val/fid"], 10**400),
        ("provenance.json", ["git"], "x"),
        ("provenance.json", ["git"], {"commit": 5}),
        ("provenance.json", ["packages"], ["x"]),
        ("provenance.json", ["data_digest"], 7),
        ("choice.json", ["objectives"], "x"),
        ("choice.json", ["objectives"], [1]),
        ("choice.json", ["pareto_set"], [{"trial": 1, "values": {"val/fid": "x"}}]),
        ("choice.json", ["seeds"], "x"),
        ("choice.json", ["params"], [1]),
    ],
)
def test_documents_of_another_shape_are_refused_with_the_place(run, name, path, value) -> None:
    found = json.loads((run / name).read_text()) if (run / name).exists() else {"study": "a", "trial": 1}
    inner = found
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    (run / name).write_text(json.dumps(found))
    with pytest.raises(ExportError, match=r"is not as catsweep writes it: .* must be|lacks scores"):
        FinishedRun.read(run)
