"""Pictures of trials: which are attached, where they are kept, and that they never cost a trial."""

import io
import os
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import download_artifact, get_all_artifact_meta
from optuna.exceptions import UpdateFinishedTrialError
from tests.steady.scripted import Script, scheduler, states

from steady.exceptions import StudyError
from steady.jobs.executor import Job
from steady.run import scheduler as scheduler_module
from steady.run.ledger import Limits
from steady.storage import open_storage
from steady.study.artifacts import Artifacts, Store
from steady.study.failures import Kind, Outcome

PATTERNS = ("samples/*.png", "reconstructions/*.png")


@pytest.fixture(params=["sqlite", "journal"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(f"{request.param}:///{tmp_path}/study"))


def draw(folder: Path, name: str, content: str, age: int = 0) -> None:
    """A file of a trial, `age` seconds old."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (1e9 - age, 1e9 - age))


def attached(study: optuna.Study, number: int, record: Path) -> dict[str, str]:
    """The artifacts of a trial as Optuna's own functions read them: content by name."""
    found = {}
    for meta in get_all_artifact_meta(study.trials[number], storage=study._storage):
        assert meta.mimetype == "image/png"
        copy = record / "copy"
        copy.unlink(missing_ok=True)
        download_artifact(
            artifact_store=Artifacts(study, record, ()).store, artifact_id=meta.artifact_id, file_path=str(copy)
        )
        assert meta.filename not in found
        found[meta.filename] = copy.read_text()
    return found


def test_the_newest_of_each_pattern_is_attached(study: optuna.Study, tmp_path: Path) -> None:
    study.ask()
    run, record = tmp_path / "0", tmp_path / "record"
    draw(run, "samples/epoch_0009.png", "old", age=5)
    draw(run, "samples/epoch_0005.png", "new")  # a resumed run may count anew
    draw(run, "reconstructions/epoch_0005.png", "photos")
    draw(run, "reconstructions/other.txt", "no picture")
    Artifacts(study, record, PATTERNS).attach(0, run)
    assert attached(study, 0, record) == {"samples-epoch_0005.png": "new", "reconstructions-epoch_0005.png": "photos"}
    assert len(list((record / "artifacts").iterdir())) == 2  # and nothing that was written halfway


def test_a_newer_one_takes_its_place_also_from_another_controller(study: optuna.Study, tmp_path: Path) -> None:
    study.ask()
    study.ask()
    run, record = tmp_path / "0", tmp_path / "record"
    first = Artifacts(study, record, PATTERNS)
    draw(run, "samples/1.png", "one", age=9)
    first.attach(0, run)
    first.attach(1, run)
    draw(run, "samples/2.png", "two", age=5)
    other = optuna.load_study(study_name="s", storage=study._storage)
    Artifacts(other, record, PATTERNS).attach(0, run)
    assert attached(study, 0, record) == {"samples-2.png": "two"}
    draw(run, "samples/2.png", "written again")
    first.attach(0, run)
    assert attached(study, 0, record) == {"samples-2.png": "written again"}
    assert attached(study, 1, record) == {"samples-1.png": "one"}
    assert len(list((record / "artifacts").iterdir())) == 2


def test_what_is_there_is_not_written_again(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.ask()
    draw(tmp_path, "samples/1.png", "one")
    artifacts = Artifacts(study, tmp_path, PATTERNS)
    artifacts.attach(0, tmp_path)
    monkeypatch.setattr(artifacts, "store", None)  # it would be missed
    monkeypatch.setattr(artifacts, "_failed", False)
    artifacts.attach(0, tmp_path)
    assert not artifacts._failed


def test_a_failure_costs_nothing_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    study = optuna.create_study()
    for number in range(3):
        draw(tmp_path / str(number), "samples/1.png", "one")
    artifacts = Artifacts(study, tmp_path, PATTERNS)
    loop = scheduler(Script(1), Limits(3), study, attach=lambda n, folder: artifacts.attach(n, tmp_path / folder))
    loop.run()
    assert states(study) == ["COMPLETE"] * 3
    assert caplog.text.count("could be attached") == 1


def test_what_was_not_written_whole_is_not_there(tmp_path: Path) -> None:
    class Broken:
        def read(self, size: int = -1) -> bytes:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        Store(tmp_path / "artifacts").write("a", Broken())  # type: ignore[arg-type]
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_a_trial_that_another_controller_ended_is_let_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study()
    study.tell(study.ask(), 1.0)
    draw(tmp_path, "samples/1.png", "one")
    artifacts = Artifacts(study, tmp_path, PATTERNS)
    with pytest.raises(UpdateFinishedTrialError):
        artifacts._attach(0, tmp_path, PATTERNS[0])
    artifacts.attach(0, tmp_path)
    assert "attached" not in caplog.text


def test_however_a_trial_ends_its_pictures_are_attached_before(tmp_path: Path) -> None:
    kinds = [Kind.COMPLETE, Kind.PRUNED, Kind.OUT_OF_MEMORY, Kind.DIVERGED, Kind.FAILED]
    study = optuna.create_study()
    artifacts = Artifacts(study, tmp_path, PATTERNS)
    for number in range(len(kinds)):
        draw(tmp_path / str(number), "samples/1.png", f"of {number}")
    script = Script(2, *(Outcome(kind, value=1.0, message=kind.value) for kind in kinds))
    scheduler(script, Limits(len(kinds)), study, attach=lambda n, folder: artifacts.attach(n, tmp_path / folder)).run()
    for number in range(len(kinds)):
        assert attached(study, number, tmp_path) == {"samples-1.png": f"of {number}"}


def test_while_a_trial_runs_they_are_looked_for_about_once_a_minute() -> None:
    now, looked = [0.0], list[float]()
    script = Script(1)

    def an_hour(timeout: float) -> list[tuple[Job, Outcome]]:
        now[0] += 1.0
        return Script.wait(script, timeout) if now[0] >= 3600 else []

    script.wait = an_hour
    scheduler(script, Limits(1), clock=lambda: now[0], attach=lambda n, folder: looked.append(now[0])).run()
    assert len(looked) == 3600 / scheduler_module.SHOW
    assert looked[0] == scheduler_module.SHOW
    assert looked[-1] == 3600  # before it was told


@pytest.mark.security
@pytest.mark.parametrize("name", ["../study", "/etc/passwd", "..", "sub/x", ""])
def test_an_artifact_that_a_study_names_elsewhere_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "artifacts" / "sub").mkdir(parents=True)
    for path in (tmp_path / "study", tmp_path / "artifacts" / "sub" / "x"):
        path.write_text("not for everybody")
    store = Store(tmp_path / "artifacts")
    for touch in (store.open_reader, store.remove, lambda name: store.write(name, io.BytesIO(b"x"))):
        with pytest.raises(StudyError, match="An artifact must be a name"):
            touch(name)
    assert (tmp_path / "study").read_text() == "not for everybody"
