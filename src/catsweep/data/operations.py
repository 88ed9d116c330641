"""Image augmentation: mirror, brightness, contrast, saturation, crop.

The preparation writes copies of photos with it, the data module changes batches in memory. Random numbers are drawn
for many images at once, into a `Recipe`: operations on brightness end in one curve per image, those on colour in one
matrix, crop and mirroring in one resize. `apply_recipe` applies it in three calls of OpenCV per image.

An operation of one's own is a class with `change`, named by `_target_` in conf/prepare.yaml or conf/data/augment/.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.errors import ConfigError

LUMA = np.array([0.299, 0.587, 0.114])  # of R, G, B: ITU-R BT.601
DRAWS = 4  # numbers that each operation has for each image: whether, how much, where in x, where in y
WHITE = 255.0

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Rows = NDArray[np.intp]


class Recipe:
    """Parameters of the augmentation of n images of mean brightness `light`, (n,), 0 to 255, which operations change.

    At first they change nothing. `mirrored` is bool, (n,); `box` the square that is cut out, (n, 3): left, top and
    side as shares of the image's side; `curve` maps each brightness 0, 1, … 255 to a new one, (n, 256), 0 to 255;
    `colour` then maps R, G, B to new ones, (n, 3, 3). `done` has by name of an operation the images that it was drawn
    for, (n,), and the amounts, (n,).
    """

    def __init__(self, light: Floats) -> None:
        n = len(light)
        self.light, self.mirrored, self.box = light, np.zeros(n, np.bool_), np.tile([0.0, 0.0, 1.0], (n, 1))
        self.curve, self.colour = np.tile(np.arange(256.0), (n, 1)), np.tile(np.eye(3), (n, 1, 1))
        self.done: dict[str, tuple[NDArray[np.bool_], Floats]] = {}

    def corners(self, side: int) -> NDArray[np.int64]:
        """Compute the crops in pixels of images of this side, shape (n, 3): left, top and side; always inside."""
        sides = np.clip(np.rint(self.box[:, 2] * side), 1, side)
        starts = np.minimum(np.rint(self.box[:, :2] * side), side - sides[:, None])
        return np.column_stack([starts, sides]).astype(np.int64)


class Operation(ABC):
    """Base class of augmentations. If it is `alone`, no other changes an image that it was drawn for.

    Args:
        probability: share of the images that it changes, 0 to 1.
        range: least and most amount, drawn evenly in between.
    """

    alone: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 0.0)  # limits of `range`

    def __init__(self, probability: float, range: Sequence[float] = (0.0, 0.0)) -> None:
        low, high = (float(value) for value in range)
        name, (least, most) = type(self).__name__, self.bounds
        if not 0 <= probability <= 1 or not least <= low <= high <= most:
            raise ConfigError(
                f"Expected of {name} a probability from 0 to 1 and a range of two ascending numbers from {least:g} to "
                f"{most:g}, got probability={probability}, range=[{low:g}, {high:g}]."
            )
        self.probability, self.range = float(probability), (low, high)

    def parameters(self) -> dict[str, Any]:
        """Return all that decides the outcome, as JSON."""
        return {"operation": type(self).__name__, "probability": self.probability, "range": list(self.range)}

    @abstractmethod
    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """Change `rows`, (k,), of a recipe by `amounts`, (k,), within `range`.

        `places`, (k, 2), are two more random numbers for each, from 0 to 1.
        """


class Flip(Operation):
    """Mirrors left and right."""

    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """See `Operation`."""
        recipe.mirrored[rows] ^= True


class Brightness(Operation):
    """Dims (range below 1) or brightens (above 1): medium grey becomes so many times as bright, by a power curve.

    Black stays black and white white: a plain factor would burn out white fur, and tint a white background.
    """

    bounds: ClassVar[tuple[float, float]] = (0.2, 1.8)

    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """See `Operation`."""
        power = 1 - np.log2(amounts)[:, None]  # (1/2) ** power == amount / 2
        recipe.curve[rows] = WHITE * (recipe.curve[rows] / WHITE) ** power


class Contrast(Operation):
    """Less (range below 1) or more contrast: the slope of the brightness curve where the image is on average.

    Two power curves that meet there, and keep black, white and the average: nothing is cut off.
    """

    bounds: ClassVar[tuple[float, float]] = (0.2, 3.0)

    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """See `Operation`."""
        curve, power = recipe.curve[rows], amounts[:, None]
        average = np.rint(np.clip(recipe.light[rows], 1, 254)).astype(np.intp)
        pivot = np.clip(curve[np.arange(len(rows)), average], 1, 254)[:, None]
        dark = pivot * (np.minimum(curve, pivot) / pivot) ** power
        bright = (WHITE - pivot) * ((WHITE - np.maximum(curve, pivot)) / (WHITE - pivot)) ** power
        recipe.curve[rows] = np.where(curve < pivot, dark, WHITE - bright)


class Saturation(Operation):
    """Paler (range below 1) or richer colours; 0 is grey. Brightness stays."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 3.0)

    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """See `Operation`."""
        amount = amounts[:, None, None]
        recipe.colour[rows] = (amount * np.eye(3) + (1 - amount) * LUMA) @ recipe.colour[rows]


class Crop(Operation):
    """Cuts out a square anywhere in the image, its side as a share of the image's, and enlarges it again."""

    bounds: ClassVar[tuple[float, float]] = (0.1, 1.0)

    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """See `Operation`."""
        left_top = recipe.box[rows, :2] + places * (1 - amounts[:, None]) * recipe.box[rows, 2:]
        recipe.box[rows] = np.column_stack([left_top, recipe.box[rows, 2] * amounts])


class Nothing(Operation):
    """Leaves images as they are: what is drawn for this is changed by no other operation."""

    alone: ClassVar[bool] = True

    def change(self, recipe: Recipe, rows: Rows, amounts: Floats, places: Floats) -> None:
        """See `Operation`."""


def active_operations(operations: Mapping[str, Operation] | None) -> dict[str, Operation]:
    """Select the operations with a probability, in their order; raises ConfigError if one is no operation."""
    for name, operation in (operations or {}).items():
        if not isinstance(operation, Operation):
            raise ConfigError(
                f"Expected operation {name} to name a class by _target_, with its probability, got {operation!r}."
            )
    return {name: operation for name, operation in (operations or {}).items() if operation.probability > 0}


def draw(operations: Mapping[str, Operation], light: Floats, numbers: NDArray[np.floating[Any]]) -> Recipe:
    """Turn numbers from 0 to 1, (n, operations, DRAWS), into a recipe for images of mean brightness `light`, (n,)."""
    recipe = Recipe(light)
    probabilities = np.array([operation.probability for operation in operations.values()])
    chosen = numbers[:, :, 0] < probabilities
    for place, operation in enumerate(operations.values()):
        if operation.alone:
            others = np.arange(len(operations)) != place
            chosen[:, others] &= ~chosen[:, place, None]
    for place, (name, operation) in enumerate(operations.items()):
        low, high = operation.range
        amounts = np.round(low + (high - low) * numbers[:, place, 1].astype(np.float64), 3)  # as the manifest says it
        rows = np.flatnonzero(chosen[:, place])
        if len(rows):
            operation.change(recipe, rows, amounts[rows], numbers[rows, place, 2:].astype(np.float64))
        recipe.done[name] = (chosen[:, place], amounts)
    return recipe


def brightness(images: Pixels) -> Floats:
    """Average the luma of one pixel in 16 of images (n, H, W, 3): shape (n,), 0 to 255."""
    sample = images[:, ::4, ::4].reshape(len(images), -1, 3)
    return np.asarray(sample.mean(axis=1, dtype=np.float64) @ LUMA)


def apply_recipe(images: Pixels, recipe: Recipe, out: Pixels) -> None:
    """Apply a recipe for n images to `images`, (n or 1, H, H, 3), and write the results into `out`, (n, size, size, 3).

    A loop over images, on purpose: OpenCV's calls on bytes are 8 times as fast as one remap, one gather and one matrix
    product over a batch (2.6 against 21 ms for 64 images of 64 x 64), and release the interpreter's lock.
    """
    side, size = images.shape[1], out.shape[1]
    curves = np.rint(recipe.curve).astype(np.uint8)
    bent = (curves != np.arange(256)).any(axis=1)
    coloured = (recipe.colour != np.eye(3)).any(axis=(1, 2))
    one = len(images) == 1
    for place, (left, top, cut) in enumerate(recipe.corners(side).tolist()):
        image: NDArray[Any] = images[0 if one else place, top : top + cut, left : left + cut]
        if cut != size:
            # From 82, 90 and 96 pixels to 64, averaging takes four times as long as interpolating, and is further from
            # the photo itself: 36.0, 37.1 and 39.4 dB against 36.7, 38.0 and 40.9 (60 zoomed photos).
            shrinking = cv2.INTER_AREA if cut >= 2 * size else cv2.INTER_LINEAR
            how = shrinking if cut > size else cv2.INTER_CUBIC
            image = cv2.resize(image, (size, size), interpolation=how)
        if recipe.mirrored[place]:
            image = cv2.flip(image, 1)
        if bent[place]:
            image = cv2.LUT(image, curves[place])
        if coloured[place]:
            image = cv2.transform(image, recipe.colour[place])
        out[place] = image


def describe_recipe(recipe: Recipe, side: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe what a recipe does to each image of this side: operations ("flip crop"), amounts, `box` of a crop."""
    columns = [(name, chosen.tolist(), amounts.tolist()) for name, (chosen, amounts) in recipe.done.items()]
    for place, box in enumerate(recipe.corners(side).tolist()):
        done = {name: amounts[place] for name, chosen, amounts in columns if chosen[place]}
        parameters: dict[str, Any] = {name: amount for name, amount in done.items() if amount}
        if box[2] < side:
            parameters["box"] = box
        yield " ".join(done) or "none", parameters
