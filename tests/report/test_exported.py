"""What became of a study, written by `src/cats.py`, or by a stranger."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from catsweep.report.exported import Exported

FOUND = Exported(
    trial=3, run="outputs/cats/mine/longer", bundle="outputs/exports/mine-longer", remark="It is better.",
    before={"val/fid": 40.0}, after={"val/fid": 30.0}, budget=240.0, planned={"export": 26.0}, spent={"export": 21.5},
)  # fmt: skip


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Exported.read(tmp_path) is None
    FOUND.write(tmp_path)
    assert Exported.read(tmp_path) == FOUND


@pytest.mark.security
@pytest.mark.parametrize(
    "damage",
    [
        {"trial": "3"}, {"trial": None}, {"run": None}, {"run": 7}, {"before": []}, {"after": {"val/fid": "30"}},
        {"after": {"val/fid": None}}, {"after": {"val/fid": math.nan}}, {"spent": {"export": 1e300}}, {"budget": {}},
        {"planned": {"export": True}},
    ],
)  # fmt: skip
def test_what_is_no_such_document_is_none(damage: dict[str, Any], tmp_path: Path) -> None:
    FOUND.write(tmp_path)
    file = tmp_path / Exported.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    assert Exported.read(tmp_path) is None


@pytest.mark.security
@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000])
def test_a_torn_file_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / Exported.FILE).write_text(text)
    assert Exported.read(tmp_path) is None


@pytest.mark.security
def test_a_link_and_a_run_elsewhere_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("study", "other", FOUND.run, "secret"):
        Path(folder).mkdir(parents=True)
    FOUND.write(Path("other"))
    Path("study", Exported.FILE).symlink_to(Path("other", Exported.FILE).resolve())
    assert Exported.read(Path("study")) is None
    assert FOUND.run_within(Path("outputs")) == Path(FOUND.run)
    for run in ("secret", "outputs/../secret", "outputs/none", "x" * 5000, "\0"):
        assert Exported(**{**vars(FOUND), "run": run}).run_within(Path("outputs")) is None
