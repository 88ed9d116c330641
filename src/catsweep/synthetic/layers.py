"""Layers of a synthetic cat: its coat (silhouette, fur, light), then eyes, nose, mouth, whiskers and collar.

A field is a float32 array (S, S), one value per pixel of a canvas larger than the picture; pictures are (3, S, S).
Shapes are signed distances (negative inside, in fractions of the width). Arguments `x`, `y` are face coordinates: x
from the middle line, y down, in fractions of the width. Up to sampling, nothing depends on S: a cat looks the same at
any size.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from catsweep.synthetic.catalogue import Cat, Coat, Colour, Features, Pose, Scene, Shape

Field = npt.NDArray[np.floating[Any]]  # float32: numpy's stubs cannot tell that a Python float does not widen it
# In face coordinates (distance from the middle line, height):
EYE = (0.18, 0.42)  # its centre
MOUTH = (0.0, 0.70)  # where the line under the nose meets the lips
NOSE = (0.0, 0.60)  # its tip: the origin of the fur's flow and the point nearest to the viewer
Point = tuple[float, float]
_SKULL_Y = 0.50
_WHITE = (0.95, 0.94, 0.92)
_LID = (0.07, 0.05, 0.05)
_LIPS = (0.13, 0.07, 0.07)
_TONGUE = (0.88, 0.48, 0.50)
_WHISKER = (0.97, 0.96, 0.94)


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """Compute pixel centres x and y, each (size, size), in fractions of the width; read-only, shared by threads."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = (np.ascontiguousarray(field) for field in np.meshgrid(axis, axis))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def depth(x: Field, y: Field) -> Field:
    """Compute how far points of the face, at x from the middle line and height y, stand out; 0 about the eyes."""
    nose = gauss(x, y - NOSE[1], 0.10, 0.10)
    bowl: Field = 0.035 - 0.9 * x * x - 0.55 * np.square(y - 0.45)
    return bowl + 0.12 * nose


def to_face(x: Field, y: Field, pose: Pose) -> tuple[Field, Field]:
    """Undo the pose: picture coordinates to face coordinates.

    The head's turn is a parallax, picture = face + depth(face)·(turn, nod); three steps of a fixed-point iteration undo
    it, on the face to less than a thousandth of the width.
    """
    cos, sin = math.cos(pose.roll) / pose.scale, math.sin(pose.roll) / pose.scale
    x, y = x - (0.5 + pose.shift[0]), y - (0.5 + pose.shift[1])
    x, y = cos * x + sin * y, cos * y - sin * x + 0.5
    face_x, face_y = x, y
    for _ in range(3):
        out = depth(face_x, face_y)
        face_x, face_y = x - pose.turn * out, y - pose.nod * out
    return face_x, face_y


def to_picture(points: Field, pose: Pose) -> Field:
    """Apply the pose to points (n, 2): face coordinates to picture coordinates, the inverse of `to_face`."""
    x, y = points[:, 0], points[:, 1]
    out = depth(x, y)
    x, y = x + pose.turn * out, y + pose.nod * out - 0.5
    cos, sin = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
    moved = np.stack([cos * x - sin * y + 0.5 + pose.shift[0], sin * x + cos * y + 0.5 + pose.shift[1]], axis=1)
    return cast(Field, moved.astype(np.float32))


def gauss(x: Field, y: Field, width: float, height: float) -> Field:
    """Evaluate a Gaussian of height 1 at the origin with standard deviations `width` and `height`."""
    exponent = x * x * (-0.5 / width**2) + y * y * (-0.5 / height**2)
    return np.exp(exponent, dtype=np.float32)


def smoothstep(low: float, high: float, field: Field) -> Field:
    """Step smoothly from 0 below `low` to 1 above `high` by a cubic (low > high reverses it)."""
    t = np.clip((field - low) * (1 / (high - low)), 0, 1)
    return cast(Field, t * t * (3 - 2 * t))


def cover(distance: Field, softness: float = 0.0) -> Field:
    """Turn a signed distance into coverage in [0, 1], over an edge of width `softness`, at least a pixel and a half."""
    edge = max(1.5 / distance.shape[1], softness)
    return cast(Field, np.clip(0.5 - distance / edge, 0, 1))


def paint(image: Field, colour: Field | Colour, weight: Field) -> Field:
    """Blend a colour, or pixels (3, S, S), over `image` (3, S, S) with a weight (S, S) in [0, 1]."""
    return image + weight * (plane(colour) - image)


def plane(colour: Field | Colour) -> Field:
    """Shape a colour to broadcast against (3, S, S); pixels pass unchanged."""
    return colour if isinstance(colour, np.ndarray) else np.array(colour, np.float32)[:, None, None]


def cloud(rng: np.random.Generator, cells: int, size: int) -> Field:
    """Draw smooth noise, (size, size), with `cells` bumps across, about zero mean and unit spread."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cast(Field, cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


@dataclass(frozen=True)
class Silhouette:
    """Signed distances of the parts of a cat."""

    head: Field
    ears: Field
    inner_ears: Field
    body: Field


@lru_cache(maxsize=4)
def _strands(columns: int) -> Field:
    """Make a sheet of hair, (256, 2·columns), of zero mean and unit spread; the same in every process.

    A periodic tile laid out twice each way, so that a path that starts in the first needs no wrapping.
    """
    noise = np.random.default_rng(columns).standard_normal((128, columns), dtype=np.float32)
    blurred = cv2.GaussianBlur(np.pad(noise, 16, mode="wrap"), (0, 0), sigmaX=0.8, sigmaY=3.0)[16:-16, 16:-16]
    sheet = np.tile(blurred / blurred.std(), (2, 2))
    sheet.flags.writeable = False
    return sheet


def fur(x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Draw hair that flows away from the nose: locks and single hairs, (S, S); zero mean, about unit spread in sum."""
    size = x.shape[0]
    radius, angle = cv2.cartToPolar(x - NOSE[0], y - (NOSE[1] - 0.03))
    angle += 0.05 * cloud(rng, 9, size)
    starts = rng.uniform(0.1, 0.9, 3).tolist()
    layers = []
    for columns, weight, start in zip((180, 420, 900), (0.6, 0.7, 0.6), starts, strict=True):
        visible = min(1.0, size / columns)  # at the cheek a hair is 2.5/columns of the width
        if visible > 0.2:
            across, down = angle * (columns / (2 * math.pi)) + start * columns, radius * 110 + start * 128
            layers.append(weight * visible * cv2.remap(_strands(columns), across, down, cv2.INTER_LINEAR))
    return layers[0], cast(Field, sum(layers[1:], np.zeros_like(x)))


def paint_coat(cat: Cat, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Silhouette]:
    """Paint a cat without its features: the fur, meaningful inside the silhouette, and the silhouette."""
    locks, hairs = fur(x, y, rng)
    parts = _silhouette(x, y, cat.shape, 0.35 * locks + hairs)
    image = _colours(x, y, cat.coat, parts, locks, rng)
    lining = cover(parts.inner_ears, 0.03) * (0.9 + 0.12 * locks + 0.12 * hairs)
    image = paint(image, cat.features.inner_ear, 0.85 * np.clip(lining, 0, 1) * (1 - cover(parts.head, 0.03)))
    return image * _light(x, y, parts, cat.coat.texture * (locks + hairs), cat.scene), parts


def _ellipse(x: Field, y: Field, width: float, height: float) -> Field:
    """Compute the signed distance (approximate; exact at the edge) of an ellipse about the origin."""
    radius: Field = np.sqrt(np.square(x / width) + np.square(y / height))
    return (radius - 1) * min(width, height)


def _join(first: Field, second: Field, blend: float) -> Field:
    """Unite two signed distances by a polynomial minimum that rounds the seam over `blend`."""
    rounding = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - rounding * rounding * (0.25 / blend)


def _meet(first: Field, second: Field, blend: float) -> Field:
    """Intersect two signed distances, rounding the corner over `blend`."""
    return -_join(-first, -second, blend)


def _ear_corners(shape: Shape) -> tuple[Point, Point, Point]:
    """Compute an ear's outer base on the skull, its rounded tip and its inner base."""
    (width, height), (outer, inner) = shape.skull, shape.ear_bases
    start = width * math.cos(outer), _SKULL_Y - height * math.sin(outer)
    end = width * math.cos(inner), _SKULL_Y - height * math.sin(inner)
    x, y = shape.ear_tip
    down_x, down_y = (start[0] + end[0]) / 2 - x, (start[1] + end[1]) / 2 - y
    # `_meet` takes a quarter of its rounding off the corner along each side: about half of it along the axis.
    cut = 0.5 * shape.ear_roundness / math.hypot(down_x, down_y)
    return start, (x + cut * down_x, y + cut * down_y), end


def landmarks_of(cat: Cat) -> Field:
    """Compute the landmarks of a cat, (9, 2), in fractions of the width, in the order of `catsweep.data.landmarks`."""
    ear = _ear_corners(cat.shape)
    left_ear = [(-x, y) for x, y in ear]
    points = [(-EYE[0], EYE[1]), EYE, MOUTH, *left_ear, *reversed(ear)]
    return to_picture(np.array(points, np.float32), cat.pose)


def _silhouette(x: Field, y: Field, shape: Shape, fringe: Field) -> Silhouette:
    """Lay out head, ears and body; the hair (`fringe`, zero mean) frays every edge."""
    side = np.abs(x)
    fray = 0.55 * shape.fluff * fringe
    head = _ellipse(x, y - _SKULL_Y, *shape.skull)
    head = _join(head, _ellipse(x, y - 0.585, shape.cheeks, 0.20), 0.08)
    head = _join(head, _ellipse(x, y - 0.71, shape.muzzle, 0.11), 0.08) - fray
    start, _, end = _ear_corners(shape)
    corners = (start, shape.ear_tip, end)
    ears = _triangle(side, y, corners, shape.ear_roundness)
    middle_x, middle_y = (sum(values) / 3 for values in zip(*corners, strict=True))
    lining = [(middle_x + 0.66 * (a - middle_x), middle_y + 0.66 * (b - middle_y) + 0.012) for a, b in corners]
    inner_ears = _triangle(side, y, (lining[0], lining[1], lining[2]), shape.ear_roundness)
    neck = _ellipse(x, y - 0.80, 0.66 * shape.shoulders, 0.22)
    body = _join(_ellipse(x, y - 1.20, shape.shoulders, 0.42), neck, 0.15)
    return Silhouette(head, ears - 0.5 * fray, inner_ears - 2 * fray, body - 1.4 * fray)


def _triangle(x: Field, y: Field, corners: tuple[Point, Point, Point], roundness: float) -> Field:
    """Compute the signed distance of an ear: two sides that bulge; the third lies hidden in the skull."""
    start, tip, end = corners
    sides = []
    for (x0, y0), (x1, y1) in ((end, tip), (tip, start)):
        length = math.hypot(x1 - x0, y1 - y0)
        along_x, along_y = (x1 - x0) / length, (y1 - y0) / length
        along = (x - x0) * along_x + (y - y0) * along_y
        sides.append((x - x0) * along_y - (y - y0) * along_x - 0.30 * along * (length - along))
    bottom = max(start[1], end[1]) + 0.06
    return cast(Field, np.maximum(_meet(sides[0], sides[1], roundness), y - bottom))


def _colours(x: Field, y: Field, coat: Coat, parts: Silhouette, locks: Field, rng: np.random.Generator) -> Field:
    """Paint the fur before light falls on it: patterns laid over each other, their edges shifted by its locks."""
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
    """Paint tabby marks: the M of the forehead, lines on the cheeks, bars on the chest, pale spectacles and chin."""
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
    """Paint orange on the dark coat: two broad halves beside white (calico), brindled without it (tortoiseshell)."""
    size = x.shape[0]
    swap = 1.0 if rng.random() < 0.5 else -1.0
    broad, fine = cloud(rng, 5, size), cloud(rng, 22, size)
    if coat.white:
        mixed = 0.6 * broad + 0.7 * swap * np.tanh(6 * x) + 0.2 * fine + 0.15 * locks
        return paint(image, coat.second, smoothstep(-0.12, 0.12, mixed))
    mixed = 0.6 * broad + 0.4 * swap * np.sign(x) + 0.5 * fine + 0.5 * locks - 0.2
    return paint(image, coat.second, 0.85 * smoothstep(-0.5, 0.7, mixed))


def _white(image: Field, x: Field, y: Field, coat: Coat, wave: Field, locks: Field) -> Field:
    """Paint a white muzzle and chest, and a blaze between the eyes as high as `coat.blaze` says."""
    amount = coat.white
    top = 0.44 - 0.32 * coat.blaze
    blaze = 0.012 + 0.055 * amount * smoothstep(top, 0.50, y)
    muzzle = (0.05 + 0.14 * min(amount, 1.0)) * smoothstep(0.46, 0.66, y)
    chest = (0.04 + 0.18 * amount) * smoothstep(0.72, 0.92, y)
    width = blaze + muzzle + chest - 0.06 * smoothstep(top + 0.08, top - 0.04, y)
    away = np.abs(x + 0.012 * wave) + 0.006 * locks
    return paint(image, _WHITE, 0.97 * smoothstep(0.015, -0.015, away - width))


def _light(x: Field, y: Field, parts: Silhouette, hair: Field, scene: Scene) -> Field:
    """Compute the light that the fur returns, in [0.15, 1.7]: a relief of the face lit from `scene.light`."""
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


def paint_face(image: Field, x: Field, y: Field, features: Features, scene: Scene) -> Field:
    """Paint eyes, nose and mouth over the fur; only the rows that hold them are touched."""
    image = image.copy()
    for low, high, layer in ((EYE[1] - 0.13, EYE[1] + 0.13, _eyes), (0.54, 0.77, _nose_and_mouth)):
        rows = np.flatnonzero(((y > low) & (y < high) & (np.abs(x) < 0.32)).any(axis=1))
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        image[:, band] = layer(image[:, band], x[band], y[band], features, scene)
    return image


def _eyes(image: Field, x: Field, y: Field, features: Features, scene: Scene) -> Field:
    """Paint almond eyes with dark lids."""
    across, down = np.abs(x) - EYE[0], y - EYE[1]
    cos, sin = math.cos(features.eye_tilt), math.sin(features.eye_tilt)
    u, v = cos * across - sin * down, cos * down + sin * across
    t = np.square(u / features.eye_width)
    arch = 1 - t * (0.6 + 0.4 * t)  # rounder than a parabola, which would look painted
    upper, lower = 0.074 * features.eye_open, 0.062 * (0.4 + 0.6 * features.eye_open)
    gap = np.where(v < 0, -v - upper * arch, v - lower * arch)
    gap = gap / np.sqrt(1 + 1.5 * t)
    lid = smoothstep(0.022, 0.006, gap + 0.006 * smoothstep(-0.01, 0.02, v))
    tear_duct = gauss(u + 1.06 * features.eye_width, v - 0.012, 0.016, 0.009)
    image = paint(image, _LID, np.clip(0.9 * lid + 0.6 * tear_duct, 0, 0.95))
    iris = _iris(across, down, np.sign(x), gap, features, scene)
    return paint(image, iris, cover(gap, 0.004))


def _iris(across: Field, down: Field, sign: Field, gap: Field, features: Features, scene: Scene) -> Field:
    """Paint an iris shaded by the lid, pupil, highlight on the side of the light; both eyes look the same way."""
    across, down = across - sign * features.gaze[0], down - features.gaze[1] + 0.002
    out = np.sqrt(across * across + down * down) / 0.085
    image = paint(plane(features.iris), features.iris_centre, smoothstep(0.85, 0.30, out))
    bright = (1 - 0.5 * smoothstep(0.80, 1.08, out)) * (0.55 + 0.45 * smoothstep(0.0, -0.022, gap))
    image = image * (bright * (0.80 + 0.35 * smoothstep(-0.05, 0.035, down)))
    image = paint(image, (0.02, 0.02, 0.03), cover(_ellipse(across, down, features.pupil, 0.062), 0.008))
    towards = math.copysign(0.024, scene.light[0])  # beside a slit pupil, or it would seem broken
    spot_x, spot_y = sign * across - towards, down + 0.026
    glint = cover(_ellipse(spot_x, spot_y, 0.019, 0.017), 0.006)
    echo = cover(_ellipse(spot_x + 2 * towards, spot_y - 0.052, 0.010, 0.008), 0.008)
    return paint(image, (1.0, 1.0, 1.0), np.minimum(0.95 * glint + 0.35 * echo, 1))


def _nose_and_mouth(image: Field, x: Field, y: Field, features: Features, scene: Scene) -> Field:
    """Paint a rounded triangle with nostrils; under it the line to the mouth, lips, rows of freckles."""
    side = np.abs(x)
    pad = _meet(0.568 + 0.05 * side - y, 0.80 * side + 0.60 * (y - 0.637), 0.022)
    shine = gauss(x - 0.008 * scene.light[0], y - 0.582, 0.03, 0.012)
    nostril = gauss(side - 0.026, y - 0.612 + 0.3 * (side - 0.026), 0.011, 0.006)
    nose = paint(plane(features.nose) * (0.88 + 0.35 * shine), (0.10, 0.05, 0.05), 0.85 * nostril)
    image = paint(image, (0.10, 0.06, 0.06), 0.35 * cover(pad - 0.006, 0.02))
    image = paint(image, nose, cover(pad, 0.008))

    sag = 0.018 * features.smile * np.sin(side * (math.pi / 0.072)) + 0.12 * side * (1 - features.smile)
    lips = gauss(y - MOUTH[1] - sag, np.maximum(side - 0.045, 0), 0.006, 0.018)
    line = gauss(side, np.maximum(np.maximum(0.632 - y, y - MOUTH[1]), 0), 0.005, 0.006)
    image = paint(image, _LIPS, 0.30 * gauss(x, y - MOUTH[1] - sag - 0.016, 0.050, 0.014))
    image = paint(image, _LIPS, 0.75 * np.maximum(lips, line))
    if features.tongue:
        tip = np.maximum(_ellipse(x, y - MOUTH[1] - 0.010, 0.021, 0.030), MOUTH[1] + sag - y)
        image = paint(image, plane(_TONGUE) * (1 - 0.35 * gauss(x, y - MOUTH[1], 0.004, 0.02)), cover(tip, 0.006))
    dots = np.maximum(np.cos(230 * side) * np.cos(260 * y + 39 * side) - 0.55, 0)
    return paint(image, _LIPS, 0.8 * dots * gauss(side - 0.085, y - 0.665, 0.022, 0.018))


def paint_collar(image: Field, x: Field, y: Field, features: Features, parts: Silhouette) -> Field:
    """Paint a band around the neck with a small bell, if the cat wears one."""
    if features.collar is None:
        return image
    hang = y - 0.895 + 0.55 * x * x
    band = cover(np.abs(hang) - 0.022) * (1 - cover(parts.head, 0.01))
    shade = 1.1 - 12 * np.abs(hang) - 1.6 * x * x
    image = paint(image, plane(features.collar) * shade, 0.95 * band)
    bell = _ellipse(x, y - 0.935, 0.032, 0.032)
    gold = plane((0.88, 0.68, 0.24)) * (0.75 + 0.6 * gauss(x + 0.008, y - 0.925, 0.012, 0.012))
    gold = paint(gold, (0.25, 0.17, 0.05), cover(np.maximum(np.abs(y - 0.945) - 0.003, bell)))
    return paint(image, gold, cover(bell, 0.006))


def paint_whiskers(image: Field, features: Features, pose: Pose, rng: np.random.Generator) -> Field:
    """Paint whiskers: pale hairs from the pads and brows, too thin to count in the mask."""
    size = image.shape[1]
    hairs = np.concatenate([_one_side(features, rng) * (side, 1.0) for side in (-1.0, 1.0)])
    points = to_picture(hairs.reshape(-1, 2), pose).reshape(hairs.shape) * size - 0.5
    ink = np.zeros((size, size), np.uint8)
    fixed = np.rint(points * 256).astype(np.int32)  # cv2 takes fixed point with 8 fractional bits
    cv2.polylines(ink, list(fixed), False, 255, max(1, round(size / 420)), cv2.LINE_AA, shift=8)
    strength = 0.7 * min(1.0, size / 512)  # a line is at least a pixel wide: on a small canvas it is fainter instead
    return paint(image, _WHISKER, ink * np.float32(strength / 255))


def _one_side(features: Features, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the whiskers of the right half, (8 hairs, 9 points, 2): quadratic Bézier curves in face coordinates."""
    controls = np.empty((8, 3, 2))
    for hair in range(6):
        reach = features.whisker_length * rng.uniform(0.75, 1.05)
        rise = 0.04 * (hair - 2.2) + features.whisker_droop + rng.uniform(-0.025, 0.025)
        root = np.array((0.075 + 0.014 * (hair % 3), 0.650 + 0.013 * (hair // 2)))
        controls[hair] = root, root + np.array((0.55 * reach, 0.30 * rise - 0.03)), root + np.array((reach, rise))
    for hair in range(2):
        root, way = np.array((0.15 + 0.03 * hair, 0.335)), np.array((0.05 + 0.05 * hair, rng.uniform(-0.15, -0.11)))
        controls[6 + hair] = root, root + way / 2 - np.array((0.015, 0.0)), root + way
    t = np.linspace(0, 1, 9)
    weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
    return cast(npt.NDArray[np.float64], np.einsum("pc,hcd->hpd", weights, controls))
