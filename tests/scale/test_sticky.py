"""Two Voilà servers behind Debian's nginx: a visitor stays with the server of their kernel."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.scale.nginx import nginx, write_config
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import ROOT, Server, free_port, project_copy, voila

MAX_WAIT = 90_000
"""Milliseconds; a loaded machine is slow."""

COLOURS = {"red": "#f00", "green": "#0f0", "blue": "#00f"}


@dataclass(frozen=True)
class Balanced:
    """The address of nginx and the two servers behind it."""

    url: str
    one: Server
    two: Server


def configured(folder: Path, port: int, one: Server, two: Server) -> Path:
    """Write the configuration of the docs with free ports."""
    text = (ROOT / "docs/nginx-sticky.conf").read_text()
    for old, new in (
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("127.0.0.1:8866", one.url.removeprefix("http://").rstrip("/")),
        ("127.0.0.1:8867", two.url.removeprefix("http://").rstrip("/")),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return write_config(folder, text)


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[Balanced]:
    folders = [tmp_path / name for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        servers = []
        for folder in folders:
            folder.mkdir()
            write_model(project_copy(folder))
            servers.append(stack.enter_context(voila(folder)))
        port = free_port()
        config = configured(tmp_path, port, *servers)
        yield Balanced(stack.enter_context(nginx(tmp_path, config, port)), *servers)


def cookie_of(balanced: Balanced, server: str) -> dict[str, str]:
    """Send requests until nginx picks a server and return the cookie for it."""
    for _ in range(100):
        header = httpx.get(balanced.url + "voila/static/").headers["set-cookie"]
        if match := re.match(rf"replica=({server});", header):
            return {"name": "replica", "value": match[1], "url": balanced.url}
    raise AssertionError(f"nginx never picked {server}")


def visit(page: Page, balanced: Balanced, server: str) -> None:
    """Open the page with the cookie of a server and wait until it can be used."""
    page.context.add_cookies([cookie_of(balanced, server)])
    page.goto(balanced.url)
    expect(chooser(page)).to_be_visible(timeout=MAX_WAIT)


def chooser(page: Page) -> Locator:
    return page.get_by_role("button", name=re.compile("Choose photos|Another photo"))


def classify(page: Page, colour: str, folder: Path) -> None:
    photo = folder / f"{colour}.png"
    photo.write_bytes(encode(Image.new("RGB", (40, 30), COLOURS[colour])))
    with page.expect_file_chooser() as opened:
        chooser(page).click()
    opened.value.set_files(photo)
    expect(page.get_by_text(f"Prediction: {colour}; Probability: ")).to_be_visible(timeout=MAX_WAIT)


def test_cookie_selects_one_of_the_configured_servers(balanced: Balanced) -> None:
    address = balanced.url + "voila/static/"
    cookies = {httpx.get(address).headers["set-cookie"].partition(";")[0] for _ in range(40)}
    assert cookies == {"replica=one", "replica=two"}
    for name in ("one", "two"):
        assert "set-cookie" not in httpx.get(address, headers={"Cookie": f"replica={name}"}).headers
    forged = httpx.get(address, headers={"Cookie": "replica=127.0.0.1:22"})
    assert forged.headers["set-cookie"].startswith(("replica=one;", "replica=two;"))


def test_visitor_of_a_stopped_server_moves_to_the_other(
    balanced: Balanced, new_visitor: Callable[[], Page], tmp_path: Path
) -> None:
    first, second = new_visitor(), new_visitor()
    visit(first, balanced, "one")
    visit(second, balanced, "two")
    classify(first, "red", tmp_path)
    classify(second, "green", tmp_path)

    balanced.one.process.terminate()
    balanced.one.process.wait(60)
    # Its visitor reads so on the open page ...
    expect(first.get_by_text(re.compile("connection is lost|has ended"))).to_be_visible(
        timeout=MAX_WAIT
    )
    # ... and on the next page; after that, the other server takes over.
    assert first.goto(balanced.url).status == 503
    expect(first.get_by_text("The server that you were with has gone.")).to_be_visible()
    for _ in range(50):
        if first.goto(balanced.url).status == 200:
            break
    expect(chooser(first)).to_be_visible(timeout=MAX_WAIT)
    # The other visitor is not affected: the same page works with the same kernel.
    assert second.get_by_text(re.compile("connection is lost|has ended")).count() == 0
    classify(second, "blue", tmp_path)
