from catsweep.report.failures import failures, first_line
from catsweep.report.record import Entry, Record
from catsweep.selection import Objective


def failed(number: int, state: str, message: str, traceback: str = "", **more: int) -> Entry:
    return Entry(number, state, "failed", None, {}, (), None, message, traceback, **more)


def test_failures_that_are_the_same_are_told_of_once_with_one_traceback() -> None:
    trials = (
        failed(1, "failed", "ValueError: no\nmore of it"),
        failed(2, "out of memory", "MemoryError"),
        failed(4, "failed", "ValueError: no", "first traceback"),
        failed(5, "failed", "ValueError: no", "second traceback"),
        Entry(6, "pruned", "pruned", None, {}, (), None, "given up"),
    )
    again = (failed(0, "failed", "", confirms=3, seed=8),)
    found = failures(Record("cats", (Objective("fid", False),), trials, (), again))
    assert [(f.kind, f.message, f.trials, f.traceback) for f in found] == [
        ("failed", "ValueError: no", ("1", "4", "5"), "first traceback"),
        ("failed", "no message", ("3 under seed 8",), ""),
        ("out of memory", "MemoryError", ("2",), ""),
    ]


def test_no_text_has_no_first_line() -> None:
    assert [first_line(""), first_line("a\nb")] == ["", "a"]
