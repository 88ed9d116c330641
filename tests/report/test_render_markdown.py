import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from optuna.trial import TrialState
from PIL import Image
from tests.markup import NAMES, on_one_line, rendered
from tests.report.studies import Lab, add, params_of, populate, strangers

from catsweep.ownership import MARKER
from catsweep.report.render import Report
from catsweep.report.report_data import collect


def test_every_picture_it_links_is_there_and_none_is_left_over(lab: Lab) -> None:
    study = lab.study("cats")
    populate(lab, study, 12)
    folder = lab.sweeps / "cats"
    (folder / "report").mkdir()
    (folder / "report/slices_9.png").write_bytes(b"")
    page = Report(collect(folder, lab.outputs / "cats", lab.ready, plotly=False), folder).write_markdown()
    text = page.read_text(encoding="utf-8")
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert [Path(path).stem for path in linked] == [
        "winner", "reconstructions", "pareto", "pareto_samples", "history", "parallel", "importance", "slices_0",
        "slices_1", "timeline",
    ]  # fmt: skip
    kept = {path.name for path in (folder / "report").iterdir()}
    assert {*linked, f"report/{MARKER}"} == {f"report/{name}" for name in kept}
    for path in linked:
        if path.endswith(".svg"):
            drawn = ElementTree.parse(folder / path).getroot()  # well-formed XML, which img elements insist on
            assert min(float(drawn.attrib[side]) for side in ("width", "height")) > 50
            assert "var(" not in (folder / path).read_text(encoding="utf-8")  # which not every program knows
            assert len(list(drawn.iter("{http://www.w3.org/2000/svg}text"))) > 4
        else:
            with Image.open(folder / path) as picture:
                assert min(picture.size) > 50
                picture.load()
    for path in re.findall(r"^\| \[\d+\]\((.*?)\)", text, re.MULTILINE):
        assert (folder / path).is_dir()
    assert "<b onerror" not in text
    assert text.count("<pre>") == text.count("</pre>") == 1
    assert [line for line in text.splitlines() if line.startswith("## ")][:2] == [
        "## What was searched", "## The winner",
    ]  # fmt: skip
    columns = {line.count(" | ") for line in text.splitlines() if re.match(r"\| \[?\d+", line)}
    assert len(columns) == 1  # a stroke in a parameter makes no new column
    confirm = "python src/train.py -m hparams_search=vae_optuna study=cats hydra.sweeper.n_jobs=2 "
    assert f" To find out: `{confirm}'hydra.sweeper.confirm={{top: 3, seeds: 3}}'`\n" in text  # as a shell takes it
    assert "not known: `make judge`, and the line of the sweep again." in text


@pytest.mark.parametrize("ended", [None, TrialState.FAIL])
def test_without_a_finished_trial_it_says_so(lab: Lab, ended: TrialState | None) -> None:
    study = lab.study("bad")
    if ended is not None:
        add(study, ended, params_of(1), "failed", message="no", traceback="```\nthe traceback")
    folder = lab.sweeps / "bad"
    page = Report(collect(folder, lab.outputs / "bad", lab.ready), folder).write_markdown()
    text = page.read_text(encoding="utf-8")
    assert "has no finished trial to choose from" in text
    assert "Give the sweep's line again" in text
    assert ("the traceback" in text) == (ended is not None)
    assert all((folder / path).is_file() for path in re.findall(r"!\[.*?\]\((.*?)\)", text))


def test_a_study_without_a_contract_lists_its_parameters(lab: Lab) -> None:
    study = lab.study("stock", space={})
    add(study, (1.0, 0.5), params_of(0), "complete")
    folder = lab.sweeps / "stock"
    page = Report(collect(folder, lab.outputs / "stock", lab.ready, plotly=False), folder).write_markdown()
    assert "| parameter | range |\n| --- | --- |\n| optimizer |  |\n" in page.read_text(encoding="utf-8")


@pytest.mark.security
def test_a_strangers_study_adds_nothing_to_the_page_but_its_words(lab: Lab) -> None:
    def page(name: str, words: list[str]) -> str:
        folder = strangers(lab, name, words)
        report = Report(collect(folder, lab.outputs / name, lab.ready, plotly=False), folder)
        return report.write_markdown().read_text(encoding="utf-8")

    def shape(text: str) -> list[str]:
        return [tag for tag in rendered(text).tags if tag != "code"]

    hostile = [word for word in NAMES if on_one_line(word) and word != "\ud800"]  # no database takes that
    text = page("hostile <b>#*", hostile)
    assert shape(text) == shape(page("harmless", [f"word {i}" for i, _ in enumerate(hostile)]))
    assert {on_one_line(word) for word in hostile} <= {on_one_line(cell) for cell in rendered(text).texts["td"]}
    elements = [
        {
            path.name: [node.tag for node in ElementTree.parse(path).iter()]
            for path in (lab.sweeps / name / "report").glob("*.svg")
        }
        for name in ("hostile <b>#*", "harmless")
    ]
    assert elements[0] == elements[1]
    assert len(elements[0]) >= 5
