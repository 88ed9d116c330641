"""What `src/cats.py` shows while it works."""

import io
import sys
from pathlib import Path

import pytest

from catsweep.cats.display import Lines, Picture, Progress, display_for, last_lines, render, tail
from steady import printing


def progress(*logs: Path, step: str = "search") -> Progress:
    titles = {"prepare": "prepare the photos", "search": "search and confirm", "train": "train the best on"}
    planned = {"prepare": 60.0, "search": 2400.0, "train": 600.0}
    return Progress("cats-60min", 3600.0, {"prepare": 30.0, "search": 300.0}, planned, titles, step, logs)


def test_the_picture_has_every_step_the_time_left_and_the_last_line(tmp_path: Path) -> None:
    log = tmp_path / "search.log"
    log.write_text("first\n\x1b[31mtrial 3 finished: 40.1\x1b[0m\n━━━━━\n")
    out = io.StringIO()
    printing.console(file=out, width=100).print(render(progress(log)))
    said = out.getvalue().splitlines()
    assert said[0] == "cats-60min: 54m30 left of 1h00"
    assert [line.split()[0] for line in said[2:5]] == ["✓", "▸", "train"]
    assert "5m00" in said[3]
    assert "40m00" in said[3]
    assert said[5] == r"\x1b[31mtrial 3 finished: 40.1\x1b[0m"


def test_without_a_terminal_a_step_is_one_line_and_no_more_within_a_minute(tmp_path: Path) -> None:
    out = io.StringIO()
    lines = Lines(out)
    for step in ("prepare", "prepare", "search", "search"):
        lines.show(progress(tmp_path / "none.log", step=step))
    said = [line.split("  ", 1)[1] for line in out.getvalue().splitlines()]
    assert said == ["prepare the photos, 54m30 left", "search and confirm, 54m30 left"]


def test_after_a_minute_the_line_has_what_the_step_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").write_text("trial 1 started\n")
    out, clock = io.StringIO(), iter([0.0, 61.0, 61.0])
    lines = Lines(out)
    monkeypatch.setattr("catsweep.cats.display.time.monotonic", lambda: next(clock))
    lines.show(progress(tmp_path / "log"))
    lines.show(progress(tmp_path / "log"))
    assert out.getvalue().endswith("search and confirm, 54m30 left  |  trial 1 started\n")


def test_of_several_logs_each_is_shown_without_cutting_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, other, silent = (tmp_path / f"{name}.log" for name in ("train", "train-3", "train-4"))
    train.write_text("epoch 10\n")
    other.write_text(f"epoch 12  {'val/fid 40.123 ' * 9}\n")
    out, clock = io.StringIO(), iter([0.0, 61.0, 61.0])
    lines = Lines(out)
    monkeypatch.setattr("catsweep.cats.display.time.monotonic", lambda: next(clock))
    for _ in range(2):
        lines.show(progress(train, other, silent))
    short = "train-3: epoch 12  val/fid 40.123 val/fid 40.123 val/fid…"
    assert out.getvalue().endswith(f"54m30 left  |  train: epoch 10  |  {short}\n")
    assert [line.plain for line in render(progress(train, other)).renderables[2:]] == [
        "train: epoch 10", f"train-3: {other.read_text().strip()}",
    ]  # fmt: skip


def test_an_overdrawn_budget_has_nothing_left(tmp_path: Path) -> None:
    assert Progress("a", 10.0, {"x": 20.0}, {"x": 10.0}, {"x": "x"}, "x", []).left == 0


def test_the_end_of_a_log_is_read_however_long_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines([log]) == []
    log.write_bytes(b"\xff\xfe" * 5000 + b"\n10 %\r20 %\rend\n\n")
    assert tail(log, 2) == ["20 %", "end"]


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert type(display_for(sys.__stdout__ if not sys.__stdout__.isatty() else io.StringIO())) is Lines


def test_a_terminal_has_the_picture_below_the_lines_and_is_left_clean(tmp_path: Path) -> None:
    out = io.StringIO()
    picture = Picture(printing.console(file=out, force_terminal=True, width=80))
    picture.show(progress(tmp_path / "none.log"))
    picture.say("134 images are ready.")
    picture.show(progress(tmp_path / "none.log", step="train"))  # a moment later: not drawn again
    picture.close()
    said = out.getvalue()
    assert said.index("54m30 left of 1h00") < said.index("134 images are ready.")
    assert "\x1b[?25h" in said  # the cursor is back
