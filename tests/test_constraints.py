"""`constraints.txt`: a pin for everything that the two distributions and their extras ask for."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
UNPINNED = {"hydra-steady-sweeper", "rembg"}  # made here; for a person to try beside our own removers
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


def project(folder: str) -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"])


@pytest.mark.parametrize("folder", ["", "src"])
def test_every_requirement_has_a_pin_that_it_allows(folder: str) -> None:
    about = project(folder)
    wanted = [Requirement(line) for line in chain(about["dependencies"], *about["optional-dependencies"].values())]
    wanted = [one for one in wanted if one.name not in UNPINNED]
    assert len(wanted) > 10
    assert [str(one) for one in wanted if canonicalize_name(one.name) not in PINS] == []
    refused = [one for one in wanted if not one.specifier.contains(PINS[canonicalize_name(one.name)], prereleases=True)]
    assert refused == []


def test_extras_of_the_sweeper_are_also_extras_of_the_project() -> None:
    assert project("src")["optional-dependencies"].items() <= project("")["optional-dependencies"].items()


def test_pins_are_exact_and_in_order() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LINES)
    names = [line.partition("==")[0].lower() for line in LINES]
    assert names == sorted(set(names))
