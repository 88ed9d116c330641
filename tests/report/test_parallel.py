from tests.report.studies import SPACE, params_of

from catsweep.report.parallel import parallel, path, short
from catsweep.report.record import Entry, Record
from catsweep.selection import Objective

NAMES = list(SPACE)


def record(*trials: Entry) -> Record:
    objectives = (Objective("val/fid", False), Objective("val/ssim", True))
    cards = {"val/fid": {"extractor": "efficientnet_lite0"}}
    return Record("cats", objectives, trials, (), distributions=SPACE, cards=cards)


def entry(number: int, values: tuple[float, ...] | None, role: str = "finished") -> Entry:
    return Entry(number, role, role, values, params_of(number), (), None)


def test_pruned_trials_are_there_and_end_before_the_scores() -> None:
    chart = parallel(record(entry(0, (2.0, 0.1)), entry(1, None, "pruned"), entry(2, (1.0, 0.2))), NAMES, [2], 2)
    assert chart is not None
    scores = [(rail.name, rail.detail, rail.way) for rail in chart.rails if rail.score]
    assert scores == [("val/fid", "efficientnet_lite0", "↓"), ("val/ssim", "", "↑")]
    by_number = {thread.trial: thread for thread in chart.threads}
    assert by_number[1].role == "pruned"
    assert by_number[1].places[-2:] == (None, None)
    assert None not in by_number[0].places[-2:]
    assert [by_number[n].shade for n in (2, 0)] == [0.0, 1.0]
    assert chart.threads[-1].trial == 2  # the winner lies on top


def test_a_parameter_that_a_trial_did_not_have_leaves_a_gap() -> None:
    chart = parallel(record(entry(0, (2.0, 0.1)), entry(1, (1.0, 0.1))), NAMES, [], None)
    assert chart is not None
    adam = next(thread for thread in chart.threads if thread.trial == 0)
    assert adam.places[NAMES.index("optimizer.momentum")] is None
    assert path(adam, 100, 300, lying=False).count("M") == 2


def test_before_the_first_score_only_parameters_are_drawn() -> None:
    chart = parallel(record(entry(1, None, "pruned")), NAMES, [], None)
    assert chart is not None
    assert [rail.score for rail in chart.rails] == [False] * len(NAMES)


def test_nothing_to_see_is_none() -> None:
    assert parallel(record(), NAMES, [], None) is None
    assert parallel(record(entry(0, None, "waiting")), NAMES, [], None) is None
    assert parallel(record(entry(0, None, "pruned")), NAMES[:1], [], None) is None


def test_a_name_is_short_where_that_is_clear() -> None:
    assert short("optimizer.lr", ["optimizer.lr", "model.beta"]) == "lr"
    assert short("a.lr", ["a.lr", "b.lr"]) == "a.lr"


def test_rails_stand_or_lie() -> None:
    chart = parallel(record(entry(1, (1.0, 0.1))), ["optimizer", "model.aggregate_prior"], [], None)
    assert chart is not None
    [thread] = chart.threads
    # sgd is the second of two choices, true the first of two; single scores lie in the middle.
    assert path(thread, 10, 100, lying=False) == "M0.0 25.0L10.0 75.0L20.0 50.0L30.0 50.0"
    assert path(thread, 10, 100, lying=True) == "M75.0 0.0L25.0 10.0L50.0 20.0L50.0 30.0"
