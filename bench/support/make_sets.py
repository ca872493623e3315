"""Make sets of pictures unlike usual photos for bench-train.

``python -m bench.support.make_sets FOLDER``. They are drawn, or come from packages: scikit-learn's
digits and, where those are installed, faces and parts of photographs of scikit-image and brain
scans of nilearn.
"""

import gzip
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import spectrogram
from sklearn.datasets import load_digits

Pictures = Iterator[tuple[str, Image.Image]]

PHOTOGRAPHS = "astronaut.png chelsea.png coffee.png hubble_deep_field.jpg ihc.png retina.jpg"
SCANS = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"

random = np.random.default_rng(0)


def package(name: str) -> Path:
    """Return the folder of a package without importing it."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path("missing")


def gray(values: np.ndarray) -> Image.Image:
    """Turn an array (H, W) into a picture, its least value black and its greatest white."""
    values = values.astype(float) - values.min()
    return Image.fromarray(np.uint8(255 * values / max(values.max(), 1e-9)))


def charts() -> Pictures:
    for kind in ("bars", "lines", "pie", "points") * 40:
        figure = Figure(figsize=tuple(random.uniform((3, 2.5), (5, 4))), dpi=80)
        canvas, axes = FigureCanvasAgg(figure), figure.subplots()
        colours = random.random((random.integers(3, 9), 3))
        heights = random.uniform(0.1, 1, len(colours))
        if kind == "bars":
            axes.bar(range(len(colours)), heights, color=colours)
        elif kind == "lines":
            axes.plot(random.normal(size=(30, 3)).cumsum(axis=0), color=colours[0])
        elif kind == "pie":
            axes.pie(heights, colors=colours)
        else:
            axes.scatter(*random.normal(size=(2, 40)), color=colours[0])
        canvas.draw()
        yield kind, Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB")


def digits() -> Pictures:
    for image, label in islice(zip(*load_digits(return_X_y=True), strict=True), 400):
        yield str(label), gray(image.reshape(8, 8)).resize((96, 96))


def sounds() -> Pictures:
    time = np.arange(16000) / 8000  # seconds
    for kind, slope in (("falling", -150), ("steady", 0), ("rising", 400)) * 50:
        phase = time * (random.uniform(600, 2000) + slope * time)
        wave = np.sin(2 * np.pi * phase) * np.sin(random.uniform(5, 30) * time)
        wave += random.normal(0, random.uniform(0.1, 0.5), len(time))
        power = np.log(spectrogram(wave, 8000, nperseg=256)[2][::-1] + 1e-6)
        colours = matplotlib.colormaps["magma"](np.asarray(gray(power)))
        yield kind, Image.fromarray(np.uint8(255 * colours)).convert("RGB").resize((300, 240))


def textures() -> Pictures:
    for kind in ("cells", "grain", "tiles", "waves") * 40:
        y, x = np.mgrid[:256, :256] / random.uniform(6, 30)
        noise = random.normal(size=(256, 256))
        cells = gaussian_filter(noise, random.uniform(2, 5))
        cells /= cells.std()
        values = {
            "cells": np.abs(cells),
            "grain": gaussian_filter(noise, (1, random.uniform(8, 40))),
            "tiles": (np.floor(x) + np.floor(y)) % 2 + cells / 5,
            "waves": np.sin(x * random.uniform(-1, 1) + y + cells),
        }[kind]
        shade = np.asarray(gray(values))[..., None] * random.uniform(0.2, 1, 3)
        yield kind, Image.fromarray(np.uint8(shade))


def faces() -> Pictures:
    for face in np.load(package("skimage") / "data" / "lfw_subset.npy")[:100]:
        yield "upright", gray(face)
        yield "upside down", gray(face[::-1])


def cutouts() -> Pictures:
    for name in PHOTOGRAPHS.split() * 30:
        picture = Image.open(package("skimage") / "data" / name).convert("RGB")
        side = int(min(picture.size) * random.uniform(0.3, 0.7))
        x, y = random.integers(np.array(picture.size) - side)
        yield name, picture.crop((x, y, x + side, y + side))


def scans() -> Pictures:
    for tissue in ("gm", "t1", "wm"):
        raw = gzip.decompress((package("nilearn") / SCANS.format(tissue)).read_bytes())
        volume = np.frombuffer(raw, np.uint8, offset=352).reshape((197, 233, 189), order="F")
        for axis, name in enumerate(("sagittal", "coronal", "axial")):
            for share in np.linspace(0.25, 0.75, 25):
                yield name, gray(np.rot90(volume.take(int(share * volume.shape[axis]), axis)))


def main() -> None:
    makers = [charts, digits, sounds, textures]
    makers += [faces, cutouts] if package("skimage").is_dir() else []
    makers += [scans] if package("nilearn").is_dir() else []
    for make in makers:
        for number, (label, picture) in enumerate(make()):
            file = Path(sys.argv[1], make.__name__, label, f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)


if __name__ == "__main__":
    main()
