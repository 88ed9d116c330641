import pytest

from catsweep.report.report_charts import Timeline, timeline
from catsweep.study_record import Attempt, Entry, StudyRecord
from steady.study.select import Objective

T = 1_795_690_000.0


def entry(number: int, *stays: tuple[int | None, float, float], role: str = "finished", **more: object) -> Entry:
    attempts = tuple(Attempt(slot, T + start, T + end) for slot, start, end in stays)
    return Entry(number, role, role, None, {}, attempts, None, **more)  # type: ignore[arg-type]


def drawn(*trials: Entry, again: tuple[Entry, ...] = ()) -> Timeline:
    record = StudyRecord("cats", (Objective("fid", False),), trials, (), again)
    line = timeline(record)
    assert line is not None
    return line


def test_one_row_a_slot_with_bars_to_scale_and_how_busy_it_was() -> None:
    line = drawn(entry(0, (0, 0, 60)), entry(1, (1, 0, 100), role="pruned"), entry(2, (0, 80, 100)))
    assert [(lane.name, lane.busy) for lane in line.lanes] == [("slot 0", pytest.approx(0.8)), ("slot 1", 1.0)]
    assert [(bar.trial, bar.left, bar.width, bar.role) for bar in line.lanes[0].bars] == [
        (0, 0.0, 60.0, "finished"), (2, 80.0, 20.0, "finished"),
    ]  # fmt: skip
    assert line.worked == 100
    assert line.busy == 180
    assert line.share == pytest.approx(0.9)
    assert line.marks[0] == (0.0, "0")


def test_a_slot_that_takes_the_next_before_the_last_is_settled_stays_one_row() -> None:
    line = drawn(entry(1, (1, 0, 109.6)), entry(2, (1, 109.5, 200)))
    assert len(line.lanes) == 1


def test_two_controllers_with_a_slot_of_the_same_number_get_a_row_each() -> None:
    line = drawn(entry(0, (0, 0, 60)), entry(1, (0, 10, 70)))
    assert [lane.name for lane in line.lanes] == ["slot 0", "slot 0 (2)"]


def test_trials_whose_slot_nobody_knows_fill_the_rows_that_are_free() -> None:
    line = drawn(entry(0, (None, 0, 60)), entry(1, (None, 10, 70)), entry(2, (None, 65, 90)))
    assert [[bar.trial for bar in lane.bars] for lane in line.lanes] == [[0, 2], [1]]


def test_the_night_between_two_sittings_is_cut_short_and_counted_apart() -> None:
    line = drawn(entry(0, (0, 0, 100)), entry(1, (0, 40_000, 40_100)))
    [(left, width, text)] = line.pauses
    assert (width, text) == (2.5, "nothing ran for 11 h 5 min")
    assert line.worked == 200
    assert line.paused == 39_900
    first, second = line.lanes[0].bars
    assert first.left + first.width == pytest.approx(left)
    assert second.left == pytest.approx(left + width)
    assert line.share == 1.0


def test_a_short_wait_is_no_pause() -> None:
    assert drawn(entry(0, (0, 0, 100)), entry(1, (0, 130, 200))).pauses == ()


def test_what_was_interrupted_shows_both_attempts() -> None:
    line = drawn(entry(0, (0, 0, 30), (0, 30.5, 60)))
    first, second = line.lanes[0].bars
    assert (first.role, first.text) == ("waiting", "trial 0, gone on with later, 30 s (2 attempts in all)")
    assert (second.role, second.text) == ("finished", "trial 0, finished, 30 s (2 attempts in all)")


def test_a_running_trial_reaches_to_the_last_sign_of_life_of_any() -> None:
    running = Entry(1, "running", "running", None, {}, (Attempt(None, T + 50, T + 55, open=True),), None)
    line = drawn(entry(0, (0, 0, 80)), running)
    assert [(bar.trial, bar.left, bar.width) for bar in line.lanes[1].bars] == [(1, 62.5, 37.5)]


def test_confirmation_runs_are_told_apart_and_name_their_trial_and_seed() -> None:
    again = entry(0, (0, 60, 90), confirms=7, seed=3)
    line = drawn(entry(7, (0, 0, 60)), again=(again,))
    assert [bar.role for bar in line.lanes[0].bars] == ["finished", "confirmation"]
    assert line.lanes[0].bars[1].text == "trial 7 again, under seed 3: finished, 30 s"
    assert line.lanes[0].bars[1].trial == 7


def test_without_any_times_there_is_no_timeline() -> None:
    assert timeline(StudyRecord("cats", (Objective("fid", False),), (entry(0),), (0,))) is None
