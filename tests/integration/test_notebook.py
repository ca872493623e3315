"""The app's notebook in a real kernel, driven by the very messages that a browser sends."""

from __future__ import annotations

import ast
import base64
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from PIL import Image

from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from icon_classifier.server.visitor import KernelPage
from tests.support.models import write_model
from tests.support.pictures import encode, gradient
from tests.support.servers import NOTEBOOK, ROOT, own_sockets, project_copy


class Page:
    """What a browser does to the notebook's widgets."""

    def __init__(self, client: NotebookClient) -> None:
        self._client = client
        self._page = KernelPage(client.kc)
        run_sync(self._page.load_widgets)()

    def value(self, expression: str) -> Any:
        """Ask the kernel for the value of an expression."""
        cell = nbformat.v4.new_code_cell(f"print(repr({expression}))")
        self._client.nb.cells.append(cell)
        self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        return ast.literal_eval("".join(output.text for output in cell.outputs))

    def upload(self, data: bytes, name: str = "photo.jpg") -> None:
        run_sync(self._page.choose)(data, name)

    def click(self) -> None:
        run_sync(self._page.click)()

    def drop(self, data: bytes) -> None:
        """Send a photo as the drop zone does."""
        photo = {"kind": "photo", "name": "photo.bmp", "index": 0, "count": 1}
        message = {"method": "custom", "content": photo}
        content = {"comm_id": self.value("drop_zone.model_id"), "data": message}
        run_sync(self._page.send)("comm_msg", content, [data])

    @property
    def answer(self) -> str:
        text: str = self.value("lbl_pred.value")
        return text

    @property
    def thumbnails(self) -> list[bytes]:
        shown = self.value("[output['data']['image/jpeg'] for output in out_pl.outputs]")
        return [base64.b64decode(data) for data in shown]


def opened(folder: Path) -> Iterator[Page]:
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    # What is freed goes back to the system, as in forked kernels.
    environment = {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "131072"}
    with own_sockets() as config:
        client = NotebookClient(notebook, resources=resources, timeout=None, config=config)
        with client.setup_kernel(env=os.environ | environment):
            for index, cell in enumerate(list(notebook.cells)):
                client.execute_cell(cell, index)
            yield Page(client)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = project_copy(tmp_path_factory.mktemp("colours"))
    write_model(folder)
    yield from opened(folder)


@pytest.mark.usefixtures("project_model")
def test_shipped_model_predicts_grizzly(project_model: Model, grizzly: Path) -> None:
    for page in opened(ROOT):
        page.upload(grizzly.read_bytes())
        page.click()
        expected = project_model.predict(read_image(grizzly.read_bytes()))
        assert expected.label == "grizzly"
        assert page.answer == str(expected)
        assert page.value("all(label in lbl_title.value.lower() for label in classifier.labels)")


def test_upload_is_a_memoryview(colours: Page) -> None:
    colours.upload(encode(gradient()))
    assert colours.value("type(btn_upload.value[-1].content).__name__") == "memoryview"


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_upload_and_click_predict_the_colour(colours: Page, colour: str) -> None:
    picture = gradient().resize((400, 300))
    picture.paste(colour if colour != "green" else "lime", (0, 0, 400, 300))
    colours.upload(encode(picture, "JPEG"))
    colours.click()
    assert colours.answer.startswith(f"Prediction: {colour}; Probability: 0.9")
    [small] = colours.thumbnails
    assert read_image(small).size == (128, 96)


def test_dropped_photo_is_answered_and_the_button_leaves_the_answer(colours: Page) -> None:
    colours.drop(encode(Image.new("RGB", (40, 30), "red")))
    answer = colours.answer
    assert answer.startswith("Prediction: red; Probability: 0.9")
    assert colours.value("answer.answer['label']") == "red"
    colours.click()
    assert colours.answer == answer
    assert colours.value("answer.answer['label']") == "red"


def test_file_of_the_uploader_can_be_read_by_another_callback(colours: Page) -> None:
    """As older lessons do; the drop zone stands in the notebook, too."""
    photo = encode(gradient())
    colours.upload(photo)
    assert colours.value("bytes(btn_upload.value[-1].content)") == photo


def test_file_that_is_no_picture_is_refused_in_words(colours: Page) -> None:
    colours.upload(b"just some words", "photo.jpg")
    colours.click()
    assert "not a picture" in colours.answer
    assert colours.value("btn_run.disabled") is False
    assert colours.value("btn_run.description") == "Classify Icon"


def test_click_without_a_photo_asks_for_one(tmp_path: Path) -> None:
    folder = project_copy(tmp_path)
    write_model(folder)
    for page in opened(folder):
        page.click()
        assert "choose a photo" in page.answer


def test_page_without_a_model_says_so(tmp_path: Path) -> None:
    for page in opened(project_copy(tmp_path)):
        assert "missing" in page.value("lbl_hint.value")
        page.upload(encode(gradient()))
        page.click()
        assert "missing" in page.answer


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["drop", "upload"])
def test_kernel_memory_keeps_nothing_of_a_photo(colours: Page, way: str) -> None:
    # Four pixels whose red is their blue: the file has them the other way round.
    mark = bytes([201, 202, 201, 204, 205, 204, 207, 208, 207, 210, 211, 210])
    rows = np.frombuffer(mark * (1200 * 300), np.uint8).reshape(1200, 1200, 3)
    photo = encode(Image.fromarray(rows), "BMP")  # uncompressed: 4 MB, little but marks
    stored = mark[::-1].hex()  # the other way round, so that the question does not count itself
    module = "__import__('importlib').import_module('tests.support.processes')"
    question = f"{module}.count_in_memory(bytes.fromhex('{stored}')[::-1])"
    held = f"[globals().update(held=bytes.fromhex('{stored}')[::-1] * 10**5), {question}][1]"
    assert colours.value(held) >= 100_000, "the search finds what is there"
    trim = "__import__('importlib').import_module('icon_classifier.system.memory').trim_heap()"
    colours.value("globals().pop('held') and 0")
    # With several threads ONNX Runtime keeps an arena from the first prediction on, and does not
    # write to all of it: what was freed there just before stays in it. A page's kernel has none.
    colours.value(trim)
    colours.upload(encode(gradient()))
    colours.click()
    if way == "drop":
        colours.drop(photo)
    else:
        colours.upload(photo)
        colours.click()
    assert "red" in colours.answer or "blue" in colours.answer
    # Freed buffers of a decoder stay in the heap until a page's kernel is idle.
    colours.value(trim)
    assert colours.value(question) * len(mark) < 100_000 < 0.03 * len(photo)
