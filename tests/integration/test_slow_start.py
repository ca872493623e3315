"""A page whose kernel starts slowly: the connection stays open, and the page's policy is kept."""

import re
import shutil
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tests.support.servers import ROOT, jupyter, voila

EVERY_SECOND = "--VoilaConfiguration.http_keep_alive_timeout=1"
"""How often something is sent to keep the connection open."""


def write_page(folder: Path, code: str) -> None:
    shutil.copy(ROOT / "voila.json", folder)
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernelspec})
    notebook.cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(notebook, folder / "page.ipynb")


@pytest.mark.parametrize(("template", "script"), [("slim", False), ("lab", True)])
def test_slow_start_keeps_the_connection_open(tmp_path: Path, template: str, script: bool) -> None:
    write_page(tmp_path, "import time; time.sleep(3)")
    with (
        voila(tmp_path, f"--template={template}", EVERY_SECOND, notebook="page.ipynb") as server,
        urllib.request.urlopen(server.url, timeout=60) as answer,
    ):
        page = answer.read().decode()

    assert ("<script>window.voila_heartbeat()</script>" in page) == script
    assert ("<!-- still starting -->" in page) == (not script)
    assert page.rstrip().endswith("</html>")


def test_request_of_a_page_that_was_left_while_it_started_ends(tmp_path: Path) -> None:
    """Otherwise each keeps its memory, and Jupyter's server from stopping."""
    write_page(tmp_path, "import time; time.sleep(60)")
    headers = {"Authorization": "token secret"}
    options = (EVERY_SECOND, "--ServerApp.log_level=DEBUG")
    with jupyter(tmp_path, *options, token="secret") as server:
        page = urllib.request.Request(f"{server.url}voila/render/page.ipynb", headers=headers)
        with urllib.request.urlopen(page, timeout=60) as answer:
            start = b""
            while not (kernel := re.search(rb'"kernelId": "([^"]+)"', start)):
                start += answer.read1()
        shutdown = f"{server.url}voila/api/shutdown/{kernel[1].decode()}"
        leave = urllib.request.Request(shutdown, headers=headers, method="POST")
        urllib.request.urlopen(leave, timeout=60).close()
        deadline = time.monotonic() + 20
        while "200 GET /voila/render/page.ipynb" not in server.text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
