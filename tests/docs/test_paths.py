"""Every file and folder that CONTRIBUTING.md, docs/architecture.md and its pictures name exists."""

import re

import pytest
from tests.docs.pages import ROOT

PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
PICTURES = ("trial.svg", "photo.svg")


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:src|conf|tests)/[\w/.]*\w/?", text))
    assert len(named) > 8
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("picture", PICTURES)
def test_paths_of_pictures_exist(picture: str) -> None:
    text = (ROOT / "docs" / "pictures" / picture).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:steady|catsweep)/[\w/]+\.py", text))
    assert len(named) >= 7
    assert sorted(path for path in named if not (ROOT / "src" / path).is_file()) == []


def test_a_trial_is_followed_in_seven_files_of_the_sweeper() -> None:
    text = (ROOT / "docs" / "pictures" / "trial.svg").read_text(encoding="utf-8")
    assert len(set(re.findall(r"steady/(?:run|propose|study)/\w+\.py", text))) <= 7
