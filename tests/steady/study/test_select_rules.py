"""Rules of choosing among the Pareto set: an objective, the knee, a number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steady.exceptions import ConfigError, StudyError
from steady.study.select import Objective, ScoredTrial, choose, knee

FID = Objective("val/fid", maximise=False)
SSIM = Objective("val/ssim", maximise=True)
SSIM_GAP = Objective("val/ssim_gap", maximise=False)
VAE = (FID, SSIM)

# Few distinct values, so that ties and duplicates are common; and any, so that they are not the rule.
VALUES = st.integers(0, 4).map(float) | st.floats(-1e6, 1e6, allow_subnormal=False)


def candidates(dimensions: int = 2) -> st.SearchStrategy[list[ScoredTrial]]:
    values = st.lists(st.tuples(*[VALUES] * dimensions), min_size=1, max_size=12)
    return values.map(lambda rows: [ScoredTrial(number, row) for number, row in enumerate(rows)])


def dominates(a: ScoredTrial, b: ScoredTrial, objectives: tuple[Objective, ...]) -> bool:
    pairs = list(zip(a.losses(objectives), b.losses(objectives), strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def pareto_set(trials: list[ScoredTrial], objectives: tuple[Objective, ...]) -> list[ScoredTrial]:
    return [c for c in trials if not any(dominates(other, c, objectives) for other in trials)]


@given(candidates(), st.sampled_from(["fid", "ssim", "knee"]), st.randoms())
def test_choice_is_pareto_optimal_and_does_not_depend_on_the_order(trials, select, random) -> None:
    front = pareto_set(trials, VAE)
    chosen = choose(select, front, trials, VAE).candidate
    assert not any(dominates(other, chosen, VAE) for other in trials)
    random.shuffle(front)
    random.shuffle(trials)
    assert choose(select, front, trials, VAE).candidate == chosen


@given(candidates(3))
def test_each_objective_is_served_best_by_its_own_rule(trials) -> None:
    objectives = (FID, SSIM, Objective("val/kid", maximise=False))
    front = pareto_set(trials, objectives)
    for axis, word in enumerate(["fid", "ssim", "kid"]):
        chosen = choose(word, front, trials, objectives).candidate
        assert chosen.losses(objectives)[axis] == min(c.losses(objectives)[axis] for c in trials)


@given(candidates(), st.sampled_from([0.25, 2.0, 1024.0]), st.sampled_from([0.25, 2.0, 1024.0]))
def test_knee_does_not_depend_on_units(trials, fid_unit, ssim_unit) -> None:
    front = pareto_set(trials, VAE)
    rescaled = [ScoredTrial(c.number, (c.values[0] * fid_unit, c.values[1] * ssim_unit)) for c in front]
    assert knee(rescaled, VAE).number == knee(front, VAE).number


@given(candidates())
def test_knee_is_the_point_farthest_from_the_line_between_the_extremes(trials) -> None:
    front = pareto_set(trials, VAE)
    points = {c: c.losses(VAE) for c in front}
    (x0, y0), (x1, y1) = min(points.values()), max(points.values())
    if len(front) < 3 or x0 == x1:
        return

    def towards_ideal(point: tuple[float, ...]) -> float:
        x, y = (point[0] - x0) / (x1 - x0), (point[1] - y1) / (y0 - y1)
        return (1 - x - y) / math.sqrt(2)  # of the line through (0, 1) and (1, 0), positive on the side of (0, 0)

    assert towards_ideal(points[knee(front, VAE)]) == pytest.approx(max(map(towards_ideal, points.values())), abs=1e-9)


def test_knee_of_a_known_curve() -> None:
    front = [ScoredTrial(i, (x, y)) for i, (x, y) in enumerate([(10, 0.90), (12, 0.5), (20, 0.4), (60, 0.38)])]
    assert knee(front, (FID, SSIM_GAP)).number == 2


@pytest.mark.parametrize(
    "values",
    [
        [(10.0, 0.9)],
        [(10.0, 0.1), (20.0, 0.9)],  # two: both are extremes
        [(10.0, 0.1), (15.0, 0.5), (20.0, 0.9)],  # on one line
        [(10.0, 0.1), (19.0, 0.2), (20.0, 0.9)],  # bulging away from the ideal
    ],
    ids=["one", "two", "line", "concave"],
)
def test_without_a_knee_the_first_objective_decides(values) -> None:
    assert knee([ScoredTrial(i, v) for i, v in enumerate(values)], VAE).number == 0


def test_second_objective_of_a_dcgan_is_found_by_the_same_word_and_minimised() -> None:
    trials = [ScoredTrial(3, (50.0, 0.30)), ScoredTrial(5, (60.0, 0.01))]
    choice = choose("ssim", trials, trials, (FID, SSIM_GAP))
    assert choice.candidate.number == 5
    assert choice.reason == "the lowest val/ssim_gap"


def test_last_part_of_a_name_wins_over_a_piece_of_another() -> None:
    trials = [ScoredTrial(0, (0.9, 0.30)), ScoredTrial(1, (0.1, 0.01))]
    assert choose("ssim", trials, trials, (SSIM, SSIM_GAP)).candidate.number == 0
    assert choose("val/ssim_gap", trials, trials, (SSIM, SSIM_GAP)).candidate.number == 1


@pytest.mark.parametrize("select", [7, "7", " 7 "])
def test_any_finished_trial_can_be_asked_for_by_number(select) -> None:
    best, worse = ScoredTrial(2, (10.0, 0.9)), ScoredTrial(7, (20.0, 0.8))
    choice = choose(select, [best], [best, worse], VAE)
    assert choice.candidate == worse
    assert "not Pareto-optimal" in choice.reason
    assert "Pareto" not in choose(2, [best], [best, worse], VAE).reason


def test_unknown_number_names_the_finished_ones() -> None:
    trials = [ScoredTrial(9, (10.0, 0.9)), ScoredTrial(2, (9.0, 0.9))]
    with pytest.raises(StudyError, match=r"no finished trial of that number. Finished are: 2, 9"):
        choose(4, trials, trials, VAE)


@pytest.mark.parametrize("select", ["sharpness", "", "-1", "1.5", "None"])
def test_word_that_is_no_rule_names_the_choices(select) -> None:
    trials = [ScoredTrial(0, (10.0, 0.9))]
    with pytest.raises(ConfigError, match=r"val/fid, val/ssim\), 'knee', or the number"):
        choose(select, trials, trials, VAE)


def test_word_that_fits_several_objectives_is_refused() -> None:
    trials = [ScoredTrial(0, (10.0, 0.9))]
    with pytest.raises(ConfigError, match="fits several"):
        choose("val", trials, trials, VAE)


def test_a_trial_beyond_a_bound_is_chosen_by_its_number_only_and_that_is_said() -> None:
    front, beyond = ScoredTrial(0, (3.0,)), ScoredTrial(1, (1.0,), ("size <= 10 (it has 20)",))
    loss = [Objective("loss", maximise=False)]
    assert choose("loss", [front], [front, beyond], loss).candidate is front
    assert choose(1, [front], [front, beyond], loss).reason == (
        "asked for by its number, although it violates size <= 10 (it has 20)"
    )
