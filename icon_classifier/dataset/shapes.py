"""Pictures of shapes, drawn on the spot: data for tests and for a first try without a network."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from icon_classifier.errors import DatasetError

_Points = list[tuple[float, float]]


def _polygon(corners: int) -> Callable[[float, float, float, float], _Points]:
    def points(x: float, y: float, radius: float, turn: float) -> _Points:
        angles = (turn + 2 * math.pi * each / corners for each in range(corners))
        return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]

    return points


# A circle is drawn as a polygon of so many corners that none is seen.
SHAPES = {"circle": _polygon(90), "square": _polygon(4), "triangle": _polygon(3)}


def draw_shape(shape: str, side: int, rng: random.Random) -> Image.Image:
    """Draw one shape of random place, size, turn and colours on a speckled ground.

    Parameters
    ----------
    shape : str
        One of :data:`SHAPES`.
    side : int
        Width and height (pixels).
    rng : random.Random
        Where all chance comes from.

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
        raise DatasetError(f"cannot draw {shape!r}; there are: {', '.join(SHAPES)}")
    ground = [rng.randrange(256) for _ in range(3)]
    # Each channel at least a quarter of the range away: the shape can always be seen.
    colour = tuple((each + rng.randrange(64, 193)) % 256 for each in ground)
    large = 4 * side  # drawn large and shrunk: smooth edges
    image = Image.new("RGB", (large, large), tuple(ground))
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        x, y, radius = (rng.random() * large for _ in range(3))
        shade = tuple(min(255, max(0, each + rng.randrange(-20, 21))) for each in ground)
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
        Seed of all chance.

    Yields
    ------
    label : str
        What is drawn.
    image : PIL.Image.Image
        See :func:`draw_shape`.

    Raises
    ------
    DatasetError
        If a label is no shape that can be drawn.
    """
    for label in labels:
        rng = random.Random(f"{seed} {label}")  # noqa: S311 - pictures, not secrets
        for _ in range(per_class):
            yield label, draw_shape(label, side, rng)


def write_shapes(
    folder: Path, labels: tuple[str, ...], *, per_class: int = 40, side: int = 64, seed: int = 42
) -> list[Path]:
    """Write PNG pictures of shapes into one folder a label; see :func:`draw_shapes`.

    Returns
    -------
    list of Path
        The pictures, in order.
    """
    paths: list[Path] = []
    drawn = draw_shapes(labels, per_class=per_class, side=side, seed=seed)
    for number, (label, image) in enumerate(drawn):
        path = folder / label / f"{number % per_class:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        image.save(beside, "PNG")
        beside.replace(path)
        paths.append(path)
    return paths
