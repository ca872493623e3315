"""Draw pictures of shapes: data for tests and for a first try without a network."""

import math
import random
from collections.abc import Callable, Iterable, Iterator

from PIL import Image, ImageDraw

from icon_classifier.errors import DatasetError

_Points = list[tuple[float, float]]


def _polygon(corners: int) -> Callable[[float, float, float, float], _Points]:
    def points(x: float, y: float, radius: float, turn: float) -> _Points:
        angles = (turn + 2 * math.pi * each / corners for each in range(corners))
        return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]

    return points


# A circle is drawn as a polygon of so many corners that none is visible.
SHAPES = {"circle": _polygon(90), "square": _polygon(4), "triangle": _polygon(3)}


def draw_shape(shape: str, side: int, rng: random.Random) -> Image.Image:
    """Draw one shape of random position, size, angle and colours on a speckled background.

    Parameters
    ----------
    shape : str
        One of :data:`SHAPES`.
    side : int
        Width and height (pixels).
    rng : random.Random
        Source of all randomness.

    Returns
    -------
    PIL.Image.Image
        RGB, ``side`` x ``side``.

    Raises
    ------
    DatasetError
        If there is no such shape.
    """
    if shape not in SHAPES:
        raise DatasetError(f"expected a shape of {', '.join(SHAPES)}, got {shape!r}")
    background = [rng.randrange(256) for _ in range(3)]
    # Each channel at least a quarter of the range away: the shape is always visible.
    colour = tuple((each + rng.randrange(64, 193)) % 256 for each in background)
    large = 4 * side  # drawn large and reduced: smooth edges
    image = Image.new("RGB", (large, large), tuple(background))
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        x, y, radius = (rng.random() * large for _ in range(3))
        shade = tuple(min(255, max(0, each + rng.randrange(-20, 21))) for each in background)
        draw.ellipse((x, y, x + radius / 8, y + radius / 8), fill=shade)
    radius = large * rng.uniform(0.22, 0.4)
    x, y = (rng.uniform(radius, large - radius) for _ in range(2))
    draw.polygon(SHAPES[shape](x, y, radius, rng.uniform(0, 2 * math.pi)), fill=colour)
    return image.resize((side, side), Image.Resampling.BOX)


def draw_shapes(
    labels: Iterable[str], *, per_class: int = 40, side: int = 64, seed: int = 42
) -> Iterator[tuple[str, Image.Image]]:
    """Draw shapes, label by label.

    The same seed draws the same pictures, and a longer run begins with those of a shorter one.

    Parameters
    ----------
    labels : iterable of str
        Shapes to draw.
    per_class : int
        Pictures of each.
    side : int
        Width and height (pixels).
    seed : int
        Seed of all randomness.

    Yields
    ------
    label : str
        What is drawn.
    image : PIL.Image.Image
        See :func:`draw_shape`.

    Raises
    ------
    DatasetError
        If a label is not one of :data:`SHAPES`.
    """
    for label in labels:
        rng = random.Random(f"{seed} {label}")  # noqa: S311 - pictures, not secrets
        for _ in range(per_class):
            yield label, draw_shape(label, side, rng)
