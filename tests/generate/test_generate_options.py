"""What cannot be drawn is refused with the key, what it must be, and what it is, before anything is loaded."""

from pathlib import Path

import pytest

from catsweep.errors import ConfigError, ExportError
from catsweep.generate import drawing, generate_options


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interpolate", 65),
        ("out", "cats.jpg"),
        ("out", "walk.gif"),
        ("photos", "nowhere"),
        ("bundle", "nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(monkeypatch, config, key, value) -> None:
    monkeypatch.setattr(drawing.Source, "generator", property(pytest.fail))
    with pytest.raises(Exception, match=r".") as refused:
        drawing.run(config(**{"run": None if key == "bundle" else "run", key: value}))
    assert isinstance(refused.value, ConfigError | ExportError)
    message = str(refused.value)
    assert str(value) in message
    assert key in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interpolate": 4, "attribute_measure": "warmth"}, "leave one out"),
        ({"interpolate": 4, "n": 7, "out": "walk.gif"}, "two cats that a walk needs"),
        ({"attribute_measure": "warmth", "attribute_steps": 7, "n": 6}, "attribute.steps=7 .* n=6"),
        ({"attribute_measure": "warmth", "attribute_with": "x"}, "got both"),
        ({"attribute_with": "x"}, "attribute.with=x attribute.without=None"),
        ({"attribute_without": "x"}, "attribute.with=None attribute.without=x"),
        ({"photos": "x", "truncation": 0.5}, "truncation=0.5 is of cats that are drawn by chance"),
    ],
)
def test_what_means_nothing_together_is_refused(config, changes, said) -> None:
    with pytest.raises(ConfigError, match=said):
        generate_options.read(config(**changes))


def test_every_measure_is_in_the_configuration(root) -> None:
    from catsweep.generate.interpolation import MEASURES

    line = next(line for line in (root / "conf" / "generate.yaml").read_text().splitlines() if "  measure:" in line)
    assert all(name in line for name in MEASURES)


@pytest.mark.parametrize(
    ("out", "form"),
    [
        (None, generate_options.PAGE),
        ("cats.PNG", generate_options.PAGE),
        ("walk.gif", generate_options.ANIMATION),
        ("walk.webp", generate_options.ANIMATION),
        ("cats", generate_options.FOLDER),
        ("cats.v2/", generate_options.FOLDER),
    ],
)
def test_form_follows_the_ending(config, out, form) -> None:
    assert generate_options.read(config(out=out, interpolate=4)).form == form


def test_nothing_is_overwritten_unless_asked_to(config, tmp_path: Path) -> None:
    page, folder, empty = tmp_path / "cats.png", tmp_path / "cats", tmp_path / "empty"
    page.touch()
    folder.mkdir()
    empty.mkdir()
    (folder / "mine.txt").touch()
    for out in (page, folder):
        with pytest.raises(ConfigError, match="overwrite=true"):
            generate_options.read(config(out=str(out)))
        assert generate_options.read(config(out=str(out), overwrite=True)).out == out
    assert generate_options.read(config(out=str(empty))).form == generate_options.FOLDER


def test_a_place_that_cannot_be_is_refused(config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for out, said in (("file", "a file of that name"), ("file/cats.png", "is a file and no folder"),
                      ("folder.png", "a folder of that name")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            generate_options.read(config(out=str(tmp_path / out), overwrite=True))
