from collections.abc import Iterator

import pytest

from icon_classifier.dataset.sources import openverse, wikimedia
from tests.support.photo_searches import SearchApi, serve
from tests.support.photo_server import PhotoServer, photo_server


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PhotoServer]:
    """A server of photos, which stands for Openverse and Wikimedia Commons as well."""
    with photo_server() as server:
        monkeypatch.setattr(openverse, "HOST", server.base)
        monkeypatch.setattr(wikimedia, "HOST", server.base)
        yield server


@pytest.fixture(name="apis")
def _apis(server: PhotoServer) -> tuple[SearchApi, SearchApi]:
    """The searches of Openverse and Wikimedia Commons, which find nothing yet."""
    return serve(server)
