import base64
import html
import io
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from catsweep.data.files import Folder
from catsweep.data.operations import Flip
from catsweep.data.ready import ReadySet
from catsweep.prepare import preparation_report
from catsweep.prepare.manifest import Record
from catsweep.prepare.pipeline import publish
from catsweep.prepare.report_images import SHOWN
from catsweep.prepare.stage import Stage, StageBuilder, StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.augment import Augment
from catsweep.prepare.stages.original import Original
from catsweep.prepare.stages.resize import Resize

PHOTOS, FLAWED, DOUBTED = 24, 16, 3  # of the photos so many are left out by stage `zoom`, and so many in doubt
HOSTILE = os.fsdecode(b"a <b>&\"'\xe9.jpg")


class Judge(Stage):
    """Stands for `zoom`: refuses the first photos, doubts the next, and says how it found the faces."""

    name, folder, code = "zoom", "zoomed", ()

    def parameters(self) -> dict[str, Any]:
        return {"strict": True}

    def run(self, build: StageBuilder) -> Iterable[Record]:
        places = {record.id: place for place, record in enumerate(build.inputs)}

        def judge(record: Record) -> tuple[Record, None]:
            place = places[record.id]
            if place < FLAWED:
                return record.refuse(f"flawed: for {place} reasons"), None
            matrix = [[1.0, 0.2, 0.0], [-0.2, 1.0, 0.0]]
            record = replace(record, operation="zoom: landmarks", parameters={"matrix": matrix, "enlarged": 1.5})
            return (record.doubt("small face: very") if place < FLAWED + DOUBTED else record), None

        return build.each(judge)


class Divide(Stage):
    """Stands for `verify`: the last two photos are held out."""

    name, folder, code = "verify", "verified", ()

    def parameters(self) -> dict[str, Any]:
        return {}

    def run(self, build: StageBuilder) -> Iterable[Record]:
        for place, record in enumerate(build.inputs):
            yield build.link(replace(record, split="val" if place >= len(build.inputs) - 2 else "train"))


@dataclass(frozen=True)
class Prepared:
    done: list[StageOutput]
    ready: ReadySet
    page: Path

    @property
    def html(self) -> str:
        return self.page.read_text(encoding="utf-8")

    @property
    def text(self) -> str:
        """What a person reads, in one line."""
        body = re.sub(r"<style>.*?</style>", "", self.html, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def prepare(root: Path, photos: Path, *more: Stage) -> Prepared:
    original = Original(Folder(photos, [".jpg"]))
    inputs, done = original.inputs(), list[StageOutput]()
    for number, stage in enumerate([original, Judge(), Divide(), *more, Resize(16)]):
        before = done[-1].folder if done else root
        done.append(build(stage, root / f"{number}.{stage.folder}", before, inputs))
        inputs = done[-1].kept
    ready = publish(done, root / "ready" / "cats-16", "cats <1>")
    return Prepared(done, ready, preparation_report.write(done, ready))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each photo of another grey; two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        Image.fromarray(np.full((32, 40, 3), 10 * number, np.uint8)).save(folder / f"{number:02d}.jpg")
    (folder / "empty.jpg").touch()
    (folder / HOSTILE).write_text("no image")
    return folder


@pytest.fixture(scope="module")
def prepared(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("data"), photos)


@pytest.fixture(scope="module")
def augmented(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("data"), photos, Augment({"flip": Flip(0.5)}, copies=4, size=16))


def test_it_counts_what_came_through_each_stage(prepared: Prepared) -> None:
    assert prepared.page == prepared.ready.path / "report.html"
    assert re.search("8 images of 16 . 16 pixels, from 26 photos", prepared.text)
    for tile in ("photos found 26", "left out 18", "in doubt 3", "photos used 8", "to train on 6", "held out 2"):
        assert tile in prepared.text
    assert "original 26 in, 24 kept, 2 left out" in prepared.text
    assert "zoom 24 in, 8 kept, 16 left out, 3 in doubt" in prepared.text
    assert '"strict": true' in prepared.text


def test_it_names_what_was_left_out_and_why(prepared: Prepared) -> None:
    assert "empty file 1 empty.jpg" in prepared.text
    assert "flawed 16" in prepared.text
    assert "00.jpg for 0 reasons" in prepared.text
    assert f"and {FLAWED - SHOWN} more" in prepared.text
    assert prepared.text.count("reasons ") == SHOWN


def test_it_begins_with_what_was_left_out_if_that_is_much(prepared: Prepared, tmp_path: Path) -> None:
    left, stages = prepared.text.index("Left out 18"), prepared.text.index("Stage by stage")
    assert left < stages
    assert "Only 8 of 25 photos (32.0 %) are left." in prepared.text[left:stages]
    assert "zoom: flawed 16 nothing" in prepared.text[left:stages]
    assert prepared.text.count("00.jpg for 0 reasons") == 1
    few = [stage for stage in prepared.done if stage.card["stage"] not in ("zoom", "verify")]
    records = tuple(record for stage in few[1:] for record in stage.records)
    kept = replace(few[0], records=tuple(record for record in few[0].records if record.id in {r.id for r in records}))
    text = replace(
        prepared, page=preparation_report.write([kept, *few[1:]], replace(prepared.ready, path=tmp_path))
    ).text
    assert text.index("Left out 0") > text.index("Stage by stage")
    assert "are left." not in text


def test_it_says_what_a_stage_has_to_say_of_the_whole_set(prepared: Prepared, tmp_path: Path) -> None:
    done = [replace(stage, card={**stage.card, "notes": ["All were <whole>."]}) for stage in prepared.done[:1]]
    page = preparation_report.write([*done, *prepared.done[1:]], replace(prepared.ready, path=tmp_path))
    assert "All were &lt;whole&gt;." in page.read_text(encoding="utf-8")


def test_names_from_outside_are_text_and_nothing_else(prepared: Prepared) -> None:
    assert r"""a <b>&"'\xe9.jpg none of""" in prepared.text
    assert "<b>&" not in prepared.html
    assert "cats &lt;1&gt;" in prepared.html
    assert "cats <1>" not in prepared.html


def test_a_photo_that_was_left_out_is_shown_as_it_came(prepared: Prepared, tmp_path: Path) -> None:
    figures = re.findall(r"<figure>.*?</figure>", prepared.html, flags=re.DOTALL)
    (figure,) = (figure for figure in figures if "for 15 reasons" in figure)
    assert np.abs(colour(figure) - 150) < 3
    (none,) = (figure for figure in figures if "empty.jpg" in figure)
    assert "<img" not in none


def colour(figure: str) -> float:
    match = re.search(r"data:image/jpeg;base64,([^\"]+)", figure)
    assert match is not None
    with Image.open(io.BytesIO(base64.b64decode(match[1]))) as image:
        return float(np.asarray(image).mean())


def test_it_shows_what_is_in_doubt_and_what_became_of_it(prepared: Prepared) -> None:
    assert "small face 3 kept 16.jpg very kept 17.jpg very kept 18.jpg very" in prepared.text


def test_it_says_how_faces_were_found_and_how_the_set_is_divided(prepared: Prepared) -> None:
    assert "landmarks 8 100.0 %" in prepared.text
    assert "train 6 6 6 val 2 2 2 No group is in both splits." in prepared.text
    assert prepared.ready.digest in prepared.text
    assert "Tilt of the head" in prepared.text


def test_the_command_in_it_names_the_set(prepared: Prepared) -> None:
    line = preparation_report.command(prepared.ready)
    assert line in prepared.text
    assert shlex.split(line)[2:] == ["data=ready", f"data.source={prepared.ready.path}", "data.size=16"]
    spaced = replace(prepared.ready, path=Path("my cats/it's"))
    assert "data.source=my cats/it's" in shlex.split(preparation_report.command(spaced))


def test_a_group_in_both_splits_is_denounced(prepared: Prepared, tmp_path: Path) -> None:
    rows = tuple(replace(row, group="one") for row in prepared.ready.rows)
    page = preparation_report.write(prepared.done, replace(prepared.ready, rows=rows, path=tmp_path))
    assert "1 group is in both splits: scores on this set cannot be trusted." in page.read_text()


def test_equal_sets_have_equal_reports(prepared: Prepared) -> None:
    before = prepared.page.read_bytes()
    opened = [StageOutput.open(stage.folder) for stage in prepared.done]
    prepared.page.unlink()
    preparation_report.write([stage for stage in opened if stage], ReadySet.open(prepared.ready.path))
    assert prepared.page.read_bytes() == before


@pytest.mark.parametrize("which", ["prepared", "augmented"])
def test_nothing_in_it_is_fetched_or_executed(which: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(which).html
    linked = re.findall(r"(?:\b(?:src|href)\s*=\s*|url\()[\"']?([^\"')]*)", page)
    assert len(linked) > 20
    assert {link.partition(",")[0] for link in linked} <= {"data:image/jpeg;base64", "data:", "#doubts"}
    assert "<script" not in page
    assert "@import" not in page
    assert len(page) < 1_000_000


def test_copies_are_shown_beside_their_photo(augmented: Prepared, prepared: Prepared) -> None:
    assert "augment 8 in, 26 made, 26 kept" in augmented.text
    assert "train 24 6 6 val 2 2 2" in augmented.text
    assert re.search(r"What was done to copies .*flip \d+ \d+\.\d %", augmented.text)
    assert augmented.html.count('alt="copy"') == preparation_report.FAMILIES * 3
    assert "Photos and their copies" not in prepared.text


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_browser_opens_it_offline_at_any_width(
    augmented: Prepared, browser: Browser, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    requests, complaints = list[str](), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(augmented.page.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.title() == "cats <1>: how it was prepared"
    assert [url for url in requests if not url.startswith("data:")] == [augmented.page.as_uri()]
    assert complaints == []
    context.close()
