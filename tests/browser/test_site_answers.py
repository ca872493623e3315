"""The worker of the static site does with a photo what the Python package does."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Browser, Page

from icon_classifier.errors import ImageError
from icon_classifier.images import Limits, read_image
from icon_classifier.model.heatmap import relevance
from icon_classifier.model.pipeline import METHODS, PAD_MODES, Pipeline
from icon_classifier.model.session import Model
from icon_classifier.site.build import write_site
from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS, watching
from tests.support.models import LABELS, SIZE, model_bytes
from tests.support.pictures import encode, gradient, turned
from tests.support.site_host import SiteHost, site_host
from tests.support.site_worker import SiteWorker

CASES = 40
"""How many random pictures a test takes."""


GREY_STEPS = [
    {"op": "resize", "size": (14, 12), "method": "pad", "pad_mode": "border", "resample": 3},
    {"op": "crop_pad", "size": (SIZE, SIZE), "pad_mode": "zeros"},
]

MODELS = {
    "colours": model_bytes(),
    "grey": model_bytes(mode="L", transforms=GREY_STEPS, unsure=None, temperature=0.5),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteHost]:
    """Serves a site of each model."""
    folder = tmp_path_factory.mktemp("sites")
    for name, data in MODELS.items():
        write_site(folder / name, tmp_path_factory.mktemp("project"), data)
    with site_host(folder) as served:
        yield served


@pytest.fixture(scope="module")
def open_site(browser: Browser, host: SiteHost) -> Iterator[Callable[[str], SiteWorker]]:
    with watching(browser) as open_page:
        yield lambda name: SiteWorker(open_page(), host, name)


@pytest.fixture(scope="module")
def worker(open_site: Callable[[str], SiteWorker]) -> SiteWorker:
    return open_site("colours")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20)


def random_size(random: np.random.Generator, least: int, most: int) -> tuple[int, int]:
    """Draw a width and a height, small ones as often as large ones."""
    width, height = np.exp(random.uniform(np.log(least), np.log(most + 1), 2)).astype(int)
    return int(width), int(height)


def noise(random: np.random.Generator, size: tuple[int, int], channels: int) -> np.ndarray:
    """Draw pixels, uint8, shape (H, W, K): grey levels, or black and white, where filters clip."""
    pixels = random.integers(0, 256, (size[1], size[0], channels), np.uint8)
    return np.where(pixels > 127, 255, 0).astype(np.uint8) if random.random() < 0.5 else pixels


def picture_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def random_steps(random: np.random.Generator) -> list[dict[str, Any]]:
    """Draw one to three transforms."""
    steps = []
    for _ in range(random.integers(1, 4)):
        step = {"size": random_size(random, 1, 200), "pad_mode": str(random.choice([*PAD_MODES]))}
        if random.random() < 0.3:
            steps.append({"op": "crop_pad", **step})
            continue
        method = str(random.choice(METHODS))
        resample = int(random.choice(list(Image.Resampling)))
        steps.append({"op": "resize", **step, "method": method, "resample": resample})
    return steps


def expected_pixels(file: bytes, mode: str, steps: list[dict[str, Any]]) -> np.ndarray:
    image = read_image(file).convert(mode)
    return np.atleast_3d(np.asarray(Pipeline.from_json(steps)(image)))


@pytest.mark.parametrize("resample", list(Image.Resampling), ids=lambda each: each.name)
def test_resize_equals_pillow_to_the_byte(
    resample: Image.Resampling, worker: SiteWorker, random: np.random.Generator
) -> None:
    for _ in range(CASES):
        pixels = noise(random, random_size(random, 1, 300), int(random.choice([1, 3])))
        height, width = pixels.shape[:2]
        size = random_size(random, 1, 250)
        # Where one side stays as it is, Pillow leaves one of its two passes out.
        size = [size, (width, size[1]), (size[0], height), (width, height)][random.integers(4)]
        expected = np.asarray(picture_of(pixels).resize(size, resample))
        result = worker.resize(pixels, size, resample)
        same = np.array_equal(result, expected.reshape(result.shape))
        assert same, f"{width} x {height} to {size} differs"


def test_transforms_equal_those_of_the_pipeline_to_the_byte(
    worker: SiteWorker, random: np.random.Generator
) -> None:
    for _ in range(CASES):
        channels = int(random.choice([1, 3, 4]))  # grey, RGB, and with transparency
        photo = picture_of(noise(random, random_size(random, 8, 500), channels))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = int(random.integers(1, 9))
        file = encode(photo, exif=exif)
        mode, steps = str(random.choice(["RGB", "L"])), random_steps(random)
        result = worker.transform(file, mode, steps)
        same = np.array_equal(result, expected_pixels(file, mode, steps))
        assert same, f"{photo.mode} of {photo.size} differs by {mode} and {steps}"


@pytest.mark.parametrize("method", METHODS)
def test_photo_of_many_tiles_is_resized_to_the_byte(
    method: str, worker: SiteWorker, random: np.random.Generator
) -> None:
    file = encode(picture_of(noise(random, (1301, 2101), 1)))
    step = {"op": "resize", "size": (224, 224), "pad_mode": "reflection", "resample": 2}
    result = worker.transform(file, "RGB", [{**step, "method": method}])
    assert np.array_equal(result, expected_pixels(file, "RGB", [{**step, "method": method}]))


@pytest.mark.slow
def test_photo_of_more_than_24_megapixels_is_halved_first(
    worker: SiteWorker, random: np.random.Generator
) -> None:
    # Both sides are odd; a repeated pattern makes a file of few bytes.
    pattern = random.integers(0, 256, (211, 97), np.uint8)
    file = encode(Image.fromarray(np.tile(pattern, (25, 53))[:5237, :5063]), compress_level=1)
    step = {"op": "resize", "size": (224, 224), "pad_mode": "zeros", "resample": 2}
    result = worker.transform(file, "RGB", [{**step, "method": "squish"}])
    assert np.array_equal(result, expected_pixels(file, "RGB", [{**step, "method": "squish"}]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_photo_is_turned_upright(kind: str, orientation: int, worker: SiteWorker) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = encode(gradient(), kind, quality=95, exif=exif)
    steps = [{"op": "crop_pad", "size": read_image(file).size, "pad_mode": "zeros"}]
    result = worker.transform(file, "RGB", steps).astype(int)
    # Another decoder may round otherwise.
    assert np.abs(result - expected_pixels(file, "RGB", steps)).mean() < 1


def test_colour_profile_of_a_photo_changes_nothing(worker: SiteWorker) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"....", 1).replace(b"gXYZ", b"rXYZ", 1)
    swapped = swapped.replace(b"....", b"gXYZ", 1)
    steps = [{"op": "crop_pad", "size": (96, 64), "pad_mode": "zeros"}]
    plain = worker.transform(encode(gradient()), "RGB", steps)
    tagged = worker.transform(encode(gradient(), icc_profile=swapped), "RGB", steps)
    assert np.array_equal(tagged, plain)


@pytest.mark.parametrize("name", MODELS)
def test_answer_is_that_of_the_model(name: str, open_site: Callable[[str], SiteWorker]) -> None:
    worker, model = open_site(name), Model(MODELS[name])
    for picture in (gradient(), gradient("L"), gradient("RGBA"), Image.new("RGB", (9, 50), "red")):
        file = encode(picture)
        image = read_image(file)
        expected = model.predict(image, explain=True)
        answer = worker.predict(file)
        ranking = [(LABELS[index], probability) for index, probability in answer["ranking"]]
        assert dict(ranking) == pytest.approx(dict(expected.ranking), abs=1e-5)
        assert ranking == sorted(ranking, key=lambda entry: -entry[1])
        assert answer["score"] == pytest.approx(expected.score, abs=1e-5)
        assert answer["known"] == expected.known
        assert expected.evidence is not None
        cells = relevance(expected.evidence, LABELS.index(ranking[0][0]))
        heat = np.array(answer["heat"]["cells"]).reshape(cells.shape)
        assert np.abs(heat - cells.astype(int)).max() <= 1
        left, top, right, bottom = model.info.pipeline.view(image.size)
        sides = np.array([*image.size, *image.size])
        box = np.array([left, top, right - left, bottom - top]) / sides
        assert answer["heat"]["box"] == pytest.approx(box)


def test_previews_are_small_jpegs_of_the_upright_photo(worker: SiteWorker) -> None:
    answer = worker.predict(turned(6, gradient(size=(1300, 650))))
    sizes = []
    for name in ("preview", "thumbnail"):
        with Image.open(io.BytesIO(base64.b64decode(answer[name]))) as picture:
            assert picture.format == "JPEG"
            sizes.append(picture.size)
    assert sizes == [(320, 640), (36, 72)]


def test_heic_is_decoded_by_libheif_loaded_with_the_first(
    worker: SiteWorker, host: SiteHost
) -> None:
    def loaded() -> list[str]:
        return [path for path in host.paths if "/heif-" in path and path.endswith(".bin")]

    model = Model(model_bytes())
    assert not loaded()
    for orientation in (1, 6, 8):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        picture = gradient(size=(333, 251))
        with io.BytesIO() as buffer:
            heif = pillow_heif.from_pillow(picture)
            heif.save(buffer, quality=90, exif=exif.tobytes())
            file = buffer.getvalue()
        expected = model.predict(read_image(file))
        answer = worker.predict(file)
        assert LABELS[answer["ranking"][0][0]] == expected.label
        assert answer["ranking"][0][1] == pytest.approx(expected.probability, abs=0.01)
    assert len(loaded()) == 1


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='90' height='90'/>", "unsupported"),
        (encode(gradient(), "JPEG")[:-200], "damaged"),
        (encode(gradient())[:-200], "damaged"),
        (encode(gradient(), "HEIF")[:-200], "damaged"),
        (encode(Image.new("L", (7, 90))), "too_small"),
        (encode(Image.new("L", (9000, 6000))), "too_large"),
        (encode(gradient(), "BMP") + bytes(Limits().max_bytes), "too_many_bytes"),
    ],
    ids=["empty", "text", "svg", "jpeg", "png", "heic", "small", "large", "bytes"],
)
def test_file_that_cannot_be_used_has_the_reason_that_python_has(
    file: bytes, reason: str, worker: SiteWorker
) -> None:
    assert worker.predict(file) == {"kind": "problem", "reason": reason}
    with pytest.raises(ImageError):
        read_image(file)


def test_photo_too_narrow_to_pad_is_refused(worker: SiteWorker) -> None:
    file = encode(Image.new("RGB", (30_000, 10)))
    step = {"op": "resize", "size": (224, 224), "pad_mode": "zeros", "resample": 2}
    with pytest.raises(Exception, match="too_narrow"):
        worker.transform(file, "RGB", [{**step, "method": "pad"}])


def test_files_are_fetched_once_and_again_where_the_kept_ones_are_damaged(
    new_page: Callable[..., Page], host: SiteHost
) -> None:
    def requests() -> list[str]:
        return sorted(path[-4:] for path in host.paths if path.endswith((".bin", ".onnx")))

    page = new_page()
    host.paths.clear()
    for _ in range(2):
        SiteWorker(page, host, "colours")
        assert requests() == [".bin", "onnx"]
    page.evaluate(
        """async (name) => {
          const cache = await caches.open(name);
          for (const request of await cache.keys()) await cache.put(request, new Response('?'));
        }""",
        f"icon-classifier {host.url}colours/",
    )
    SiteWorker(page, host, "colours")
    assert requests() == [".bin", ".bin", "onnx", "onnx"]


def test_browser_that_returns_noise_for_pixels_is_noticed(
    new_page: Callable[..., Page], host: SiteHost
) -> None:
    page = new_page()
    SiteWorker(page, host, "colours")
    assert page.evaluate("site.module.readsPixels()")
    page.evaluate(
        """() => {
          const { prototype } = OffscreenCanvasRenderingContext2D;
          prototype.getImageData = (x, y, width, height) => new ImageData(width, height);
        }"""
    )
    assert not page.evaluate("site.module.readsPixels()")


def test_model_is_loaded_and_answers_without_https(
    browser: Browser, host: SiteHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "url", host.url.replace("localhost", "site.test"))
    rule = "--host-resolver-rules=MAP site.test localhost"
    with browser.browser_type.launch(executable_path=find_browser(), args=[*ARGUMENTS, rule]) as it:
        page = it.new_page()
        worker = SiteWorker(page, host, "colours")
        assert not page.evaluate("isSecureContext")
        assert worker.predict(encode(gradient()))["kind"] == "answer"
