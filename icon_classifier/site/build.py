"""Write the static site: the page, its scripts and its model, under names with their hashes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from nbconvert.filters import markdown2html

from icon_classifier.errors import (
    TOO_NARROW,
    DamagedImageError,
    EmptyImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    SettingsError,
    not_a_picture,
    too_many_bytes,
)
from icon_classifier.files import write_file
from icon_classifier.formats import IN_BROWSERS
from icon_classifier.images import Limits, read_image_file, thumbnail
from icon_classifier.model.session import Model
from icon_classifier.page import texts
from icon_classifier.page.about import about
from icon_classifier.page.dropzone import ACCEPT
from icon_classifier.page.examples import Example, find_examples
from icon_classifier.page.title import page_title
from icon_classifier.server.preview import head

NOTEBOOK = "icon_classifier.ipynb"
"""The page's notebook; its first text is the site's introduction."""

_EXAMPLE_SIDE = 1024
"""Longer side of an example in pixels: as much as Voilà's page sends of a photo."""

_HERE = Path(__file__).parent
_BUILT = _HERE / "built"
_PAGE = _HERE.parent / "page"
_SLIM = _HERE.parent / "server" / "slim"

_POLICY = {
    "default-src": "'none'",
    # WebAssembly is compiled, which a policy counts as evaluation.
    "script-src": "'self' 'wasm-unsafe-eval'",
    "worker-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' blob: data:",
    "style-src": "'self'",
    "manifest-src": "'self'",
    "media-src": "'self' blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
}

# export-1a2b3c4d.onnx
_HASHED = re.compile(r"[a-z]+-[0-9a-f]{8}(\.[a-z]+)+")
_MARK = '<script id="site-config"'


def write_site(target: str | Path, folder: str | Path, model: bytes) -> None:
    """Write the static site of a model into a folder.

    All files but four have their hash in their name and are written first, then ``index.html``,
    which names them; what only an older site needs is removed last. So whenever this ends, there is
    a whole site, the old one or the new one. Other files stay: ``README.md``, ``CNAME``, ``.git``.

    Parameters
    ----------
    target : str or pathlib.Path
        The folder to write: a new one, an empty one, or one with such a site.
    folder : str or pathlib.Path
        The project folder: its notebook, examples and recipes.
    model : bytes
        The export.onnx to publish.

    Raises
    ------
    SettingsError
        If the target is a file, or a folder that holds something else.
    ModelDamagedError
        If the model cannot be read.
    OSError
        If a file cannot be written.
    """
    target, folder = Path(target), Path(folder)
    _check(target)
    site = _Site(folder, Model(model), model)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in site.files.items():
        write_file(target / name, data)
    for path in target.iterdir():
        if _HASHED.fullmatch(path.name) and path.name not in site.files:
            path.unlink()


def _check(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise SettingsError(f"expected a folder for the site, got the file {target}")
    if not target.exists() or all(path.name.startswith(".") for path in target.iterdir()):
        return
    index = target / "index.html"
    if not index.is_file() or _MARK not in index.read_text("utf-8", "replace"):
        raise SettingsError(
            f"expected a new folder for the site, an empty one or one with a site, got {target}, "
            "which holds other files"
        )


class _Site:
    """The files of a site by their names, in the order in which they are written."""

    def __init__(self, folder: Path, model: Model, data: bytes) -> None:
        self.files: dict[str, bytes] = {}
        info = model.info
        title = page_title(model.labels, info.recipe, folder)
        description = texts.description(model.labels, texts.SITE_TEXTS["privacy"])
        style = [*(_SLIM / "static").glob("style-*.css"), _PAGE / "dropzone.css"]
        style += [_PAGE / "answer.css", *_HERE.glob("site.css")]

        examples = [self._example(each) for each in find_examples(model.labels, folder)]
        icons = {
            "svg": self._add("icon.svg", (_SLIM / "icon.svg").read_bytes()),
            "png": self._add("icon.png", (_HERE / "icon.png").read_bytes()),
        }
        names = {
            "style": self._add("style.css", b"\n".join(path.read_bytes() for path in style)),
            "script": self._built("site.js"),
            "dropzone": self._add("dropzone.js", (_PAGE / "dropzone.js").read_bytes()),
            "answer": self._add("answer.js", (_PAGE / "answer.js").read_bytes()),
            "worker": self._built("worker.js"),
        }
        shell = ["./", "manifest.webmanifest", *names.values(), *icons.values()]
        heif = {"script": self._built("heif.js"), **self._large(self._built("heif.wasm.gz"))}
        config = {
            "texts": texts.SITE_TEXTS,
            "drop": {
                "texts": texts.SITE_DROP_TEXTS,
                "accept": ACCEPT,
                "max_bytes": Limits().max_bytes,
                "max_photos": texts.MAX_PHOTOS,
                "shrinks": False,
                "live": True,
                "examples": examples,
            },
            "answer": {"texts": texts.ANSWER_TEXTS},
            "line": texts.LINES | {"names": texts.any_of(model.labels)},
            "summary": texts.SUMMARIES,
            "words": _words(),
            "modules": {"dropzone": names["dropzone"], "answer": names["answer"]},
            "worker": names["worker"],
            "files": {
                "model": self._large(self._add("export.onnx", data)),
                "runtime": self._large(self._built("ort.wasm.gz")),
                "heif": heif,
            },
            "model": {
                "labels": model.labels,
                "shown": [texts.plain(label) for label in model.labels],
                "mode": info.mode,
                "transforms": info.pipeline.to_json(),
                "mean": info.raw["mean"],
                "std": info.raw["std"],
                "temperature": info.temperature,
                "threshold": info.threshold,
                "evidence": model.can_explain,
            },
        }
        version = _hash(json.dumps([config, names, icons]).encode())
        self.files["LICENSES.txt"] = _read_built("LICENSES.txt")
        self.files["manifest.webmanifest"] = _json(_manifest(title, description, icons))
        lists = {"shell": shell, "later": [name for name in self.files if name not in shell]}
        self.files["sw.js"] = (
            _read_built("sw.js")
            .replace(b'"__FILES__"', _json(lists))
            .replace(b"__VERSION__", version.encode())
        )
        page = {
            "policy": "; ".join(f"{name} {sources}" for name, sources in _POLICY.items()),
            "head": head(title, description, examples[0]["file"] if examples else ""),
            "title": title,
            "introduction": _introduction(folder),
            "about": about(info),
            "no_script": texts.SITE_TEXTS["no_script"],
            "config": config | {"version": version},
            "icons": icons,
            **names,
        }
        self.files["index.html"] = _render(page).encode()

    def _add(self, name: str, data: bytes) -> str:
        """Add a file, and return its name with its hash."""
        stem, _, suffix = name.partition(".")
        hashed = f"{stem}-{_hash(data)}.{suffix}"
        self.files[hashed] = data
        return hashed

    def _built(self, name: str) -> str:
        return self._add(name, _read_built(name))

    def _large(self, name: str) -> dict[str, Any]:
        """Describe a file whose progress is shown and whose content is checked."""
        data = self.files[name]
        return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _example(self, example: Example) -> dict[str, str]:
        """Add an example as a JPEG without its metadata, which may say where it was taken."""
        photo = thumbnail(read_image_file(example.path), _EXAMPLE_SIDE)
        return {
            "name": example.name,
            "thumbnail": base64.b64encode(example.thumbnail).decode(),
            "file": self._add("example.jpg", photo),
        }


def _words() -> dict[str, str]:
    """Return what a visitor reads about a photo that cannot be used."""
    return {
        "empty": EmptyImageError.words,
        "unsupported": not_a_picture(IN_BROWSERS),
        "damaged": DamagedImageError.words,
        "too_large": ImageTooLargeError.words,
        "too_small": ImageTooSmallError.words,
        "too_narrow": TOO_NARROW,
        "too_many_bytes": too_many_bytes(Limits().max_bytes),
        "memory": ImageTooLargeError.words,
        "unexpected": texts.UNEXPECTED,
    }


def _introduction(folder: Path) -> str:
    """Return the text of the notebook before its first code as HTML, without its title."""
    try:
        cells = json.loads((folder / NOTEBOOK).read_text("utf-8"))["cells"]
    except OSError:
        return ""
    sources = []
    for cell in cells:
        if cell["cell_type"] == "code":
            break
        sources.append("".join(cell["source"]))
    text = re.sub(r"^# .*\n?", "", "\n\n".join(sources), count=1, flags=re.MULTILINE)
    return str(markdown2html(text))


def _manifest(title: str, description: str, icons: Mapping[str, str]) -> dict[str, Any]:
    svg = {"src": icons["svg"], "sizes": "any", "type": "image/svg+xml"}
    png = {"src": icons["png"], "sizes": "512x512", "type": "image/png", "purpose": "any maskable"}
    return {
        "name": title,
        "short_name": title,
        "description": description,
        "lang": "en",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#f6f5f1",
        "theme_color": "#0d6b66",
        "icons": [svg, png],
    }


def _render(page: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("index.html.j2").render(page)


def _read_built(name: str) -> bytes:
    path = _BUILT / name
    return path.read_bytes() if path.exists() else b""  # TODO: until they are there


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
