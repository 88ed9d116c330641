"""Demo cats: a seeded renderer of cat faces, so that everything runs with no photos and no network.

Head of the demo renderer, and all of it that the rest of catsweep sees (`sources.DemoCats` calls `render`):
`demo_catalogue` picks the parameters of a cat from `demo_palette`'s colours, `demo_scene` paints what is behind
it, `demo_coat` its fur, `demo_face` its features, on the coordinates of `demo_canvas`. The framing is that of the
aligned real photos: eyes near 0.32/0.68 of the width and 0.42 of the height, mouth near 0.70.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from catsweep.data.demo_canvas import EYE, MOUTH, cover, grid, paint, to_face, to_picture
from catsweep.data.demo_catalogue import Cat, pick
from catsweep.data.demo_coat import ear_corners, paint_coat
from catsweep.data.demo_face import paint_collar, paint_face, paint_whiskers
from catsweep.data.demo_scene import background, develop
from catsweep.errors import DataError

SMALLEST = 16
"""Smallest side a cat is drawn at, in pixels; below it the features are thinner than a pixel."""


@dataclass(frozen=True)
class Cats:
    """Pictures of n cats with what is known about them.

    Attributes:
        images: uint8, (n, size, size, 3), RGB.
        landmarks: float32, (n, 9, 2), x and y in pixels, pixel centres at half-integers; Kaggle order: left eye,
            right eye, mouth, left ear (outer base, tip, inner base), right ear (inner base, tip, outer base), where
            left is the viewer's left.
        masks: bool, (n, size, size), true where the cat covers most of the pixel; whiskers do not count.
    """

    images: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]


def render(n: int, size: int, seed: int) -> Cats:
    """Draw n cats.

    Cat i depends on (seed, i) alone: not on n, and on the size only as a photo does. Cats are drawn by as many
    threads as there are cores, which pays because numpy and OpenCV let go of the interpreter's lock.

    Args:
        n: how many, >= 1.
        size: side of the pictures in pixels, >= 16.
        seed: >= 0.

    Raises:
        DataError: an argument out of its range.
    """
    for name, value, least in (("n", n, 1), ("size", size, SMALLEST), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"demo cats need {name} >= {least}, got {name}={value}; set a larger {name}")
    images = np.empty((n, size, size, 3), np.uint8)
    landmarks = np.empty((n, 9, 2), np.float32)
    masks = np.empty((n, size, size), np.bool_)

    def fill(index: int) -> None:
        cat = pick(seed, index)
        images[index], masks[index] = draw(cat, size)
        landmarks[index] = landmarks_of(cat) * size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(n)):
            pass  # taking the results raises what a thread raised
    return Cats(images, landmarks, masks)


def landmarks_of(cat: Cat) -> npt.NDArray[np.float32]:
    """The nine landmarks of a cat, (9, 2), in fractions of the picture's width, in the order of `Cats.landmarks`."""
    ear = ear_corners(cat.shape)
    left_ear = [(-x, y) for x, y in ear]
    points = [(-EYE[0], EYE[1]), EYE, MOUTH, *left_ear, *reversed(ear)]
    return to_picture(np.array(points, np.float32), cat.pose)


def draw(cat: Cat, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw one cat on a canvas at least twice as large as asked for, and scale it down.

    Returns:
        uint8 (size, size, 3) and the mask, bool (size, size).
    """
    canvas = size * max(2, math.ceil(128 / size))
    rng = np.random.default_rng(cat.texture_seed)
    x, y = to_face(*grid(canvas), cat.pose)
    behind = background(cat.scene, canvas, rng)
    fur, parts = paint_coat(cat, x, y, rng)
    fur = paint_collar(fur, x, y, cat.features, parts)
    fur = paint_face(fur, x, y, cat.features, cat.scene)
    mask = cover(parts.whole(), cat.shape.fluff)
    image = paint(behind, fur, mask)
    image = paint_whiskers(image, cat.features, cat.pose, rng)
    image = develop(image, cat.scene)
    small = cv2.resize(cv2.merge(list(image)), (size, size), interpolation=cv2.INTER_AREA)
    small_mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8), small_mask > 0.5
