import threading
import time

import cv2
import pytest

from catsweep.data.threads import in_order, watched


def test_results_come_in_the_order_of_the_tasks() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.01 if number % 7 == 0 else 0)
        return number * number

    assert list(in_order(slow_at_first, range(100))) == [number * number for number in range(100)]


def test_few_results_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    tasks = iter(range(1000))
    next(in_order(lambda number: number, tasks))
    assert next(tasks) < 20


def test_an_error_of_the_work_is_raised_and_opencv_gets_its_threads_back() -> None:
    before = cv2.getNumThreads()

    def work(number: int) -> int:
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(100)))
    assert cv2.getNumThreads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_watching_changes_nothing_and_is_silent_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(watched(iter("abc"), 3, "title")) == ["a", "b", "c"]
    assert capfd.readouterr().err == ""
