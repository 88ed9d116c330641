from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from catsweep.data.datamodule import OrderedBatches, TrainBatches, augment, chances, gather, plan
from catsweep.data.operations import Brightness, Contrast, Crop, Flip, Nothing, Operation
from catsweep.errors import DataError

OPERATIONS: dict[str, Operation] = {
    "dim": Brightness(0.5, [0.6, 0.9]),
    "contrast": Contrast(0.5, [0.8, 1.2]),
    "crop": Crop(0.5, [0.5, 0.9]),
}


def marked(n: int, side: int = 4) -> NDArray[np.uint8]:
    """Images that say which they are (first channel) and which way round (second, third)."""
    images = np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    images[..., 0] = np.arange(n, dtype=np.uint8)[:, None, None]
    return images


def numbers(batches: TrainBatches | OrderedBatches) -> list[int]:
    return [int(number) for batch in batches for number in batch[:, 0, 0, 0]]


@given(n=st.integers(1, 200), batch=st.integers(1, 32), seed=st.integers(0, 2**40), epoch=st.integers(0, 5000))
def test_an_epoch_is_a_permutation_without_the_tail(n: int, batch: int, seed: int, epoch: int) -> None:
    rows = np.arange(n)[:: max(n // 100, 1)]
    batch = min(batch, len(rows))
    loader = TrainBatches(marked(n), rows, batch, seed)
    loader.set_epoch(epoch)
    seen = numbers(loader)
    assert len(seen) == len(set(seen)) == len(rows) // batch * batch == len(loader) * batch
    assert set(seen) <= set(rows.tolist())
    assert {len(part) for part in loader} == {batch}


@given(n=st.integers(1, 40), side=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
def test_chosen_rows_are_mirrored_exactly_and_the_others_left_alone(
    n: int, side: int, seed: int, data: st.DataObject
) -> None:
    images = marked(n, side)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=50)))
    mirrored = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    before = images.copy()
    batch = gather(images, rows, mirrored)
    assert batch.dtype == torch.uint8
    expected = np.where(mirrored[:, None, None, None], images[rows][:, :, ::-1], images[rows])
    np.testing.assert_array_equal(batch.numpy(), expected)
    np.testing.assert_array_equal(images, before)


def test_a_batch_is_its_own_memory() -> None:
    images = marked(8)
    before = images.copy()
    on_device = TrainBatches(torch.from_numpy(images), np.arange(8), 4)
    for batch in [*TrainBatches(images, np.arange(8), 4), *on_device, *OrderedBatches(images, np.arange(8), 4)]:
        batch.zero_()
    np.testing.assert_array_equal(images, before)


@given(seed=st.integers(0, 9), flip=st.booleans(), world=st.integers(1, 2), stopped=st.integers(0, 2))
def test_images_on_the_device_make_the_batches_that_those_in_memory_do(
    seed: int, flip: bool, world: int, stopped: int
) -> None:
    images = marked(20, 3)
    both = [
        TrainBatches(pixels, np.arange(20), 4, seed, flip, 0, world) for pixels in (images, torch.from_numpy(images))
    ]
    for loader in both:
        loader.load_state_dict({"epoch": 3, "step": stopped})
    here, there = map(list, both)
    assert len(here) == 5 // world - stopped
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))
    assert [loader.state_dict() for loader in both] == [{"epoch": 3, "step": 5 // world}] * 2


def test_half_of_the_images_are_mirrored_unless_told_otherwise() -> None:
    order, mirrored = plan(np.arange(10_000), 0, 0, True)
    assert mirrored.mean() == pytest.approx(0.5, abs=0.02)
    unmirrored_order, none = plan(np.arange(10_000), 0, 0, False)
    assert not none.any()
    np.testing.assert_array_equal(order, unmirrored_order)


def test_order_and_mirroring_change_with_seed_and_epoch_and_with_nothing_else() -> None:
    rows = np.arange(64)
    order, mirrored = plan(rows, 3, 5, True)
    again = plan(rows, 3, 5, True)
    np.testing.assert_array_equal(order, again[0])
    np.testing.assert_array_equal(mirrored, again[1])
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        other = plan(rows, seed, epoch, True)
        assert (other[0] != order).any()
        assert (other[1] != mirrored).any()
    assert rows.tolist() == list(range(64))


def everything(loader: TrainBatches, epochs: range) -> list[torch.Tensor]:
    seen = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        seen += list(loader)
    return seen


@given(stop=st.integers(0, 4))
def test_a_new_loader_goes_on_where_the_old_one_stopped(stop: int) -> None:
    def loader() -> TrainBatches:
        return TrainBatches(marked(50), np.arange(50), 8, seed=1)

    undisturbed = everything(loader(), range(5))
    resumed = everything(loader(), range(stop)) + everything(loader(), range(stop, 5))
    assert all(torch.equal(a, b) for a, b in zip(undisturbed, resumed, strict=True))


@given(epoch=st.integers(0, 3), steps=st.integers(0, 6))
def test_inside_an_epoch_the_rest_follows(epoch: int, steps: int) -> None:
    first, second = (TrainBatches(marked(50), np.arange(50), 8, seed=1) for _ in range(2))
    first.set_epoch(epoch)
    iterator = iter(first)
    for _ in range(steps):
        next(iterator)
    second.load_state_dict(first.state_dict())
    second.set_epoch(epoch)  # as Lightning does, and it must not begin anew
    rest, continued = list(iterator), list(second)
    assert len(rest) == 6 - steps
    assert all(torch.equal(a, b) for a, b in zip(rest, continued, strict=True))
    assert len(list(second)) == 6  # only the first time


def test_an_iterator_asked_for_before_the_epoch_is_announced_is_of_that_epoch() -> None:
    loader, other = (TrainBatches(marked(50), np.arange(50), 8) for _ in range(2))
    iterator = iter(loader)
    loader.sampler.set_epoch(7)
    other.set_epoch(7)
    assert all(torch.equal(a, b) for a, b in zip(iterator, other, strict=True))


@given(n=st.integers(4, 100), world=st.integers(1, 4))
def test_processes_share_an_epoch_and_together_see_what_one_would(n: int, world: int) -> None:
    size = max(min(12, n) // world, 1)
    loaders = [TrainBatches(marked(n), np.arange(n), size, 0, True, rank, world) for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    together = [torch.cat(parts) for parts in zip(*loaders, strict=True)]
    alone = list(TrainBatches(marked(n), np.arange(n), size * world))
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_too_few_images_for_a_batch_are_refused() -> None:
    with pytest.raises(DataError, match=r"at least 8 training images .* got 7; set a smaller data\.batch_size"):
        TrainBatches(marked(7), np.arange(7), 4, world_size=2)


@given(n=st.integers(0, 60), batch=st.integers(1, 20), world=st.integers(1, 4))
def test_held_out_images_come_once_each_in_order_as_they_are(n: int, batch: int, world: int) -> None:
    images = marked(60)
    rows = np.arange(60)[60 - n :]
    shares = [OrderedBatches(images, rows, batch, rank, world) for rank in range(world)]
    for share in shares:
        parts = list(share)
        assert len(parts) == len(share)
        if parts:
            np.testing.assert_array_equal(torch.cat(parts), images[share.rows])
    assert sorted(number for share in shares for number in numbers(share)) == rows.tolist()


def test_memory_mapped_images_do_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("mapped") / "images.npy"
    np.save(file, marked(20))
    mapped = np.load(file, mmap_mode="r")
    for one, other in ((marked(20), mapped),):
        a, b = (list(TrainBatches(images, np.arange(20), 6)) for images in (one, other))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert torch.equal(next(iter(OrderedBatches(mapped, np.arange(20), 6))), torch.from_numpy(marked(20)[:6]))


@pytest.mark.parametrize("make", [lambda: OrderedBatches(marked(4), np.arange(4), 2)])
def test_loaders_can_be_gone_through_again(make: Callable[[], OrderedBatches]) -> None:
    loader = make()
    assert numbers(loader) == numbers(loader) == [0, 1, 2, 3]


def augmented(seed: int = 1, **changes: object) -> TrainBatches:
    settings = {"batch_size": 8, "seed": seed, "operations": OPERATIONS, **changes}
    return TrainBatches(marked(50, 8), np.arange(50), **settings)  # type: ignore[arg-type]


def test_augmentation_changes_images_and_neither_their_order_nor_those_stored() -> None:
    images = marked(50, 8)
    before = images.copy()
    dimmed = {"dim": Brightness(1.0, [0.9, 0.9])}
    plain = TrainBatches(images, np.arange(50), 8, 1)
    dim = TrainBatches(images, np.arange(50), 8, 1, operations=dimmed)
    curve = np.rint(255 * (np.arange(256) / 255) ** (1 - np.log2(0.9))).astype(np.uint8)
    for was, now in zip(plain, dim, strict=True):
        assert (now.dtype, now.shape) == (torch.uint8, was.shape)
        np.testing.assert_array_equal(now, curve[was])
    np.testing.assert_array_equal(images, before)
    assert not torch.equal(next(iter(augmented())), next(iter(plain)))


@given(stop=st.integers(0, 4))
def test_a_new_loader_augments_as_the_old_one_would_have(stop: int) -> None:
    undisturbed = everything(augmented(), range(5))
    resumed = everything(augmented(), range(stop)) + everything(augmented(), range(stop, 5))
    assert all(torch.equal(a, b) for a, b in zip(undisturbed, resumed, strict=True))


@given(epoch=st.integers(0, 3), steps=st.integers(0, 6))
def test_inside_an_epoch_the_rest_is_augmented_the_same(epoch: int, steps: int) -> None:
    first, second = augmented(), augmented()
    first.set_epoch(epoch)
    iterator = iter(first)
    for _ in range(steps):
        next(iterator)
    second.load_state_dict(first.state_dict())
    second.set_epoch(epoch)
    assert all(torch.equal(a, b) for a, b in zip(iterator, second, strict=True))


def test_augmentation_changes_with_seed_and_epoch() -> None:
    first = {chances(3, *place, 2).tobytes() for place in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(first) == 4
    np.testing.assert_array_equal(chances(3, 4, 5, 2), chances(3, 4, 5, 2))
    assert chances(3, 4, 5, 2).shape[:2] == (3, 2)


@given(world=st.integers(1, 4))
def test_processes_together_augment_what_one_would(world: int) -> None:
    loaders = [augmented(batch_size=3, rank=rank, world_size=world) for rank in range(world)]
    together = [torch.cat(parts) for parts in zip(*loaders, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(together, augmented(batch_size=3 * world), strict=True))


def test_what_never_happens_costs_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = list(TrainBatches(marked(50, 8), np.arange(50), 8, 1))
    monkeypatch.setattr("catsweep.data.datamodule.augment", lambda *_: pytest.fail("augmented"))
    unchanged = augmented(operations={"flip": Flip(0.0)})
    assert all(torch.equal(a, b) for a, b in zip(plain, unchanged, strict=True))


def test_an_augmented_batch_is_a_new_one() -> None:
    batch = torch.from_numpy(marked(8, 8))
    before = batch.clone()
    changed = augment(batch, {"none": Nothing(1.0)}, chances(8, 0, 0, 1))
    assert torch.equal(changed, before)
    changed.zero_()
    assert torch.equal(batch, before)
