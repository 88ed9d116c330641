"""Catalogue of synthetic cats: their colours, their parameters, and the draw of one cat by number.

Lengths are fractions of the picture's width, angles are radians, colours are RGB in [0, 1], `x` of a point of the face
is its distance from the middle line. Every range is bounded, so that no draw pushes a landmark out of the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Fur:
    """Colours of a fur in even daylight, and its share among those of its pattern."""

    share: float
    base: Colour
    dark: Colour
    light: Colour
    striped: bool = False


@dataclass(frozen=True)
class Pattern:
    """Pattern of a coat: its share, its furs, and the range of each strength (below 0 means none)."""

    name: str
    share: float
    furs: tuple[Fur, ...]
    stripes: Range = (0, 0)
    white: Range = (0, 0)
    patches: float = 0
    points: float = 0


@dataclass(frozen=True)
class Backdrop:
    """Kind of background: strengths of its layers, and colours it comes in (ground, second, accent)."""

    palettes: tuple[tuple[Colour, Colour, Colour], ...]
    lights: float = 0
    bands: float = 0
    window: float = 0
    leaves: float = 0


_BLACK = Fur(3, (0.13, 0.12, 0.12), (0.05, 0.05, 0.05), (0.22, 0.20, 0.19))
_GREY = Fur(3, (0.45, 0.46, 0.49), (0.25, 0.26, 0.28), (0.62, 0.62, 0.64))
_WHITE = Fur(2, (0.93, 0.91, 0.88), (0.74, 0.71, 0.68), (0.98, 0.97, 0.95))
_CREAM = Fur(2, (0.86, 0.74, 0.59), (0.68, 0.52, 0.36), (0.96, 0.90, 0.80))
_RED = Fur(2, (0.79, 0.52, 0.29), (0.58, 0.31, 0.13), (0.94, 0.80, 0.62))
_CHOCOLATE = Fur(1.5, (0.36, 0.25, 0.18), (0.18, 0.11, 0.07), (0.52, 0.40, 0.31))
_TABBIES = (
    Fur(4, (0.55, 0.44, 0.32), (0.15, 0.11, 0.08), (0.85, 0.77, 0.64), striped=True),  # brown
    Fur(3, (0.63, 0.62, 0.60), (0.15, 0.15, 0.16), (0.90, 0.89, 0.87), striped=True),  # silver
    Fur(2, (0.50, 0.50, 0.51), (0.19, 0.19, 0.21), (0.76, 0.75, 0.74), striped=True),  # grey
    Fur(4, (0.82, 0.55, 0.30), (0.58, 0.29, 0.11), (0.96, 0.84, 0.67), striped=True),  # ginger
    Fur(1.5, (0.87, 0.76, 0.60), (0.66, 0.48, 0.31), (0.96, 0.90, 0.80), striped=True),  # cream
)
PATTERNS = (
    Pattern("solid", 0.20, (_BLACK, _GREY, _WHITE, _CREAM, _RED, _CHOCOLATE)),
    Pattern("tabby", 0.32, _TABBIES, stripes=(0.8, 1.0), white=(-0.6, 0.5)),
    Pattern("tuxedo", 0.20, (_BLACK, _BLACK, _GREY, *_TABBIES[:2], _TABBIES[3]), stripes=(0.6, 1.0), white=(0.35, 1.0)),
    Pattern("calico", 0.14, (_BLACK, _GREY, _TABBIES[0]), stripes=(0.2, 0.7), white=(-0.5, 1.1), patches=1),
    Pattern("siamese", 0.14, (
        Fur(4, (0.90, 0.84, 0.75), (0.20, 0.14, 0.10), (0.97, 0.94, 0.88)),
        Fur(2, (0.90, 0.89, 0.87), (0.35, 0.36, 0.40), (0.97, 0.96, 0.95)),
        Fur(2, (0.92, 0.85, 0.75), (0.41, 0.28, 0.20), (0.97, 0.93, 0.87)),
        Fur(1, (0.93, 0.87, 0.79), (0.74, 0.47, 0.28), (0.98, 0.95, 0.90)),
    ), points=1),
)  # fmt: skip
ORANGE: Colour = (0.80, 0.50, 0.24)  # the second colour of a calico

Eyes = tuple[Colour, Colour]  # of the outer iris, and around the pupil
EYES: tuple[Eyes, ...] = (
    ((0.58, 0.64, 0.24), (0.84, 0.83, 0.46)),  # green-yellow
    ((0.40, 0.60, 0.32), (0.70, 0.79, 0.47)),  # green
    ((0.82, 0.61, 0.16), (0.95, 0.83, 0.40)),  # gold
    ((0.76, 0.43, 0.12), (0.92, 0.68, 0.26)),  # copper
    ((0.40, 0.62, 0.56), (0.68, 0.82, 0.68)),  # sea green
)
BLUE_EYES: tuple[Eyes, ...] = (((0.28, 0.53, 0.82), (0.60, 0.80, 0.95)), ((0.42, 0.63, 0.84), (0.72, 0.87, 0.96)))
NOSES: tuple[Colour, ...] = ((0.83, 0.54, 0.51), (0.75, 0.43, 0.37), (0.60, 0.35, 0.29))
DARK_NOSE: Colour = (0.22, 0.16, 0.16)
PINK_EAR: Colour = (0.80, 0.58, 0.54)
DARK_EAR: Colour = (0.42, 0.31, 0.29)
COLLARS: tuple[Colour, ...] = ((0.72, 0.14, 0.14), (0.16, 0.34, 0.62), (0.16, 0.46, 0.38), (0.86, 0.62, 0.16))
BACKDROPS = (
    Backdrop((  # a wall, out of focus
        ((0.80, 0.78, 0.74), (0.58, 0.60, 0.62), (0.90, 0.88, 0.84)),
        ((0.28, 0.36, 0.46), (0.14, 0.18, 0.26), (0.45, 0.52, 0.60)),
        ((0.72, 0.52, 0.43), (0.46, 0.28, 0.24), (0.88, 0.72, 0.60)),
        ((0.22, 0.21, 0.20), (0.08, 0.08, 0.09), (0.38, 0.35, 0.32)),
        ((0.62, 0.76, 0.84), (0.40, 0.58, 0.72), (0.88, 0.92, 0.94)),
        ((0.78, 0.64, 0.68), (0.54, 0.42, 0.50), (0.92, 0.82, 0.82)),
    )),
    Backdrop((  # lights in the distance
        ((0.16, 0.22, 0.20), (0.30, 0.46, 0.30), (0.92, 0.84, 0.48)),
        ((0.20, 0.14, 0.16), (0.56, 0.30, 0.24), (0.98, 0.78, 0.42)),
        ((0.12, 0.16, 0.26), (0.28, 0.40, 0.60), (0.80, 0.86, 0.96)),
    ), lights=1),
    Backdrop((  # a striped cloth, a fence, a blind
        ((0.86, 0.82, 0.72), (0.70, 0.62, 0.52), (0.94, 0.92, 0.86)),
        ((0.52, 0.62, 0.64), (0.36, 0.46, 0.52), (0.80, 0.84, 0.82)),
        ((0.66, 0.42, 0.36), (0.82, 0.72, 0.62), (0.50, 0.28, 0.25)),
    ), bands=0.6),
    Backdrop((  # a room with a floor and a window
        ((0.84, 0.79, 0.70), (0.48, 0.35, 0.25), (0.96, 0.96, 0.90)),
        ((0.56, 0.62, 0.62), (0.36, 0.29, 0.25), (0.86, 0.92, 0.96)),
        ((0.42, 0.37, 0.35), (0.24, 0.18, 0.15), (0.92, 0.78, 0.54)),
        ((0.76, 0.70, 0.72), (0.54, 0.44, 0.40), (0.96, 0.92, 0.90)),
    ), window=1),
    Backdrop((  # a garden
        ((0.34, 0.46, 0.24), (0.17, 0.27, 0.13), (0.74, 0.80, 0.52)),
        ((0.48, 0.50, 0.32), (0.30, 0.27, 0.18), (0.84, 0.80, 0.62)),
        ((0.40, 0.52, 0.40), (0.20, 0.31, 0.26), (0.86, 0.90, 0.84)),
    ), leaves=1, lights=0.3),
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Pose:
    """Pose of the head; the eyes stay near 0.32/0.68 of the width and 0.42 of the height."""

    scale: float
    roll: float
    shift: tuple[float, float]
    turn: float  # above 0 the nose moves to the viewer's right
    nod: float  # above 0 the nose moves down


@dataclass(frozen=True)
class Shape:
    """Shape of head and ears."""

    skull: tuple[float, float]  # half-width and half-height
    cheeks: float
    muzzle: float
    shoulders: float
    fluff: float  # how far the hair frays the outline
    ear_tip: tuple[float, float]
    ear_bases: tuple[float, float]  # where the ear's outer and inner edge start: angles above the horizontal
    ear_roundness: float


@dataclass(frozen=True)
class Coat:
    """Colours of the fur and the strengths, about 0 to 1, of the patterns laid over each other."""

    pattern: str
    base: Colour
    dark: Colour
    light: Colour
    second: Colour
    stripes: float
    stripe_count: float
    white: float
    blaze: float  # how high the white reaches between the eyes
    patches: float
    points: float
    texture: float


@dataclass(frozen=True)
class Features:
    """Eyes, nose, mouth, inner ears, whiskers, collar."""

    iris: Colour
    iris_centre: Colour
    eye_width: float
    eye_open: float
    eye_tilt: float
    pupil: float  # half-width: slit to round
    gaze: tuple[float, float]
    nose: Colour
    inner_ear: Colour
    smile: float
    tongue: bool
    whisker_length: float
    whisker_droop: float
    collar: Colour | None


@dataclass(frozen=True)
class Scene:
    """Background and light."""

    backdrop: Backdrop
    colours: tuple[Colour, Colour, Colour]
    blur: float  # standard deviation of the background's softness
    light: tuple[float, float]  # unit vector in the picture plane towards the light; y is down, so above is negative
    ambient: float
    exposure: float
    warmth: float
    vignette: float


@dataclass(frozen=True)
class Cat:
    """Parameters of one cat; drawing it needs nothing else but a size."""

    pose: Pose
    shape: Shape
    coat: Coat
    features: Features
    scene: Scene
    texture_seed: int


def pick(seed: int, index: int) -> Cat:
    """Draw the parameters of cat `index` of the set of a seed, a function of these two numbers (>= 0) alone."""
    rng = np.random.default_rng([seed, index])
    coat = _pick_coat(rng)
    pose = Pose(
        scale=rng.uniform(0.95, 1.03), roll=_normal(rng, 0.035), shift=(_normal(rng, 0.008), _normal(rng, 0.008)),
        turn=_normal(rng, 0.13), nod=_normal(rng, 0.06),
    )  # fmt: skip
    width = rng.uniform(0.375, 0.435)
    shape = Shape(
        skull=(width, rng.uniform(0.30, 0.34)), cheeks=width * rng.uniform(0.80, 0.98), muzzle=rng.uniform(0.15, 0.20),
        shoulders=rng.uniform(0.36, 0.50), fluff=_choose(rng, (0.004, 0.008, 0.016), (0.4, 0.35, 0.25)),
        ear_tip=(rng.uniform(0.30, 0.385), rng.uniform(0.075, 0.115)),
        ear_bases=(rng.uniform(0.30, 0.50), rng.uniform(1.08, 1.24)), ear_roundness=rng.uniform(0.012, 0.05),
    )  # fmt: skip
    features, scene = _pick_features(rng, coat), _pick_scene(rng)
    return Cat(pose, shape, coat, features, scene, texture_seed=int(rng.integers(2**31)))


def _normal(rng: np.random.Generator, spread: float) -> float:
    """Draw from a normal distribution clipped at two standard deviations."""
    return min(max(rng.standard_normal(), -2.0), 2.0) * spread


def _vary(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """Draw a colour near `colour`: lighter or darker, a little warmer or cooler."""
    bright, warm = 1 + _normal(rng, spread), _normal(rng, spread / 4)
    tinted = (c * bright * (1 + w) for c, w in zip(colour, (warm, 0, -warm), strict=True))
    red, green, blue = (min(max(value, 0.02), 0.99) for value in tinted)
    return red, green, blue


def _choose(rng: np.random.Generator, options: Sequence[T], shares: Sequence[float] | None = None) -> T:
    weights = None if shares is None else np.array(shares) / sum(shares)
    return options[int(rng.choice(len(options), p=weights))]


def _pick_coat(rng: np.random.Generator) -> Coat:
    pattern = _choose(rng, PATTERNS, tuple(pattern.share for pattern in PATTERNS))
    fur = _choose(rng, pattern.furs, tuple(fur.share for fur in pattern.furs))
    return Coat(
        pattern=pattern.name, base=_vary(rng, fur.base, 0.10), dark=_vary(rng, fur.dark, 0.10),
        light=_vary(rng, fur.light, 0.03), second=_vary(rng, ORANGE, 0.08),
        stripes=rng.uniform(*pattern.stripes) * fur.striped, stripe_count=rng.uniform(8.5, 12.0),
        white=max(rng.uniform(*pattern.white), 0.0), blaze=rng.uniform(0.0, 1.0),
        patches=pattern.patches, points=pattern.points, texture=rng.uniform(0.7, 1.2),
    )  # fmt: skip


def _pick_features(rng: np.random.Generator, coat: Coat) -> Features:
    """Draw features that go with the coat: pointed cats have blue eyes, dark cats dark noses."""
    blue = coat.points > 0 or (min(coat.base) > 0.8 and rng.random() < 0.4)
    iris, iris_centre = _choose(rng, BLUE_EYES if blue else EYES)
    skin = coat.dark if coat.points else coat.base
    plain = not coat.white and not coat.stripes and not coat.patches
    dark = plain and max(skin) < 0.62 and (coat.points > 0 or rng.random() < 0.8)
    relaxed = rng.random() < 0.25
    return Features(
        iris=_vary(rng, iris, 0.08), iris_centre=_vary(rng, iris_centre, 0.05), eye_width=rng.uniform(0.076, 0.096),
        eye_open=rng.uniform(0.45, 0.8) if relaxed else rng.uniform(0.85, 1.05), eye_tilt=rng.uniform(0.06, 0.28),
        pupil=rng.uniform(0.009, 0.020) if rng.random() < 0.5 else rng.uniform(0.026, 0.052),
        gaze=(_normal(rng, 0.006), _normal(rng, 0.004)),
        nose=_vary(rng, DARK_NOSE if dark else _choose(rng, NOSES), 0.08),
        inner_ear=_vary(rng, DARK_EAR if dark else PINK_EAR, 0.06),
        smile=rng.uniform(0.4, 1.0), tongue=rng.random() < 0.07,
        whisker_length=rng.uniform(0.30, 0.44), whisker_droop=rng.uniform(-0.04, 0.08),
        collar=_vary(rng, _choose(rng, COLLARS), 0.1) if rng.random() < 0.15 else None,
    )  # fmt: skip


def _pick_scene(rng: np.random.Generator) -> Scene:
    backdrop = _choose(rng, BACKDROPS)
    first, second, third = (_vary(rng, colour, 0.12) for colour in _choose(rng, backdrop.palettes))
    angle = rng.uniform(-2.6, -0.5)  # from above, as daylight and lamps are
    return Scene(
        backdrop=backdrop, colours=(first, second, third), blur=rng.uniform(0.014, 0.035),
        light=(math.cos(angle), math.sin(angle)), ambient=rng.uniform(0.4, 0.8), exposure=rng.uniform(0.78, 1.16),
        warmth=_normal(rng, 0.035), vignette=rng.uniform(0.0, 0.4),
    )  # fmt: skip
