"""The workspace and the report as code: offline as a file, online with a stand-in for W&B's server."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
import wandb
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from catsweep import study_record
from catsweep.errors import ConfigError
from catsweep.tracking import workspace
from steady.storage import open_storage
from steady.study.trial_folders import mark

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb_workspaces.reports.v2.interface as reports
    import wandb_workspaces.reports.v2.internal as report_models
    import wandb_workspaces.workspaces.interface as spaces
    import wandb_workspaces.workspaces.internal as space_models

SPACE = {
    "loss": CategoricalDistribution(["mse", "l1"]),
    "model.aggregate_prior": CategoricalDistribution([True, False]),
    "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
}
PANELS = ["Scatter Plot", "Parallel Coordinates Plot", "Parameter Importance", "Media Browser", "Run History Line Plot"]


NAME = "it's = <cats>"


def study(storage: Any = None) -> optuna.Study:
    """With one finished trial."""
    made = optuna.create_study(study_name=NAME, storage=storage, directions=["minimize", "maximize"])
    made.set_user_attr("objective", ["val/fid", "val/ssim"])
    params = {"loss": "mse", "model.aggregate_prior": True, "optimizer.lr": 1e-3}
    made.add_trial(create_trial(values=[7.0, 0.5], params=params, distributions=SPACE))
    return made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the finished study."""
    folder = tmp_path / "sweeps" / NAME
    folder.mkdir(parents=True)
    study(open_storage(f"sqlite:///{folder / 'study.db'}"))
    run = tmp_path / "outputs" / NAME / "0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({"scores": {"val/fid": 7.0, "val/ssim": 0.5}}))
    (run / "config.yaml").write_text("logger: {project: kittens, entity: null}\n")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.usefixtures("signed_out")
def test_without_a_key_the_specification_is_written_and_the_next_steps_are_said(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "Api", None)  # nothing is to be asked
    workspace.main([])
    said = capsys.readouterr().out
    assert "wandb login" in said
    assert "make wandb-sync" in said
    written = json.loads((place / "wandb_workspace.json").read_text())
    # Read back by wandb-workspaces' own models, and through its own interface: nothing gets lost or renamed.
    view = space_models.View.model_validate(written["workspace"])
    assert (view.project, view.display_name) == ("kittens", "catsweep it's _ _cats_")
    assert spec(view) == written["workspace"]
    again = spaces.Workspace._from_model(view)._to_model()
    assert kept(spec(again.spec)) == kept(written["workspace"]["spec"])
    text = report_models.ReportViewspec.model_validate(written["report"])
    assert kept(spec(text)) == kept(written["report"])
    again = reports.Report._from_model(text)._to_model()
    assert kept(spec(again.spec)) == kept(written["report"]["spec"])


def kept(node: Any) -> Any:
    """Without what wandb-workspaces 0.4 itself forgets when it loads: sizes of tables, the width, empty comments."""
    if isinstance(node, dict):
        return {k: kept(v) for k, v in node.items() if k not in ("layout", "width", "inlineComments")}
    return [kept(one) for one in node] if isinstance(node, list) else node


def spec(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_the_workspace_shows_what_the_runs_hold(tmp_path: Path) -> None:
    made = workspace.workspace(study_record.read(study(), tmp_path), "me", "cats")
    section = made._to_model().spec.section
    [runset] = spec(section)["runSets"]
    [group] = runset["filters"]["filters"]
    assert (group["key"], group["op"], group["value"]) == ({"section": "run", "name": "group"}, "=", "it's = <cats>")
    kinds = {panel.view_type for one in section.panel_bank_config.sections for panel in one.panels}
    assert kinds >= {*PANELS, "Vega2", "Weave", "Run Comparer"}
    by_type = {type(panel).__name__: panel for section in made.sections for panel in section.panels}
    scatter = by_type["ScatterPlot"]
    assert (scatter.x.name, scatter.y.name) == ("val/fid", "val/ssim")
    columns = by_type["ParallelCoordinatesPlot"].columns
    assert [(column.metric.name, column.log, column.inverted) for column in columns] == [
        ("choices.loss", None, None), ("model.aggregate_prior", None, None), ("optimizer.lr", True, None),
        ("val/fid", None, True), ("val/ssim", None, False),
    ]  # fmt: skip
    shown = [panel for one in made.sections for panel in one.panels if isinstance(panel, reports.MediaBrowser)]
    media = [key for panel in shown for key in panel.media_keys]
    assert media == ["sweep/timeline", "samples", "reconstructions"]


def test_runs_that_were_given_a_group_are_found_by_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "outputs" / NAME / "0" / "config.yaml").write_text("logger: {group: night}\n")
    found = study_record.read(study(), tmp_path / "outputs" / NAME)
    assert workspace.runs_of(found) == 'Metric("Group") == "night"'


def test_one_objective_needs_no_pareto_panel(tmp_path: Path) -> None:
    one = optuna.create_study(study_name="one")
    one.add_trial(create_trial(values=[1.0], params={"loss": "l1"}, distributions={"loss": SPACE["loss"]}))
    made = workspace.workspace(study_record.read(one, tmp_path), "me", "cats")
    kinds = {type(panel).__name__ for section in made.sections for panel in section.panels}
    assert "ScatterPlot" not in kinds
    assert "BarPlot" in kinds


class Server:
    """W&B's server, as far as it is asked: keeps what is saved under the id that it gives."""

    def __init__(self) -> None:
        self.saved: dict[str, dict[str, Any]] = {}

    def __call__(self, api: Any, query: Any, variables: dict[str, Any]) -> dict[str, Any]:
        if "spec" not in variables:
            return {"project": {"internalId": "p1"}}
        identity = variables.get("id") or f"v{len(self.saved)}"
        self.saved[identity] = variables
        found = {
            "id": identity, "name": variables["name"], "displayName": variables["displayName"],
            "description": variables["description"], "spec": variables["spec"],
            "project": {"name": variables["projectName"], "entityName": variables["entityName"], "id": "p1"},
            "createdAt": "2026-01-01T00:00:00", "updatedAt": "2026-01-01T00:00:00", "user": None,
        }  # fmt: skip
        return {"upsertView": {"view": found, "inserted": True}}


class Api:
    """`wandb.Api`, of a user called `me`."""

    default_entity = "me"

    def projects(self, entity: str) -> list[Any]:
        return [type("Project", (), {"name": "kittens"})]

    @property
    def client(self) -> Any:
        return type("Client", (), {"app_url": "https://example.org"})


@pytest.fixture
def server(signed_in: None, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(wandb, "Api", Api)
    for module in (space_models, report_models, reports, spaces):
        for name, stand_in in (
            ("execute_graphql", made), ("_get_api", Api), ("get_app_url", lambda api: "https://example.org")
        ):  # fmt: skip
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stand_in)
    return made


def test_with_a_key_both_are_saved_and_a_second_call_brings_them_up_to_date(
    place: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.main(["it's = <cats>"])
    said = capsys.readouterr().out
    assert len(server.saved) == 2
    kinds = {variables["type"]: variables for variables in server.saved.values()}
    assert kinds.keys() == {"project-view", "runs"}
    for variables in kinds.values():
        assert (variables["entityName"], variables["projectName"]) == ("me", "kittens")
        assert NAME in values(json.loads(variables["spec"]))  # the filter by group
    assert space_models.WorkspaceViewspec.model_validate_json(kinds["project-view"]["spec"])
    assert "https://example.org/me/kittens" in said

    workspace.main(["it's = <cats>", "--entity", "me"])
    assert len(server.saved) == 2  # not two more


def values(node: Any) -> set[str]:
    """All texts in plain values."""
    if isinstance(node, dict | list):
        return set().union(*map(values, node.values() if isinstance(node, dict) else node))
    return {node} if isinstance(node, str) else set()


def test_a_refusal_says_what_has_to_be_there_first(
    place: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise ValueError("project not found")

    monkeypatch.setattr(space_models, "execute_graphql", refuse)
    with pytest.raises(SystemExit, match=r"project not found.*make wandb-sync"):
        workspace.main([])


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ConfigError, match=r"pip install 'catsweep\[workspace\]'"):
        workspace.libraries()


def test_without_a_study_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="Run a sweep first"):
        workspace.main([])


@pytest.mark.security
def test_runs_elsewhere_are_read_only_where_a_sweep_has_left_its_note(place: Path) -> None:
    """Else what is there would be shown to whoever may see the workspace."""
    made = optuna.load_study(study_name=NAME, storage=open_storage(f"sqlite:///{place / 'study.db'}"))
    (elsewhere := place.parents[1] / "elsewhere").mkdir()
    made.set_user_attr("sweep_dir", str(elsewhere))
    with pytest.raises(SystemExit, match="no sweep of that name has left its note there"):
        workspace.main([NAME])
    mark(elsewhere, NAME)
    workspace.main([NAME])
