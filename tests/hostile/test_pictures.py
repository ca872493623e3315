"""Hostile pictures by every way in: a picture or one of our errors, within memory and time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icon_classifier.errors import ImageError
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from icon_classifier.page.texts import UNEXPECTED
from icon_classifier.server.visitor import Visit
from tests.hostile import LONG
from tests.integration.test_api import serving
from tests.support.hostile_pictures import KINDS, files, some_files
from tests.support.models import model_bytes, write_model
from tests.support.pictures import encode, gradient
from tests.support.servers import ROOT, project_copy, voila

MOST_BYTES = 300e6
MOST_SECONDS = 1.5
INSIDE = ("Traceback", "Error(", ".py", "site-packages", "/")


@pytest.mark.parametrize("step", [15, pytest.param(1, marks=LONG)])
def test_each_hostile_picture_stays_within_memory_and_time(step: int) -> None:
    """In a process of its own: no crash, at most 300 MB and 1.5 s of work for any of them."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the most memory of each cannot be told here")
    child = subprocess.run(
        [sys.executable, "-m", "tests.hostile.decoding", str(step)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, (lines[-1:], child.stderr[-2000:])
    taken = [line for line in lines if "seconds" in line]
    assert len(taken) >= 1000 // step
    worst = max(line["seconds"] for line in taken), max(line["bytes"] for line in taken)
    print(f"{len(taken)} files, at most {worst[0]:.2f} s and {worst[1] / 1e6:.0f} MB extra")
    assert not [line for line in taken if line["bytes"] > MOST_BYTES]
    assert not [line for line in taken if line["seconds"] > MOST_SECONDS]
    refused = [line for line in taken if line["size"] is None]
    assert refused
    for line in refused:
        assert line["words"].endswith(".")
        assert not [sign for sign in INSIDE if sign in line["words"]]


def test_file_that_is_no_picture_is_refused() -> None:
    for name, data in files(large=False):
        if name in ("SVG", "PDF", "EPS", "HTML", "zip", "pickle", "program", "script", "nothing"):
            with pytest.raises(ImageError):
                read_image(data)


def read_changed(data: st.DataObject, kind: str) -> None:
    """Cuts, copies and overwritten pieces as hypothesis likes them."""
    file = bytearray(encode(gradient(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(file)))
        length = data.draw(st.integers(0, 64))
        file[place : place + length] = data.draw(st.binary(max_size=64))
    with contextlib.suppress(ImageError):
        assert read_image(bytes(file)).mode == "RGB"


@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_changed_file_is_read_or_refused(data: st.DataObject, kind: str) -> None:
    read_changed(data, kind)


@LONG
@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=2000, deadline=None)
def test_many_changed_files_are_read_or_refused(data: st.DataObject, kind: str) -> None:
    read_changed(data, kind)


@LONG
async def test_hostile_pictures_through_the_page(tmp_path: Path) -> None:
    project_copy(tmp_path)
    write_model(tmp_path)
    with voila(tmp_path) as server:
        async with await Visit.open(server.url) as visit:
            for name, data in some_files():
                said = await visit.classify(data)
                assert said, name
                assert said != UNEXPECTED, name
                assert "Traceback" not in said, name
            assert (await visit.classify(encode(gradient()))).startswith(("Prediction", "Not sure"))
        assert "Traceback" not in server.text


@LONG
def test_hostile_pictures_through_the_api() -> None:
    with serving(Model(model_bytes())) as (host, port), httpx.Client(timeout=60) as client:
        for name, data in some_files():
            answer = client.post(f"http://{host}:{port}/classify", content=data)
            assert answer.status_code in (200, 400, 413, 415, 422), (name, answer.text)
            assert "Traceback" not in answer.text
        good = client.post(f"http://{host}:{port}/classify", content=encode(gradient()))
        assert good.status_code == 200


@LONG
def test_hostile_pictures_through_the_command_line(tmp_path: Path) -> None:
    write_model(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (_, data) in enumerate(some_files()):
        (folder / f"{number:03}.jpg").write_bytes(data)
    (folder / "good.jpg").write_bytes(encode(gradient(), "JPEG"))
    command = [sys.executable, "-m", "icon_classifier", "predict", str(folder), "--json"]
    child = subprocess.run(
        [*command, "--model", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 1  # some could not be read
    assert "Traceback" not in child.stderr
    assert len(lines) == len(list(folder.iterdir()))
    assert any("good.jpg" in json.dumps(line) and "error" not in line for line in lines)
