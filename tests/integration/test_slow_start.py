"""A page whose kernel starts slowly: the connection stays open, and the page's policy is kept."""

import shutil
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tests.support.servers import ROOT, voila


@pytest.mark.parametrize(("template", "script"), [("slim", False), ("lab", True)])
def test_slow_start_keeps_the_connection_open(tmp_path: Path, template: str, script: bool) -> None:
    shutil.copy(ROOT / "voila.json", tmp_path)
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernelspec})
    notebook.cells = [nbformat.v4.new_code_cell("import time; time.sleep(3)")]
    nbformat.write(notebook, tmp_path / "page.ipynb")
    options = (f"--template={template}", "--VoilaConfiguration.http_keep_alive_timeout=1")

    with (
        voila(tmp_path, *options, notebook="page.ipynb") as server,
        urllib.request.urlopen(server.url, timeout=60) as answer,
    ):
        page = answer.read().decode()

    assert ("<script>window.voila_heartbeat()</script>" in page) == script
    assert ("<!-- still starting -->" in page) == (not script)
    assert page.rstrip().endswith("</html>")
