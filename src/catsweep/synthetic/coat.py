"""Coat of a synthetic cat: silhouette, colours of the fur, and the light on it.

All arguments `x`, `y` are face coordinates of `canvas.to_face`: x from the middle line, y down, in fractions of the
picture's width. Fields are (S, S), pictures (3, S, S).
"""

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from catsweep.synthetic.canvas import (
    EYE,
    Field,
    cloud,
    cover,
    ellipse,
    fur,
    gauss,
    join,
    meet,
    paint,
    plane,
    smoothstep,
)
from catsweep.synthetic.catalogue import Cat, Coat, Scene, Shape

Point = tuple[float, float]

_SKULL_Y = 0.50
_WHITE = (0.95, 0.94, 0.92)


@dataclass(frozen=True)
class Silhouette:
    """Signed distances of the parts of the cat."""

    head: Field
    ears: Field
    inner_ears: Field
    body: Field

    def whole(self) -> Field:
        """Signed distance of the cat."""
        return np.minimum(np.minimum(self.head, self.ears), self.body)


def paint_coat(cat: Cat, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Silhouette]:
    """Paint the cat without its features.

    Returns:
        The picture of the fur, meaningful inside the silhouette, and the silhouette.
    """
    locks, hairs = fur(x, y, rng)
    parts = _silhouette(x, y, cat.shape, 0.35 * locks + hairs)
    image = _colours(x, y, cat.coat, parts, locks, rng)
    lining = cover(parts.inner_ears, 0.03) * (0.9 + 0.12 * locks + 0.12 * hairs)
    image = paint(image, cat.features.inner_ear, 0.85 * np.clip(lining, 0, 1) * (1 - cover(parts.head, 0.03)))
    return image * _light(x, y, parts, cat.coat.texture * (locks + hairs), cat.scene), parts


def ear_corners(shape: Shape) -> tuple[Point, Point, Point]:
    """Where an ear starts on the skull outside, where its rounded tip ends, where it meets the skull inside."""
    (width, height), (outer, inner) = shape.skull, shape.ear_bases
    start = width * math.cos(outer), _SKULL_Y - height * math.sin(outer)
    end = width * math.cos(inner), _SKULL_Y - height * math.sin(inner)
    x, y = shape.ear_tip
    down_x, down_y = (start[0] + end[0]) / 2 - x, (start[1] + end[1]) / 2 - y
    # `meet` takes a quarter of its rounding off the corner along each side: about half of it along the axis.
    cut = 0.5 * shape.ear_roundness / math.hypot(down_x, down_y)
    return start, (x + cut * down_x, y + cut * down_y), end


def _silhouette(x: Field, y: Field, shape: Shape, fringe: Field) -> Silhouette:
    """Lay out head, ears and body; the hair (`fringe`, zero mean) frays every edge."""
    side = np.abs(x)
    fray = 0.55 * shape.fluff * fringe
    head = ellipse(x, y - _SKULL_Y, *shape.skull)
    head = join(head, ellipse(x, y - 0.585, shape.cheeks, 0.20), 0.08)
    head = join(head, ellipse(x, y - 0.71, shape.muzzle, 0.11), 0.08) - fray
    start, _, end = ear_corners(shape)
    corners = (start, shape.ear_tip, end)
    ears = _triangle(side, y, corners, shape.ear_roundness)
    middle_x, middle_y = (sum(values) / 3 for values in zip(*corners, strict=True))
    lining = [(middle_x + 0.66 * (a - middle_x), middle_y + 0.66 * (b - middle_y) + 0.012) for a, b in corners]
    inner_ears = _triangle(side, y, (lining[0], lining[1], lining[2]), shape.ear_roundness)
    neck = ellipse(x, y - 0.80, 0.66 * shape.shoulders, 0.22)
    body = join(ellipse(x, y - 1.20, shape.shoulders, 0.42), neck, 0.15)
    return Silhouette(head, ears - 0.5 * fray, inner_ears - 2 * fray, body - 1.4 * fray)


def _triangle(x: Field, y: Field, corners: tuple[Point, Point, Point], roundness: float) -> Field:
    """Signed distance of an ear: two sides that bulge a little; its third side lies hidden in the skull."""
    start, tip, end = corners
    sides = []
    for (x0, y0), (x1, y1) in ((end, tip), (tip, start)):
        length = math.hypot(x1 - x0, y1 - y0)
        along_x, along_y = (x1 - x0) / length, (y1 - y0) / length
        along = (x - x0) * along_x + (y - y0) * along_y
        sides.append((x - x0) * along_y - (y - y0) * along_x - 0.30 * along * (length - along))
    bottom = max(start[1], end[1]) + 0.06
    return cast(Field, np.maximum(meet(sides[0], sides[1], roundness), y - bottom))


def _colours(x: Field, y: Field, coat: Coat, parts: Silhouette, locks: Field, rng: np.random.Generator) -> Field:
    """The colour of the fur before light falls on it: patterns laid over each other, each as strong as the coat says.

    The locks of the fur shift the edges of every pattern, so that they look grown and not printed.
    """
    size = x.shape[0]
    mottle, wave = cloud(rng, 12, size), cloud(rng, 5, size) + 0.25 * locks
    pale = 0.5 * gauss(x, y - 0.73, 0.14, 0.08) + 0.25 * smoothstep(0.0, 1.5, wave)
    image = paint(plane(coat.base), coat.light, np.minimum(pale, 1))
    image = paint(image, coat.dark, 0.30 * smoothstep(0.42, 0.12, y) + 0.20 * smoothstep(0.0, 1.5, mottle))
    if coat.stripes:
        image = _tabby(image, x, y, coat, mottle, wave)
    if coat.patches:
        image = _patches(image, x, coat, locks, rng)
    if coat.points:
        mask = 1.1 * gauss(x, y - 0.57, 0.14, 0.15) + 0.45 * gauss(np.abs(x) - EYE[0], y - EYE[1], 0.09, 0.08)
        ears = smoothstep(0.01, -0.03, parts.ears) * smoothstep(-0.05, 0.02, parts.head)
        image = paint(image, coat.dark, 0.95 * coat.points * np.clip(mask * (1 + 0.2 * wave) + ears, 0, 1))
    if coat.white:
        image = _white(image, x, y, coat, wave, locks)
    return image


def _tabby(image: Field, x: Field, y: Field, coat: Coat, mottle: Field, wave: Field) -> Field:
    """Tabby marks: the M of the forehead, swept lines on the cheeks, bars on the chest, pale spectacles and chin."""
    side, rough = np.abs(x), 0.15 * mottle
    # Lines that fan out from between the eyes read as an M above the brows.
    fan = np.cos(np.arctan2(side, 0.62 - y) * (2.2 * coat.stripe_count) + 0.3 * wave)
    forehead = smoothstep(0.385, 0.33, y + 0.5 * np.square(side - 0.15)) * smoothstep(0.36, 0.28, side)
    # Arcs about a point above the head run from the outer corner of the eye back to the neck.
    arcs = np.cos(np.sqrt(0.55 * side * side + np.square(y - 0.02)) * (6.4 * coat.stripe_count) + 0.6 * wave + 1.2)
    cheeks = smoothstep(0.22, 0.30, side) * smoothstep(0.40, 0.47, y)
    bars = np.cos((y - 0.5 * side) * (5.0 * coat.stripe_count) + 0.8 * wave)
    marks = smoothstep(0.0, 0.6, fan + rough) * forehead
    marks = np.maximum(marks, smoothstep(0.05, 0.7, arcs + rough) * cheeks)
    marks = np.maximum(marks, smoothstep(0.2, 0.9, bars + rough) * smoothstep(0.82, 0.90, y))
    # One line from the inner corner of the eye along the nose, one from the outer corner backwards.
    tear = gauss(side - 0.075 - 0.25 * (0.52 - y), y - 0.50, 0.012, 0.05)
    corner = gauss(y - 0.42 - 0.45 * (side - 0.27), side - 0.31, 0.011, 0.05)
    marks = np.maximum(marks, np.maximum(0.5 * tear, 0.9 * corner))
    pale = gauss(side - EYE[0], y - 0.345, 0.07, 0.026) + gauss(side - EYE[0] - 0.02, y - 0.505, 0.06, 0.025)
    image = paint(image, coat.light, 0.8 * coat.stripes * np.minimum(pale + gauss(x, y - 0.73, 0.14, 0.075), 1))
    return paint(image, coat.dark, 0.9 * coat.stripes * np.clip(marks, 0, 1))


def _patches(image: Field, x: Field, coat: Coat, locks: Field, rng: np.random.Generator) -> Field:
    """Orange over the dark coat: two broad halves beside white (calico), brindled without it (tortoiseshell)."""
    size = x.shape[0]
    swap = 1.0 if rng.random() < 0.5 else -1.0
    broad, fine = cloud(rng, 5, size), cloud(rng, 22, size)
    if coat.white:
        mixed = 0.6 * broad + 0.7 * swap * np.tanh(6 * x) + 0.2 * fine + 0.15 * locks
        return paint(image, coat.second, smoothstep(-0.12, 0.12, mixed))
    mixed = 0.6 * broad + 0.4 * swap * np.sign(x) + 0.5 * fine + 0.5 * locks - 0.2
    return paint(image, coat.second, 0.85 * smoothstep(-0.5, 0.7, mixed))


def _white(image: Field, x: Field, y: Field, coat: Coat, wave: Field, locks: Field) -> Field:
    """White muzzle and chest, and a blaze between the eyes that ends as high as `coat.blaze` says."""
    amount = coat.white
    top = 0.44 - 0.32 * coat.blaze
    blaze = 0.012 + 0.055 * amount * smoothstep(top, 0.50, y)
    muzzle = (0.05 + 0.14 * min(amount, 1.0)) * smoothstep(0.46, 0.66, y)
    chest = (0.04 + 0.18 * amount) * smoothstep(0.72, 0.92, y)
    width = blaze + muzzle + chest - 0.06 * smoothstep(top + 0.08, top - 0.04, y)
    away = np.abs(x + 0.012 * wave) + 0.006 * locks
    return paint(image, _WHITE, 0.97 * smoothstep(0.015, -0.015, away - width))


def _light(x: Field, y: Field, parts: Silhouette, hair: Field, scene: Scene) -> Field:
    """How much light the fur returns, about 1: a relief of the face lit from `scene.light`, in [0.15, 1.7]."""
    side, size = np.abs(x), x.shape[0]
    relief = -1.25 * x * x - 1.6 * np.square(y - 0.48)
    relief += 0.040 * gauss(side - 0.062, y - 0.665, 0.05, 0.042)  # whisker pads
    relief += 0.040 * gauss(x, y - 0.52, 0.045, 0.12)  # bridge of the nose
    relief -= 0.035 * gauss(side - 0.15, y - 0.44, 0.07, 0.055)  # sockets
    relief += 0.030 * gauss(side - 0.19, y - 0.33, 0.08, 0.04)  # brows
    relief += 0.030 * gauss(side - 0.28, y - 0.58, 0.09, 0.09)  # cheeks
    relief += 0.025 * gauss(x, y - 0.77, 0.06, 0.03)  # chin
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=size / 8)
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1, ksize=3, scale=size / 8)
    facing = 1.0 - 0.65 * (slope_x * scene.light[0] + slope_y * scene.light[1])
    facing = np.maximum(facing, 0) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    on_head = cover(parts.head, 0.02)
    under_chin = 1 - 0.55 * smoothstep(0.11, -0.01, parts.head) * smoothstep(0.55, 0.75, y)
    elsewhere = np.where(parts.ears < np.minimum(parts.head, parts.body), np.float32(0.90), under_chin)
    light = elsewhere + on_head * (scene.ambient + (1.22 - scene.ambient) * facing - elsewhere)
    light *= 1 - 0.24 * smoothstep(-0.08, 0.01, parts.head) * on_head
    return cast(Field, np.clip(light * (1 + 0.085 * hair), 0.15, 1.7))
