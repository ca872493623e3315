"""How Voilà and Jupyter's own server send a page: its template, and while its kernel starts."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import PAGE, jupyter, voila, write_page

EVERY_SECOND = "--VoilaConfiguration.http_keep_alive_timeout=1"
"""How often something is sent to keep the connection open."""


@pytest.mark.parametrize(("template", "script"), [("slim", False), ("lab", True)])
def test_slow_start_keeps_the_connection_open(tmp_path: Path, template: str, script: bool) -> None:
    write_page(tmp_path, "import time; time.sleep(2)")
    with (
        voila(tmp_path, f"--template={template}", EVERY_SECOND, notebook=PAGE) as server,
        urllib.request.urlopen(server.url, timeout=60) as answer,
    ):
        page = answer.read().decode()

    assert ("<script>window.voila_heartbeat()</script>" in page) == script
    assert ("<!-- still starting -->" in page) == (not script)
    assert page.rstrip().endswith("</html>")


def test_request_of_a_page_that_was_left_while_it_started_ends(tmp_path: Path) -> None:
    """Otherwise each keeps its memory, and Jupyter's server from stopping."""
    write_page(tmp_path, "import time; time.sleep(60)", template="slim")
    headers = {"Authorization": "token secret"}
    options = (EVERY_SECOND, "--ServerApp.log_level=DEBUG")
    with jupyter(tmp_path, *options, token="secret") as server:
        page = urllib.request.Request(f"{server.url}voila/render/{PAGE}", headers=headers)
        with urllib.request.urlopen(page, timeout=60) as answer:
            start = b""
            while not (kernel := re.search(rb'"kernelId": "([^"]+)"', start)):
                start += answer.read1()
        shutdown = f"{server.url}voila/api/shutdown/{kernel[1].decode()}"
        leave = urllib.request.Request(shutdown, headers=headers, method="POST")
        urllib.request.urlopen(leave, timeout=60).close()
        deadline = time.monotonic() + 60
        while f"200 GET /voila/render/{PAGE}" not in server.text:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("options", [None, {"PageKernelManager": {"template": "lab"}}])
def test_folder_that_does_not_ask_for_the_slim_template_keeps_that_of_voila(
    tmp_path: Path, options: dict[str, object] | None
) -> None:
    if options is not None:
        (tmp_path / "voila.json").write_text(json.dumps(options))
    with (
        jupyter(tmp_path) as server,
        urllib.request.urlopen(f"{server.url}voila", timeout=60) as answer,
    ):
        assert "treepage.js" in answer.read().decode()
        assert "icon_classifier.server.extension | extension was successfully loaded" in server.text
