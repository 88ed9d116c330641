"""Colours of the demo cats: furs, eyes, noses and backgrounds, and which fur goes with which pattern.

Tables only; `demo_catalogue.pick` chooses from them and varies what it chose. Colours are RGB in [0, 1].
"""

from dataclasses import dataclass

Colour = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Fur:
    """Colours of one kind of fur in even daylight, and how often it comes up among those of its pattern."""

    share: float
    base: Colour
    dark: Colour
    light: Colour
    striped: bool = False


@dataclass(frozen=True)
class Pattern:
    """One pattern: how often it comes up, its furs, and the range each strength is drawn from (below 0 means none)."""

    name: str
    share: float
    furs: tuple[Fur, ...]
    stripes: Range = (0, 0)
    white: Range = (0, 0)
    patches: float = 0
    points: float = 0


@dataclass(frozen=True)
class Backdrop:
    """One kind of background: the strengths of its layers and the colours it comes in (ground, second, accent)."""

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
_BROWN_TABBY = Fur(4, (0.55, 0.44, 0.32), (0.15, 0.11, 0.08), (0.85, 0.77, 0.64), striped=True)
_SILVER_TABBY = Fur(3, (0.63, 0.62, 0.60), (0.15, 0.15, 0.16), (0.90, 0.89, 0.87), striped=True)
_GREY_TABBY = Fur(2, (0.50, 0.50, 0.51), (0.19, 0.19, 0.21), (0.76, 0.75, 0.74), striped=True)
_GINGER_TABBY = Fur(4, (0.82, 0.55, 0.30), (0.58, 0.29, 0.11), (0.96, 0.84, 0.67), striped=True)
_CREAM_TABBY = Fur(1.5, (0.87, 0.76, 0.60), (0.66, 0.48, 0.31), (0.96, 0.90, 0.80), striped=True)

PATTERNS = (
    Pattern("solid", 0.20, (_BLACK, _GREY, _WHITE, _CREAM, _RED, _CHOCOLATE)),
    Pattern(
        "tabby",
        0.32,
        (_BROWN_TABBY, _SILVER_TABBY, _GREY_TABBY, _GINGER_TABBY, _CREAM_TABBY),
        stripes=(0.8, 1.0),
        white=(-0.6, 0.5),
    ),
    Pattern(
        "tuxedo",
        0.20,
        (_BLACK, _BLACK, _GREY, _BROWN_TABBY, _SILVER_TABBY, _GINGER_TABBY),
        stripes=(0.6, 1.0),
        white=(0.35, 1.0),
    ),
    Pattern("calico", 0.14, (_BLACK, _GREY, _BROWN_TABBY), stripes=(0.2, 0.7), white=(-0.5, 1.1), patches=1),
    Pattern(
        "siamese",
        0.14,
        (
            Fur(4, (0.90, 0.84, 0.75), (0.20, 0.14, 0.10), (0.97, 0.94, 0.88)),
            Fur(2, (0.90, 0.89, 0.87), (0.35, 0.36, 0.40), (0.97, 0.96, 0.95)),
            Fur(2, (0.92, 0.85, 0.75), (0.41, 0.28, 0.20), (0.97, 0.93, 0.87)),
            Fur(1, (0.93, 0.87, 0.79), (0.74, 0.47, 0.28), (0.98, 0.95, 0.90)),
        ),
        points=1,
    ),
)
"""Every pattern a demo cat can have."""

ORANGE: Colour = (0.80, 0.50, 0.24)
"""The second colour of a calico."""

Eyes = tuple[Colour, Colour]
"""Colour of the outer iris, colour around the pupil."""

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
    Backdrop(  # a wall, out of focus
        (
            ((0.80, 0.78, 0.74), (0.58, 0.60, 0.62), (0.90, 0.88, 0.84)),
            ((0.28, 0.36, 0.46), (0.14, 0.18, 0.26), (0.45, 0.52, 0.60)),
            ((0.72, 0.52, 0.43), (0.46, 0.28, 0.24), (0.88, 0.72, 0.60)),
            ((0.22, 0.21, 0.20), (0.08, 0.08, 0.09), (0.38, 0.35, 0.32)),
            ((0.62, 0.76, 0.84), (0.40, 0.58, 0.72), (0.88, 0.92, 0.94)),
            ((0.78, 0.64, 0.68), (0.54, 0.42, 0.50), (0.92, 0.82, 0.82)),
        ),
    ),
    Backdrop(  # lights in the distance
        (
            ((0.16, 0.22, 0.20), (0.30, 0.46, 0.30), (0.92, 0.84, 0.48)),
            ((0.20, 0.14, 0.16), (0.56, 0.30, 0.24), (0.98, 0.78, 0.42)),
            ((0.12, 0.16, 0.26), (0.28, 0.40, 0.60), (0.80, 0.86, 0.96)),
        ),
        lights=1,
    ),
    Backdrop(  # a striped cloth, a fence, a blind
        (
            ((0.86, 0.82, 0.72), (0.70, 0.62, 0.52), (0.94, 0.92, 0.86)),
            ((0.52, 0.62, 0.64), (0.36, 0.46, 0.52), (0.80, 0.84, 0.82)),
            ((0.66, 0.42, 0.36), (0.82, 0.72, 0.62), (0.50, 0.28, 0.25)),
        ),
        bands=0.6,
    ),
    Backdrop(  # a room with a floor and a window
        (
            ((0.84, 0.79, 0.70), (0.48, 0.35, 0.25), (0.96, 0.96, 0.90)),
            ((0.56, 0.62, 0.62), (0.36, 0.29, 0.25), (0.86, 0.92, 0.96)),
            ((0.42, 0.37, 0.35), (0.24, 0.18, 0.15), (0.92, 0.78, 0.54)),
            ((0.76, 0.70, 0.72), (0.54, 0.44, 0.40), (0.96, 0.92, 0.90)),
        ),
        window=1,
    ),
    Backdrop(  # a garden
        (
            ((0.34, 0.46, 0.24), (0.17, 0.27, 0.13), (0.74, 0.80, 0.52)),
            ((0.48, 0.50, 0.32), (0.30, 0.27, 0.18), (0.84, 0.80, 0.62)),
            ((0.40, 0.52, 0.40), (0.20, 0.31, 0.26), (0.86, 0.90, 0.84)),
        ),
        leaves=1,
        lights=0.3,
    ),
)
"""Every background."""
