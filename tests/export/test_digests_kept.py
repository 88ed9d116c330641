"""A page that somebody edited outlives further exports."""

import json
from pathlib import Path

import pytest

from catsweep.export import digests
from catsweep.export.digests import keep_page

pytestmark = pytest.mark.security
PAGE = "the page"


def export(folder: Path, before: Path) -> str | None:
    """A bundle that has only its page."""
    folder.mkdir()
    (folder / "README.md").write_text(PAGE)
    (folder / "provenance.json").write_text(json.dumps({"export": {"files": digests.of(folder)}}))
    return keep_page(before, folder)


@pytest.fixture
def exports(tmp_path: Path) -> list[Path]:
    """Places of bundles, each exported after the one before it; the first is there."""
    places = [tmp_path / str(number) for number in range(4)]
    export(places[0], tmp_path / "nothing")
    return places


def pages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("README*"))}


def test_a_page_that_nobody_edited_is_replaced(exports: list[Path]) -> None:
    assert export(exports[1], exports[0]) is None
    assert pages(exports[1]) == {"README.md": PAGE}


def test_each_edited_page_is_kept_through_all_further_exports(exports: list[Path]) -> None:
    first, second, third, last = exports
    (first / "README.md").write_text("MIT")
    assert export(second, first) == "README.before.md"
    assert digests.verify(second) == [f"Not of the bundle, and not read: README.before.md in {second}."]
    (second / "README.md").write_text("GPL")
    assert export(third, second) == "README.before-2.md"
    assert export(last, third) is None
    assert pages(last) == {"README.md": PAGE, "README.before.md": "MIT", "README.before-2.md": "GPL"}
    (last / "README.before.md").unlink()  # it has been put into the page
    digests.verify(last)


@pytest.mark.parametrize("provenance", [None, "{", "[" * 100_000, '{"export": {"files": {"README.md": 1}}}', "{}"])
def test_a_page_of_which_nobody_knows_is_kept(exports: list[Path], provenance: str | None) -> None:
    (exports[0] / "README.md").write_bytes(b"\xff MIT")
    (exports[0] / "provenance.json").unlink()
    if provenance is not None:
        (exports[0] / "provenance.json").write_text(provenance)
    assert export(exports[1], exports[0]) == "README.before.md"
    assert (exports[1] / "README.before.md").read_bytes() == b"\xff MIT"


def test_links_are_not_followed(exports: list[Path], tmp_path: Path) -> None:
    (tmp_path / "private").write_text("key")
    (exports[0] / "README.md").unlink()
    for name in ("README.md", "README.before.md"):
        (exports[0] / name).symlink_to(tmp_path / "private")
    assert export(exports[1], exports[0]) is None
    assert pages(exports[1]) == {"README.md": PAGE}
