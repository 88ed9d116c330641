from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from tests.report.studies import Lab

from catsweep.errors import ExportError, TakenError
from catsweep.report import page, writing


def config(lab: Lab, **more: object) -> DictConfig:
    conf = OmegaConf.load(Path(__file__).parents[2] / "conf/report.yaml")
    del conf["defaults"], conf["hydra"]
    places = {"sweeps": str(lab.sweeps), "outputs": str(lab.outputs), "ready": str(lab.ready)}
    merged = OmegaConf.merge(conf, places, more)
    assert isinstance(merged, DictConfig)
    return merged


def test_both_reports_lie_beside_the_study(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.study("2026")
    path = writing.run(config(lab, study=2026))  # the command line reads a number
    assert path == lab.sweeps / "2026/report.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["report", "report.html", "report.md", "study.db"]
    assert f"0 trials of study 2026: {path} (0.0 MB), and {path.with_suffix('.md')}" in capsys.readouterr().out


def test_an_unknown_study_is_refused_with_those_that_there_are(lab: Lab) -> None:
    lab.study("cats")
    with pytest.raises(ExportError, match="There are: cats"):
        writing.run(config(lab, study="dogs"))


def test_a_failure_leaves_the_earlier_page(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.study("cats")
    (lab.sweeps / "cats/report.html").write_text(earlier := "<title>cats: what the sweep found</title>")
    monkeypatch.setattr(page, "TEMPLATE", "gone.jinja")
    with pytest.raises(Exception, match="gone"):
        writing.run(config(lab))
    assert (lab.sweeps / "cats/report.html").read_text() == earlier
    assert [p.name for p in (lab.sweeps / "cats").iterdir() if p.name.startswith(".")] == []


@pytest.mark.security
@pytest.mark.parametrize("name", ["report.html", "report.md", "report/thesis.png"])
def test_a_file_of_the_user_is_not_replaced(lab: Lab, name: str) -> None:
    lab.study("cats")
    (mine := lab.sweeps / "cats" / name).parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(TakenError, match="Move it away, or choose another place: sweeps=DIR"):
        writing.run(config(lab))
    assert mine.read_text() == "mine"
    mine.unlink()
    for _ in range(2):
        writing.run(config(lab))
