"""The table of `make gpu-check`."""

from pathlib import Path

import pytest
from tests.gpu import table
from tests.gpu.table import Row

GOOD, BAD, TOLD = (Row("a", "b", "c", verdict) for verdict in (True, False, None))


def test_a_row_shows_its_verdict_and_keeps_to_its_line() -> None:
    text = table.markdown([Row("a | b", "1", "two\nlines", False), TOLD])
    assert text.splitlines()[2:] == ["| a / b | 1 | two lines | **failed** |", "| a | b | c |  |"]


@pytest.mark.parametrize(("rows", "code"), [([GOOD, TOLD], 0), ([GOOD, BAD, TOLD], 1), ([], 1)])
def test_one_failure_decides_and_so_does_nothing_at_all(rows: list[Row], code: int) -> None:
    assert table.exit_code(rows) == code


def test_scores_must_be_there_and_be_numbers() -> None:
    assert table.finite("x", {"val/fid": 12.345678}).ok
    assert table.finite("x", {"val/fid": 12.345678}).got == "fid 12.35"
    assert not table.finite("x", {"val/fid": float("nan"), "val/kid": 1.0}).ok
    assert not table.finite("x", {}).ok


@pytest.mark.parametrize(("ours", "ok"), [(90.0, True), (89.9, False)])
def test_a_rate_is_judged_by_its_share(ours: float, ok: bool) -> None:
    row = table.share("x", ours, 100.0, 0.9)
    assert row.ok is ok
    assert row.got == f"90 of 100 = {ours:.1f}%"


def test_rows_come_back_as_they_were_kept(tmp_path: Path) -> None:
    table.write(tmp_path / "rows.json", [GOOD, BAD, TOLD])
    assert table.read(tmp_path / "rows.json") == [GOOD, BAD, TOLD]
    assert table.read(tmp_path / "none.json") == []
