"""What a link to the page shows elsewhere, and the example that it names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from icon_classifier import images
from icon_classifier.images import read_image, read_image_file
from icon_classifier.server import preview
from tests.support.models import model_bytes
from tests.support.pictures import encode


def opening(folder: Path, code: str = "classifier = ui.Classifier()") -> str:
    """Write a notebook that runs some code; return its name."""
    cells = [nbformat.v4.new_markdown_cell("# Bears"), nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "opening.ipynb")
    return "opening.ipynb"


def test_link_has_a_picture_where_the_page_has_an_example(tmp_path: Path) -> None:
    notebook = opening(tmp_path)
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    assert "og:image" not in preview.describe(tmp_path, notebook).head("/")
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "README.md").write_text("no picture")
    assert "og:image" not in preview.describe(tmp_path, notebook).head("/")
    (tmp_path / "examples" / "red.HEIC").write_bytes(b"")
    head = preview.describe(tmp_path, notebook).head("/sub/")
    assert '<meta property="og:image" content="/sub/example.jpg">' in head


@pytest.mark.parametrize(
    ("code", "has_title"),
    [
        ("classifier = ui.Classifier()", True),
        ("Classifier( )", True),
        ("ui.Classifier(str(written.parent))", False),
        ("MyClassifier()", False),
        ("1 + 1", False),
    ],
)
def test_only_a_notebook_that_opens_the_model_gets_its_title(
    code: str, has_title: bool, tmp_path: Path
) -> None:
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    page = preview.describe(tmp_path, opening(tmp_path, code))
    assert bool(page.title) == has_title
    assert bool(page.head("/")) == has_title
    assert not preview.describe(tmp_path, "missing.ipynb").title


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("", "Your photo is not stored."),
        ("/feedback", "Your photo is stored only if you say whether its answer is right."),
    ],
)
def test_link_says_what_becomes_of_a_photo(
    folder: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEEDBACK_FOLDER", folder)
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    assert preview.describe(tmp_path, opening(tmp_path)).description.endswith(f"? {sentence}")


@pytest.mark.parametrize(
    "entry",
    [b"", b"\x0a\x0ficon_classifier\x12\x03{}}", b"\x0a\x0ficon_classifier\x12\x02[]"],
    ids=["nothing", "no JSON", "no labels"],
)
def test_file_without_labels_has_none(tmp_path: Path, entry: bytes) -> None:
    path = tmp_path / "export.onnx"
    path.write_bytes(b"something else" + entry)
    assert preview.describe(tmp_path, opening(tmp_path)) == preview.Page()


def test_long_metadata_is_read_whole(tmp_path: Path) -> None:
    entries = {"format": 1, "labels": [f"class_{number}" for number in range(4000)]}
    text = json.dumps(entries).encode()
    length = bytes([len(text) & 0x7F | 0x80, len(text) >> 7 & 0x7F | 0x80, len(text) >> 14])
    path = tmp_path / "export.onnx"
    path.write_bytes(b"\x0a\x0ficon_classifier\x12" + length + text)
    title, _, labels, _ = preview.describe(tmp_path, opening(tmp_path))
    assert title == "Which of 4000 is it?"
    assert (len(labels), labels[-1]) == (4000, "class 3999")


async def fetch_example(folder: Path) -> HTTPResponse:
    """Serve the example of a folder, request it, stop the server."""
    handler = ("/example.jpg", preview.ExampleHandler, {"folder": str(folder)})
    server = HTTPServer(Application([handler]))
    socket, port = bind_unused_port()
    server.add_sockets([socket])
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(f"http://127.0.0.1:{port}/example.jpg", raise_error=False)
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()


async def test_example_is_served_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    (tmp_path / "examples").mkdir()
    example = tmp_path / "examples" / "red.png"
    for number, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        example.write_bytes(encode(Image.new("RGB", (900, 600), colour)))
        os.utime(example, ns=(0, number))
        response = await fetch_example(tmp_path)
        assert response.code == 200
        image = read_image(response.body)
        assert image.size == (640, 427)
        assert image.getpixel((0, 0)) == pytest.approx(colour, abs=2)


async def test_example_that_cannot_be_read_is_left_out_and_only_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    (tmp_path / "examples").mkdir()
    red = encode(Image.new("RGB", (30, 20), (255, 0, 0)))
    for name, content in {"1.png": b"no picture", "2.png": red, "3.png": red}.items():
        (tmp_path / "examples" / name).write_bytes(content)
    read: list[str] = []

    def note_and_read(path: Path) -> Image.Image:
        read.append(path.name)
        return read_image_file(path)

    monkeypatch.setattr(images, "read_image_file", note_and_read)
    assert (await fetch_example(tmp_path)).code == 200
    assert read == ["1.png", "2.png"]


@pytest.mark.parametrize("model", [None, b"something else", model_bytes()])
@pytest.mark.parametrize("photo", [None, b"no picture"])
async def test_page_without_a_model_or_an_example_has_no_picture(
    tmp_path: Path, model: bytes | None, photo: bytes | None
) -> None:
    if model is not None:
        (tmp_path / "export.onnx").write_bytes(model)
    if photo is not None:
        (tmp_path / "examples").mkdir()
        (tmp_path / "examples" / "red.png").write_bytes(photo)
    assert (await fetch_example(tmp_path)).code == 404
