import os

import pytest

from catsweep.export.swap import replacing


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_new_folder_takes_its_place_and_parents_are_made(tmp_path) -> None:
    target = tmp_path / "outputs" / "best"
    with replacing(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert content(target) == {"a": "1"}
    assert os.listdir(target.parent) == ["best"]


def test_old_folder_is_replaced_as_a_whole(tmp_path) -> None:
    target = tmp_path / "best"
    target.mkdir()
    (target / "old").write_text("0")
    with replacing(target) as folder:
        (folder / "new").write_text("1")
        assert content(target) == {"old": "0"}
    assert content(target) == {"new": "1"}
    assert os.listdir(tmp_path) == ["best"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_error_midway_leaves_the_old_one_and_no_debris(tmp_path, error) -> None:
    target = tmp_path / "best"
    target.mkdir()
    (target / "old").write_text("0")

    def build() -> None:
        with replacing(target) as folder:
            (folder / "new").write_text("1")
            raise error

    with pytest.raises(type(error)):
        build()
    assert content(target) == {"old": "0"}
    assert os.listdir(tmp_path) == ["best"]


def test_error_between_the_two_renames_puts_the_old_one_back(tmp_path, monkeypatch) -> None:
    target = tmp_path / "best"
    target.mkdir()
    (target / "old").write_text("0")
    real, calls = os.replace, []

    def second_fails(source, destination):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no")
        real(source, destination)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="no"), replacing(target) as folder:
        (folder / "new").write_text("1")
    assert content(target) == {"old": "0"}
    assert os.listdir(tmp_path) == ["best"]
