"""The worker of the static site, without the page: its answers, and the functions it exports."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page

from tests.support.site_host import SiteHost

_OPEN = """
async (base) => {
  const text = await (await fetch(base)).text();
  const found = new DOMParser().parseFromString(text, 'text/html').querySelector('#site-config');
  const { worker: name, model, files } = JSON.parse(found.textContent);
  const worker = new Worker(new URL(name, base), { type: 'module' });
  const waiting = new Map();
  const opened = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.kind === 'ready') resolve();
      if (data.kind === 'failed') reject(new Error(data.reason));
      waiting.get(data.id)?.(data);
    };
  });
  window.site = {
    module: await import(new URL(name, base)),
    read: async (address) => await (await fetch(address)).blob(),
    bytes: (data) => Uint8Array.from(atob(data), (each) => each.charCodeAt(0)),
    base64: (data) => btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join('')),
    predict: (source) =>
      new Promise((resolve) => {
        const id = waiting.size + 1;
        waiting.set(id, resolve);
        worker.postMessage({ kind: 'predict', id, source, explain: true, preview: true });
      }),
  };
  worker.postMessage({ kind: 'open', config: { model, files }, base });
  await opened;
}
"""

_PREDICT = """
async (address) => {
  const { id, ...answer } = await site.predict(await site.read(address));
  for (const name of ['preview', 'thumbnail']) {
    if (answer[name]) answer[name] = site.base64(answer[name]);
  }
  if (answer.heat) answer.heat.cells = [...answer.heat.cells];
  return answer;
}
"""

_TRANSFORM = """
async ([address, info]) => {
  const result = await site.module.transform(await site.read(address), info);
  return [result.height, result.width, site.base64(result.pixels)];
}
"""

_RESIZE = """
([pixels, width, height, channels, ...how]) => {
  const picture = site.module.pictureOf(site.bytes(pixels), width, height, channels);
  return site.base64(site.module.resize(picture, ...how));
}
"""


class SiteWorker:
    """The worker of a static site on a page of the same host.

    Parameters
    ----------
    page : playwright.sync_api.Page
        Any page.
    host : SiteHost
        Serves the site; photos are added to what it serves.
    site : str
        The site's folder there.
    """

    def __init__(self, page: Page, host: SiteHost, site: str) -> None:
        self._page, self._host = page, host
        self._numbers = itertools.count()
        page.route("**/favicon.ico", lambda route: route.fulfill(body=""))
        page.goto(f"{host.url}{site}/LICENSES.txt")  # a document without a policy of its own
        page.evaluate(_OPEN, f"{host.url}{site}/")

    def predict(self, file: bytes) -> dict[str, Any]:
        """Return its answer to a photo; pictures in it are in base64."""
        answer: dict[str, Any] = self._page.evaluate(_PREDICT, self._add(file))
        return answer

    def transform(self, file: bytes, mode: str, steps: list[dict[str, Any]]) -> npt.NDArray[Any]:
        """Return the pixels that a model of these steps sees, uint8, shape (H, W, K)."""
        info = {"mode": mode, "transforms": steps}
        height, width, data = self._page.evaluate(_TRANSFORM, [self._add(file), info])
        return _decoded(data).reshape(height, width, -1)

    def resize(
        self, pixels: npt.NDArray[np.uint8], size: tuple[int, int], resample: int
    ) -> npt.NDArray[np.uint8]:
        """Resize pixels, uint8, shape (H, W, K), to a width and height."""
        height, width, channels = pixels.shape
        box = [0, 0, width, height]
        case = [_encoded(pixels.tobytes()), width, height, channels]
        data = self._page.evaluate(_RESIZE, [*case, box, list(size), "zeros", resample])
        return _decoded(data).reshape(size[1], size[0], channels)

    def _add(self, file: bytes) -> str:
        """Serve a file; return its address."""
        name = f"photo-{next(self._numbers)}"
        (self._host.folder / name).write_bytes(file)
        return f"{self._host.url}{name}"


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(data: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(base64.b64decode(data), np.uint8)
