"""A page whose kernel starts slowly: the connection stays open, and the page's policy is kept."""

import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import PAGE, voila, write_page


@pytest.mark.parametrize(("template", "script"), [("slim", False), ("lab", True)])
def test_slow_start_keeps_the_connection_open(tmp_path: Path, template: str, script: bool) -> None:
    write_page(tmp_path, "import time; time.sleep(3)")
    options = (f"--template={template}", "--VoilaConfiguration.http_keep_alive_timeout=1")

    with (
        voila(tmp_path, *options, notebook=PAGE) as server,
        urllib.request.urlopen(server.url, timeout=60) as answer,
    ):
        page = answer.read().decode()

    assert ("<script>window.voila_heartbeat()</script>" in page) == script
    assert ("<!-- still starting -->" in page) == (not script)
    assert page.rstrip().endswith("</html>")
