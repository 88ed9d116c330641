from hypothesis import given
from hypothesis import strategies as st

from catsweep.data.ready import TRAIN, VAL, split

labels = st.lists(st.integers(0, 60).map(str), min_size=1, max_size=120)
fractions = st.floats(0, 0.95)


@given(groups=labels, fraction=fractions)
def test_no_group_is_divided(groups: list[str], fraction: float) -> None:
    splits = split(groups, fraction)
    assert len(splits) == len(groups)
    assert not {g for g, s in zip(groups, splits, strict=True) if s == TRAIN} & {
        g for g, s in zip(groups, splits, strict=True) if s == VAL
    }


@given(groups=labels, fraction=fractions, data=st.data())
def test_the_order_does_not_matter(groups: list[str], fraction: float, data: st.DataObject) -> None:
    before = dict(zip(groups, split(groups, fraction), strict=True))
    shuffled = data.draw(st.permutations(groups))
    assert dict(zip(shuffled, split(shuffled, fraction), strict=True)) == before


@given(groups=st.lists(st.text(), min_size=2, max_size=200, unique=True), fraction=fractions)
def test_of_different_photos_exactly_the_fraction_is_held_out(groups: list[str], fraction: float) -> None:
    held = split(groups, fraction).count(VAL)
    wanted = round(fraction * len(groups))
    if fraction == 0:
        assert held == 0
    else:
        assert held == min(max(wanted, 1), len(groups) - 1)


@given(groups=labels, fraction=st.floats(0.001, 0.95))
def test_with_two_groups_neither_split_is_empty(groups: list[str], fraction: float) -> None:
    splits = split(groups, fraction)
    assert TRAIN in splits
    assert (VAL in splits) == (len(set(groups)) > 1)


@given(sizes=st.lists(st.integers(1, 5), min_size=10, max_size=60), fraction=st.floats(0.2, 0.5))
def test_copies_do_not_carry_the_fraction_far_off(sizes: list[int], fraction: float) -> None:
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    held = split(groups, fraction).count(VAL)
    assert round(fraction * len(groups)) - 5 < held <= round(fraction * len(groups))


def test_a_photo_more_moves_few_others() -> None:
    groups = [str(number) for number in range(1000)]
    before, after = split(groups, 0.1), split([*groups, "new"], 0.1)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 2
