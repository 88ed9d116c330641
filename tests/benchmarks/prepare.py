"""Photos per second of each stage of the preparation; and 1,000 photos to 75,000 images, against a plain Pillow loop.

    python tests/benchmarks/prepare.py

Prints tables in Markdown. Of the search for faces it also says how many are right, by their landmarks, and what one
costs. The photos are the first 1,000 of ../shared/photos/cats with their landmarks, or as many demo cats where those
are absent. The Pillow loop is what one writes first: open the photo, change a copy of it, shrink it, 75 times; it
runs on a few of the same photos, on one core, and nothing is added for writing what it makes.
"""

import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hydra import compose, initialize_config_dir
from PIL import Image, ImageEnhance

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from tests.decoded import decode

from catsweep.data.datamodule import TrainBatches
from catsweep.data.operations import Operation
from catsweep.instantiation import instantiate
from catsweep.prepare import faces, pipeline
from catsweep.synthetic.renderer import render

ROOT = Path(__file__).resolve().parents[2]
PHOTOS, COPIES, SIZE = 1000, 75, 64
LOOPED = 4  # photos that the Pillow loop works on
SEARCHED = 190  # photos in which faces are looked for, at most; constants were fitted to others
SOME = 60  # photos for what takes long: cutting out, and looking for faces without landmarks
PARTS = ("publish", "report.write", "table.write_table")  # of the pipeline, besides its stages


def photographs(folder: Path) -> Path:
    """The photos with their landmarks, as files of their own."""
    cats = ROOT.parent / "shared" / "photos" / "cats"
    if cats.is_dir():
        for photo in sorted(cats.glob("*.jpg"))[:PHOTOS]:
            for name in (photo.name, f"{photo.name}.cat"):
                (folder / name).write_bytes((cats / name).read_bytes())
        return folder
    drawn = render(PHOTOS, 360, seed=0)
    for number, (image, points) in enumerate(zip(drawn.images, drawn.landmarks, strict=True)):
        Image.fromarray(image).save(folder / f"{number:04d}.jpg", quality=92)
        words = [9, *points.round().astype(int).ravel().tolist()]
        (folder / f"{number:04d}.jpg.cat").write_text(" ".join(map(str, words)))
    return folder


@contextmanager
def timed(took: dict[str, tuple[float, int]]) -> Iterator[None]:
    """Note seconds, and images that came out, of all that the pipeline does."""
    kept: list[tuple[Any, str, Any]] = []

    def watch(owner: Any, name: str, label: Callable[..., str], count: Callable[[Any], int]) -> None:
        work = getattr(owner, name)

        def watched(*words: Any) -> Any:
            start = time.perf_counter()
            made = work(*words)
            took[label(*words)] = (time.perf_counter() - start, count(made))
            return made

        kept.append((owner, name, work))
        setattr(owner, name, watched)

    watch(pipeline, "build", lambda what, *_: what.name, lambda done: len(done.kept))
    for part in PARTS:
        *module, name = part.split(".")
        watch(getattr(pipeline, module[0]) if module else pipeline, name, lambda *_, part=part: part, lambda _: 0)
    try:
        yield
    finally:
        for owner, name, work in kept:
            setattr(owner, name, work)


def prepare(source: Path, root: Path, *words: str) -> tuple[float, dict[str, tuple[float, int]]]:
    """The whole way, from photos to the ready set; seconds in all, and of each part."""
    words = (f"data.source={source}", f"root={root}", f"size={SIZE}", "val_fraction=0", *words)
    keep_all = ["zoom.max_enlarged=99", "zoom.min_inside=0"]  # nobody looks at the doubtful here
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("prepare", ["data=kaggle_cats", *words, *keep_all])
    took: dict[str, tuple[float, int]] = {}
    start = time.perf_counter()
    with timed(took):
        pipeline.run(cfg)
    return time.perf_counter() - start, took


def searched(photos: list[Path]) -> tuple[float, float, float]:
    """Share of photos in which the face is found where it is, and elsewhere; CPU milliseconds for one, on one thread.

    Right: the middle between the eyes within half their distance, and that distance within a factor of 1.5.
    """
    cv2.setNumThreads(1)
    right, wrong, seconds = 0, 0, 0.0
    for photo in photos:
        words = photo.with_name(f"{photo.name}.cat").read_text().split()
        eyes = np.array(words[1:5], float).reshape(2, 2) + 0.5
        image = decode(photo)
        start = time.thread_time()
        face = faces.find(image)
        seconds += time.thread_time() - start
        if face is None:
            continue
        apart, found = np.hypot(*(eyes[1] - eyes[0])), np.hypot(*(face.eyes[1] - face.eyes[0]))
        near = np.hypot(*(face.eyes.mean(0) - eyes.mean(0))) < apart / 2
        good = bool(near and 1 / 1.5 < found / apart < 1.5)
        right, wrong = right + good, wrong + (not good)
    return right / len(photos), wrong / len(photos), 1000 * seconds / len(photos)


def pillow(photos: list[Path]) -> float:
    """Images per second of the plain loop: flip, brightness, contrast, colour and crop, all from the whole photo."""
    draws = random.Random(0)
    start = time.perf_counter()
    made = []
    for photo in photos:
        for _ in range(COPIES):
            with Image.open(photo) as file:
                image = file.convert("RGB")
            for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = kind(image).enhance(draws.uniform(0.8, 1.2))
            side = round(min(image.size) * draws.uniform(0.85, 1))
            left, top = (draws.randint(0, length - side) for length in image.size)
            image = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
            if draws.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            made.append(np.asarray(image))
    return len(made) / (time.perf_counter() - start)


def in_memory(operations: dict[str, Operation] | None, seconds: float = 2.0) -> float:
    """Images per second of training batches."""
    images = render(512, SIZE, seed=0).images
    batches = TrainBatches(images, np.arange(len(images)), 64, operations=operations)
    shown, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        batches.set_epoch(batches.epoch + 1)
        shown += sum(len(batch) for batch in batches)
    return shown / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as root:
        source = photographs(Path(folder))
        right, wrong, cost = searched(sorted(source.glob("*.jpg"))[4::9][:SEARCHED])
        everything, took = prepare(source, Path(root), f"augment.copies={COPIES}")
        for photo in sorted(source.glob("*.jpg"))[SOME:]:
            photo.unlink()
        _, slow = prepare(source, Path(root), "background=remove", "zoom.landmarks=false", "name=some")
        plain = pillow(sorted(source.glob("*.jpg"))[:LOOPED])
    made = took["augment"][1]
    print(f"| {PHOTOS:,} photos to {made:,} images of {SIZE} x {SIZE} | seconds | photos/s | images/s |")
    print("| --- | ---: | ---: | ---: |")
    for name, (seconds, images) in took.items():
        many = f"{images / seconds:,.0f}" if images > PHOTOS else ""
        print(f"| {name} | {seconds:.1f} | {PHOTOS / seconds:,.0f} | {many} |")
    print(f"| **all** | {everything:.1f} | {PHOTOS / everything:,.0f} | {made / everything:,.0f} |")
    for name, words in ("background", "background, GrabCut"), ("zoom", "zoom, without landmarks"):
        seconds, images = slow[name]
        print(f"| {words} ({images} photos) | {seconds:.1f} | {images / seconds:,.1f} | |")
    print(f"| Pillow, a plain loop ({LOOPED} photos) | {made / plain:,.0f} | {plain / COPIES:.1f} | {plain:.0f} |")
    print("\n| search for faces | right | wrong | CPU ms a photo |\n| --- | ---: | ---: | ---: |")
    print(f"| cascades | {right:.1%} | {wrong:.1%} | {cost:.0f} |")
    with initialize_config_dir(str(ROOT / "conf")):
        mild = instantiate(compose("train", ["data/augment=mild"]).data.augment)
    print(
        f"\n| training batches of 64 x 64 in memory | images/s |\n| --- | ---: |\n| mirrored | {in_memory(None):,.0f} |"
    )
    print(f"| data/augment=mild | {in_memory(mild):,.0f} |")


if __name__ == "__main__":
    main()
