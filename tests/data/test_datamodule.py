import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from catsweep.data import datamodule
from catsweep.data.datamodule import CatDataModule, PreparedCats
from catsweep.data.operations import Brightness
from catsweep.data.ready import IMAGES, ReadySet, Row, write_metadata
from catsweep.data.sources import DemoCats, KaggleCats, Photos
from catsweep.errors import ConfigError, DataError
from catsweep.instantiation import instantiate


@pytest.fixture
def make(fake: Callable, tmp_path: Path) -> Callable[..., CatDataModule]:
    def make(n: int = 40, copies: int = 1, **options: Any) -> CatDataModule:
        settings = {"size": 8, "root": tmp_path / "ready", "batch_size": 8, "val_fraction": 0.25, **options}
        return CatDataModule(fake(n, copies=copies), **settings)

    return make


class Recorder(pl.LightningModule):
    """Keeps the batches it is trained on, by epoch; stops as if killed when told to."""

    def __init__(self, die_at: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, Tensor]] = []
        self.validated: list[Tensor] = []
        self.die_at = die_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if (self.current_epoch, batch_idx) == self.die_at:
            raise KeyError("killed")
        self.seen.append((self.current_epoch, batch_idx, batch.clone()))
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(batch.clone())
        self.log("score", float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A ready set of 12 photos of 8 pixels, two of them held out, with two copies of each of the others."""
    rows: list[Row] = []
    for photo in range(12):
        for copy in range(1 if photo % 6 == 0 else 3):
            split = "val" if photo % 6 == 0 else "train"
            rows.append(
                Row(len(rows), f"{photo}.jpg", f"{photo}", f"{photo}", split, True, "", 8, 8, "", "resize", copy)
            )
    folder = tmp_path / "prepared-8"
    folder.mkdir()
    draws = np.random.default_rng(0)
    np.save(folder / IMAGES, draws.integers(0, 256, (len(rows), 8, 8, 3), dtype=np.uint8))
    write_metadata(folder, rows, {"name": "prepared", "size": 8, "key": ""})
    return folder


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=4, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks), **options,
    )  # fmt: skip


def test_batches_are_uint8_and_held_out_images_stay_held_out(make: Callable) -> None:
    data = make()
    data.prepare_data()
    data.setup("fit")
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    assert [tuple(batch.shape) for batch in train] == [(8, 8, 8, 3)] * 3
    assert [tuple(batch.shape) for batch in val] == [(8, 8, 8, 3), (2, 8, 8, 3)]
    assert {batch.dtype for batch in train + val} == {torch.uint8}
    shown = {image.numpy().tobytes() for batch in train for image in (*batch, *batch.flip(2))}
    assert not shown & {image.numpy().tobytes() for batch in val for image in batch}
    assert torch.equal(torch.cat(val), torch.from_numpy(data.ready.images[data.ready.indices("val")]))


def test_the_run_s_seed_changes_the_order_and_never_the_data(make: Callable) -> None:
    one, other = make(seed=1), make(seed=2)
    assert one.ready.digest == other.ready.digest
    assert one.ready.path == other.ready.path
    assert not torch.equal(next(iter(one.train_dataloader())), next(iter(other.train_dataloader())))


def test_mirroring_can_be_switched_off(make: Callable) -> None:
    data = make(flip=False)
    stored = {image.tobytes() for image in data.ready.images}
    assert all(image.numpy().tobytes() in stored for batch in data.train_dataloader() for image in batch)


def test_a_batch_goes_to_a_gpu_by_way_of_pinned_memory(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    data, batch, moved = make(), torch.zeros(1, 2, 2, 3, dtype=torch.uint8), []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 1)
    monkeypatch.setattr(pl.LightningDataModule, "transfer_batch_to_device", lambda _, *words: moved.append(words))
    data.transfer_batch_to_device(batch, torch.device("cuda"), 0)
    assert [int(sent.sum()) for sent, *_ in moved] == [12]
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch  # it is there


@pytest.mark.parametrize(
    ("device", "bound", "augment", "expected"),
    [
        ("meta", 1 << 20, None, "meta"),
        ("cpu", 1 << 20, None, "memory"),
        ("meta", 100, None, "memory"),
        ("meta", 1 << 20, {"brightness": Brightness(0.2, (0.9, 1.1))}, "memory"),
    ],
    ids=["GPU", "processor", "too many", "augmented"],
)
def test_few_images_lie_on_the_gpu_that_trains(
    make: Callable, monkeypatch: pytest.MonkeyPatch, device: str, bound: int, augment: Any, expected: str
) -> None:
    monkeypatch.setattr(datamodule, "ON_GPU", bound)
    data = make(augment=augment)
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
    images = data.train_dataloader().images
    assert (images.device.type if isinstance(images, Tensor) else "memory") == expected


def test_with_few_images_the_batch_shrinks_and_says_so(make: Callable, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    loader = make(n=6, batch_size=64, val_fraction=0.2).train_dataloader()
    assert [len(batch) for batch in loader] == [5]
    assert "Batches of 5 instead of data.batch_size=64: there are 5 training images" in caplog.text


def test_a_ready_set_too_large_for_memory_stays_on_disk(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(make().train_dataloader())
    monkeypatch.setattr(datamodule, "IN_MEMORY", 100)
    assert all(torch.equal(a, b) for a, b in zip(expected, make().train_dataloader(), strict=True))


def test_copies_of_one_photo_are_too_little_to_hold_any_out(make: Callable) -> None:
    with pytest.raises(DataError, match=r"at least 2 different photos.*but 5 alike are left in fake photos"):
        make(n=5, copies=5).setup("fit")
    make(n=5, copies=5, val_fraction=0).setup("fit")
    with pytest.raises(DataError, match=r"but 1 is left in fake photos; add photos\.$"):
        make(n=1).setup("fit")


def test_each_process_gets_its_share(make: Callable) -> None:
    class Place:
        world_size = 2
        strategy = SimpleNamespace(root_device=torch.device("cpu"))

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

    shares = []
    for rank in range(2):
        data = make(batch_size=4)
        data.trainer = Place(rank)
        shares.append((list(data.train_dataloader()), list(data.val_dataloader())))
    together = [torch.cat(pair) for pair in zip(shares[0][0], shares[1][0], strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(together, make(batch_size=8).train_dataloader(), strict=True))
    assert sum(len(batch) for share in shares for batch in share[1]) == 10
    data = make(n=2, val_fraction=0.5)
    data.trainer = Place(0)
    with pytest.raises(DataError, match="one training image per process, got 1 for 2"):
        data.train_dataloader()


@pytest.mark.trains
def test_lightning_shows_every_epoch_in_its_own_order(make: Callable, tmp_path: Path) -> None:
    model, data = Recorder(), make()
    trainer(tmp_path).fit(model, data)
    expected = make().train_dataloader()
    for epoch in range(4):
        expected.set_epoch(epoch)
        shown = [batch for shown_epoch, _, batch in model.seen if shown_epoch == epoch]
        assert all(torch.equal(a, b) for a, b in zip(shown, expected, strict=True))
    assert len(model.validated) == 4 * 2


@pytest.mark.trains
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("die_at", "checkpoint"),
    [
        ((2, 0), {"save_on_train_epoch_end": True}),
        ((2, 1), {"save_on_train_epoch_end": True}),
        ((2, 1), {"save_on_train_epoch_end": False}),
        ((2, 1), {"monitor": "score", "mode": "max"}),
        ((2, 2), {"every_n_train_steps": 1}),
        ((1, 0), {"every_n_train_steps": 2}),
        ((1, 2), {"every_n_train_steps": 2}),
    ],
)
def test_a_run_that_is_killed_and_resumed_sees_what_the_undisturbed_run_saw(
    make: Callable, tmp_path: Path, die_at: tuple[int, int], checkpoint: dict[str, Any]
) -> None:
    undisturbed = Recorder()
    trainer(tmp_path).fit(undisturbed, make())
    first, second = Recorder(die_at), Recorder()

    def keep() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "checkpoints", "kept", enable_version_counter=False, **checkpoint)

    with pytest.raises(KeyError, match="killed"):
        trainer(tmp_path, keep()).fit(first, make())
    kept = tmp_path / "checkpoints" / "kept.ckpt"
    trainer(tmp_path, keep()).fit(second, make(), ckpt_path=kept, weights_only=True)
    epoch, step, _ = second.seen[0]
    places = [(e, s) for e, s, _ in undisturbed.seen]
    start = places.index((epoch, step))
    assert start <= places.index(die_at)
    assert [(e, s) for e, s, _ in second.seen] == places[start:]
    for (_, _, expected), (_, _, shown) in zip(undisturbed.seen[start:], second.seen, strict=True):
        assert torch.equal(expected, shown)


@pytest.mark.parametrize(("choice", "kind"), [("demo_cats", DemoCats), ("photos", Photos), ("kaggle_cats", KaggleCats)])
def test_each_choice_of_conf_data_is_a_data_module(root: Path, tmp_path: Path, choice: str, kind: type) -> None:
    cfg = OmegaConf.create({"seed": 5, "data": OmegaConf.load(root / "conf" / "data" / f"{choice}.yaml")})
    schema = f"/schema_data_{choice}@_here_"
    assert cfg.data.pop("defaults") == [{"augment": "none"}, schema, "_self_"]  # which Hydra composes
    cfg.data.root = str(tmp_path)
    if choice != "demo_cats":
        with pytest.raises(ConfigError, match=f"data={choice} needs a folder of photos: add data.source=DIR"):
            instantiate(cfg.data).prepare_data()
        cfg.data.source = str(tmp_path / "cats")
    data = instantiate(cfg.data)
    assert isinstance(data, CatDataModule)
    assert isinstance(data.reader, kind)
    assert (data.size, data.batch_size, data.val_fraction, data.flip, data.seed) == (64, 64, 0.1, True, 5)
    if isinstance(data.reader, Photos):
        assert data.reader.folder == data.source == str(tmp_path / "cats")


def test_drawn_cats_are_not_taken_for_the_photos_that_were_named(tmp_path: Path) -> None:
    data = CatDataModule(DemoCats(5), 16, tmp_path, source="my_cats")
    with pytest.raises(ConfigError, match=r"would not read data\.source=my_cats\. Add data=photos"):
        data.prepare_data()
    assert not list(tmp_path.iterdir())


def test_the_run_s_seed_does_not_reach_the_drawing(root: Path) -> None:
    cfg: Any = OmegaConf.load(root / "conf" / "data" / "demo_cats.yaml")
    del cfg["defaults"]
    keys = [instantiate(OmegaConf.create({"seed": seed, "data": cfg}).data).reader.key(64) for seed in (1, 2)]
    assert keys[0] == keys[1]
    assert keys[0]["n"] == 1500


def test_a_prepared_set_is_opened_as_it_is(prepared: Path) -> None:
    data = PreparedCats(str(prepared), size=8, batch_size=8)
    data.prepare_data()
    data.setup("fit")
    assert data.ready.path == prepared
    assert data.ready.digest == ReadySet.open(prepared).digest
    train, val = torch.cat(list(data.train_dataloader())), torch.cat(list(data.val_dataloader()))
    assert len(train) == 24  # of 30, in batches of 8
    np.testing.assert_array_equal(val, data.ready.images[[0, 16]])  # held-out photos, as they are
    assert not {image.numpy().tobytes() for image in (*train, *train.flip(2))} & {i.numpy().tobytes() for i in val}


def test_a_prepared_set_that_cannot_be_used_is_refused_with_the_remedy(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data=ready needs a ready set: add data.source=data/ready/NAME-64"):
        _ = PreparedCats(None).ready
    with pytest.raises(ConfigError, match=r"data.size=64 pixels, but those in .* have 8: set data.size=8, or"):
        _ = PreparedCats(str(prepared)).ready
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"Check data.source; python src/prepare.py") as refusal:
        _ = PreparedCats(str(tmp_path / "photos")).ready
    assert "Delete" not in str(refusal.value)  # it may be the photos themselves


def test_images_are_augmented_in_memory_if_asked(make: Callable, prepared: Path) -> None:
    dim = {"dim": Brightness(1.0, [0.5, 0.5])}
    for plain, changed in (
        (make(), make(augment=dim)),
        (PreparedCats(str(prepared), 8, 8), PreparedCats(str(prepared), 8, 8, augment=dim)),
    ):
        curve = np.rint(255 * (np.arange(256) / 255) ** 2).astype(np.uint8)
        for was, now in zip(plain.train_dataloader(), changed.train_dataloader(), strict=True):
            np.testing.assert_array_equal(now, curve[was])
        assert all(torch.equal(a, b) for a, b in zip(plain.val_dataloader(), changed.val_dataloader(), strict=True))


@pytest.mark.parametrize("data", ["photos", "ready"])
def test_augmentation_is_a_choice_of_its_own(root: Path, data: str) -> None:
    with initialize_config_dir(str(root / "conf")):
        usual = hydra.compose("train", [f"data={data}"])
        mild = hydra.compose("train", [f"data={data}", "data/augment=mild", "data.augment.contrast.probability=0"])
    assert instantiate(usual.data).augment == {}
    assert list(instantiate(mild.data).augment) == ["bright_dim", "bright_light", "saturation", "crop_random"]


def test_a_set_with_few_photos_says_so_once(make: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    data = make(n=132)  # of which 99 are trained on
    data.prepare_data()
    data.prepare_data()
    [record] = caplog.records
    assert record.getMessage().startswith("Training on only 99 photos: ")
    caplog.clear()
    make(n=134, root=tmp_path / "enough").prepare_data()
    assert caplog.text == ""


def test_a_prepared_set_with_few_photos_says_so(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    PreparedCats(str(prepared), 8).prepare_data()
    assert "Training on only" in caplog.text
    assert str(prepared / "manifest.csv") in caplog.text
