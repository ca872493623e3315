"""The extension for Jupyter's own server, where it must not do anything."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import jupyter


@pytest.mark.parametrize("options", [None, {}, {"PageKernelManager": {"template": "lab"}}])
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
