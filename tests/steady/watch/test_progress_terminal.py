import io
import json
import os
import pty
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from steady.watch.progress import (
    LiveDisplay,
    PlainDisplay,
    SlotView,
    SweepState,
    display_for,
    duration,
    estimate_left,
    read_progress,
    render,
)

SLOTS = [
    SlotView(0, 17, 12, 25, "val/kid", 0.0312345, 95.0, started=100.0),
    SlotView(1, 18, started=180.0),
    None,
    SlotView(3, 19, epoch=3, metric="val/kid", score=12.5, started=90.0),
]
STATE = SweepState(
    study="vae-cats",
    n_trials=30,
    counts={"finished": 9, "pruned": 5, "failed": 2, "waiting": 1, "running": 3},
    slots=SLOTS,
    best="val/fid 209.2, val/ssim 0.4123 (trial 7)",
    finished_seconds=[300.0, 200.0, 100.0],
    started=0.0,
    now=200.0,
)


def drawn(state: SweepState, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(state, height))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


# --- the picture


@pytest.mark.parametrize("width", [60, 140])
def test_the_picture_says_all_there_is_to_know_on_any_terminal(width: int) -> None:
    lines = drawn(STATE, width)
    assert [line.split() for line in lines[:-3]] == [
        ["slot", "trial", "epoch", "val/kid", "left", "running", "for"],
        ["0", "17", "12/25", "0.03123", "1m35", "1m40"],
        ["1", "18", "20s"],
        ["2", "idle"],
        ["3", "19", "3", "12.5", "1m50"],
    ]
    # 11 to go at 200 s in slots that are free after 0, 95, 100 and 100 s: the last begins after 500 s.
    assert lines[-3:] == [
        "vae-cats: 20 of 30 trials, about 11m40 left",
        "9 finished, 5 pruned, 2 failed, 1 waiting",
        "best val/fid 209.2, val/ssim 0.4123 (trial 7)",
    ]
    assert max(map(len, lines)) <= 60


def test_before_the_first_trial_has_ended_the_picture_says_so() -> None:
    lines = drawn(replace(STATE, counts={"running": 3}, best="", finished_seconds=[]))
    assert lines[-3:] == ["vae-cats: 3 of 30 trials", "none has ended yet", "no trial has finished yet"]


def test_scores_by_different_metrics_are_just_called_score() -> None:
    assert "score" in drawn(replace(STATE, slots=[*SLOTS, SlotView(4, 20, metric="val/fid", score=1.0)]))[0]
    assert "score" in drawn(replace(STATE, slots=[None]))[0]


def test_the_name_of_a_study_or_metric_is_not_taken_for_markup() -> None:
    lines = drawn(replace(STATE, study="[red]cats", slots=[replace(SLOTS[0], metric="[red]kid")]))  # type: ignore[type-var]
    assert "[red]kid" in lines[0]
    assert "[red]cats" in lines[-3]


@pytest.mark.parametrize("height", [7, 8, 12, 24])
def test_with_more_slots_than_lines_what_stands_below_them_stays(height: int) -> None:
    lines = drawn(replace(STATE, slots=SLOTS * 16), height=height)
    assert len(lines) < height  # one line is the cursor's
    assert lines[-1].startswith("best val/fid")
    slots = sum(bool(re.match(r" +\d+ ", line)) for line in lines)
    assert f"   …  and {64 - slots} more slots" in lines
    assert not any("more slots" in line for line in drawn(replace(STATE, slots=SLOTS * 16), height=64 + 5))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00"), (185, "3m05"), (3599.7, "1h00"), (7800, "2h10")],
)
def test_durations_are_said_as_a_person_says_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# --- the time left


@pytest.mark.parametrize(
    ("finished", "remaining", "slots", "running", "left"),
    [
        ([], 0, 2, [], 0.0),  # done
        ([], 5, 2, [3.0, 4.0], None),  # how long one takes is not known
        ([], 0, 2, [3.0, None], None),
        ([], 0, 2, [3.0, 4.0], 4.0),  # but the last of them is
        ([10.0], 0, 2, [None], 5.0),
        ([10.0, 20.0], 4, 2, [], 30.0),
        ([10.0], 1, 2, [], 10.0),  # one cannot be shared by two slots
        ([10.0], 3, 2, [], 20.0),
        ([10.0], 1, 2, [8.0, 2.0], 12.0),  # goes where it is free first
        ([10.0], 1, 2, [50.0], 50.0),  # the idle slot is done long before
        ([10.0], 2, 2, [-5.0, -1.0], 10.0),  # late ones end now
        ([10.0], 2, 1, [4.0, 4.0], 14.0),  # more run than there are slots, while it is stopped
    ],
)
def test_the_time_left_is_that_of_slots_that_never_wait(
    finished: list[float], remaining: int, slots: int, running: list[float | None], left: float | None
) -> None:
    assert estimate_left(finished, remaining, slots, running) == left


@given(
    st.lists(st.floats(0.1, 1e4), min_size=1, max_size=5),
    st.integers(0, 40),
    st.integers(1, 8),
    st.lists(st.none() | st.floats(0, 1e4), max_size=8),
)
def test_the_time_left_lies_between_the_work_shared_evenly_and_one_trial_more(
    finished: list[float], remaining: int, slots: int, running: list[float | None]
) -> None:
    running = running[:slots]
    left = estimate_left(finished, remaining, slots, running)
    mean = sum(finished) / len(finished)
    known = [mean / 2 if value is None else value for value in running]
    work = remaining * mean + sum(known)
    assert left is not None
    assert left >= max(work / slots, *known, 0.0) * (1 - 1e-9)
    assert left <= (work / slots + mean + max(known, default=0.0)) * (1 + 1e-9)
    more = estimate_left(finished, remaining + 1, slots, running)
    assert more is not None
    assert more >= left * (1 - 1e-9)


def test_what_waits_again_is_still_to_be_done() -> None:
    base = replace(STATE, slots=[None], n_trials=10, finished_seconds=[10.0])
    assert replace(base, counts={"finished": 8}).seconds_left() == 20.0
    assert replace(base, counts={"finished": 8, "waiting": 2}).seconds_left() == 20.0
    assert replace(base, counts={"finished": 10}).seconds_left() == 0.0
    larger = replace(base, counts={"finished": 12, "waiting": 1})  # than this start of the sweep asks for
    assert larger.seconds_left() == 10.0


@pytest.mark.parametrize(
    ("timeout", "left"),
    [
        (None, 700.0),
        (10_000.0, 700.0),  # is later than the end
        (350.0, 150.0),  # nearer
        (250.0, 95.0),  # the trial in slot 0 goes on for 95 s
        (10.0, 95.0),
    ],
)
def test_the_timeout_counts_if_it_is_nearer(timeout: float | None, left: float) -> None:
    assert replace(STATE, timeout=timeout).seconds_left() == left


def test_a_timeout_is_known_before_a_trial_has_finished() -> None:
    early = replace(STATE, finished_seconds=[], slots=[None], timeout=260.0)
    assert early.seconds_left() == 60.0
    assert replace(early, timeout=None).seconds_left() is None


# --- what trials say


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = {"epoch": 3, "epochs": 25, "metric": "val/kid", "score": 0.5, "seconds_left": 12.5, "updated": 1.0}
    (tmp_path / "progress.json").write_text(json.dumps(told))
    assert read_progress(tmp_path) == told


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"epoch": 3, "sc', b"[1, 2]", b"null", b"\xff\xfe", b'"epoch"', pytest.param(b"[" * 9999, id="deep")],
    ids=repr,
)
def test_a_trial_that_says_nothing_yet_or_half_of_it_says_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "progress.json").write_bytes(content)
    assert read_progress(tmp_path) == {}
    assert read_progress(tmp_path / "absent") == {}


def test_of_what_a_trial_says_only_what_can_be_shown_is_taken(tmp_path: Path) -> None:
    told = {"epoch": "three", "epochs": None, "metric": 7, "score": float("nan"), "seconds_left": True, "mine": 1}
    (tmp_path / "progress.json").write_text(json.dumps(told))
    assert read_progress(tmp_path) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
fields = st.sampled_from(["epoch", "epochs", "metric", "score", "seconds_left", "updated", "other"])


@given(st.dictionaries(fields, json_values))
def test_whatever_a_trial_says_can_be_drawn(tmp_path_factory: pytest.TempPathFactory, told: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("trial")
    (folder / "progress.json").write_text(json.dumps(told))
    said = read_progress(folder)
    said.pop("updated", None)
    assert drawn(replace(STATE, slots=[SlotView(0, 1, **said)]))


# --- the displays


def test_elsewhere_than_on_a_terminal_there_is_one_line_per_event_and_no_table() -> None:
    stream = io.StringIO()
    display = display_for(stream)
    assert isinstance(display, PlainDisplay)
    display.event("trial 0 started: x=1")
    for _ in range(3):
        display.show(STATE)
    display.event("trial 0 finished: [1.5]")
    display.close()
    lines = stream.getvalue().splitlines()
    assert [line[8:] for line in lines] == ["  trial 0 started: x=1", "  trial 0 finished: [1.5]"]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d  .*", line) for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_events_stand_above_the_table_which_is_taken_away_at_the_end(terminal: Terminal) -> None:
    out, err = sys.stdout, sys.stderr
    display = display_for(terminal)
    assert isinstance(display, LiveDisplay)
    display.show(STATE)
    display.event("trial 17 [started]: policy=[color,translation] " + "x" * 200)
    display.close()
    written = terminal.getvalue()
    assert written.index("best val/fid") < written.index("trial 17 [started]: policy=[color,translation]")
    after = written[written.index("trial 17 [started]") :]
    assert "best val/fid" in after  # drawn anew below the event
    assert "\x1b[1A\x1b[2K" in after[after.rindex("best val/fid") :]  # and erased
    assert (sys.stdout, sys.stderr) == (out, err)


def test_the_table_is_drawn_at_most_twice_a_second(terminal: Terminal) -> None:
    display = LiveDisplay(Console(file=terminal, force_terminal=True, width=80))
    for tenth in range(11):
        display.show(replace(STATE, now=200.0 + tenth / 10))
    assert terminal.getvalue().count("best val/fid") == 3
    display.close()


def test_the_table_fits_the_terminal_it_is_drawn_on(terminal: Terminal) -> None:
    display = LiveDisplay(Console(file=terminal, force_terminal=True, width=80, height=10))
    display.show(replace(STATE, slots=SLOTS * 16))
    assert "and 60 more slots" in terminal.getvalue()
    assert "best val/fid" in terminal.getvalue()
    display.close()


def test_nothing_is_forked_beside_a_thread_of_the_display(terminal: Terminal) -> None:
    before = set(threading.enumerate())
    display = display_for(terminal)
    display.show(STATE)
    display.event("trial 1 started")
    assert set(threading.enumerate()) == before
    display.close()


def test_what_others_print_meanwhile_does_not_break_the_table(terminal: Terminal) -> None:
    display = display_for(terminal)
    display.show(STATE)
    print("Stopping", file=sys.stderr)
    display.close()
    assert "Stopping" in terminal.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display_for(terminal), PlainDisplay)


def test_a_log_file_gets_lines_whatever_the_environment_wants_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(display_for(io.StringIO()), PlainDisplay)


def test_a_real_terminal_gets_the_table_and_standard_error_is_where_it_stands(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stream)
        display = display_for()
        display.show(STATE)
        display.close()
        assert isinstance(display, LiveDisplay)
        stream.flush()
        assert b"vae-cats: 20 of 30 trials" in screen.read(65536)
