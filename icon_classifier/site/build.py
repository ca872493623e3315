"""Write the static site: the page, its scripts and its model, under names with their hashes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
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
from icon_classifier.images import MAX_WHOLE_PIXELS, Limits, read_image_file, thumbnail
from icon_classifier.model.pipeline import MAX_PADDED_PIXELS
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
_HASHED = re.compile(r"[a-z]+-([0-9a-f]{8})\.[a-z]+")
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
        If the target is a file, or a folder that holds something else; if the notebook is none.
    ModelDamagedError
        If the model cannot be read.
    OSError
        If a file cannot be written.
    """
    target, folder = Path(target), Path(folder)
    check_target(target)
    files = _files(folder, Model(model), model)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_file(target / name, data)
    for path in target.iterdir():
        if path.name not in files and _is_ours(path):
            path.unlink()


def check_target(target: Path) -> None:
    """Raise a SettingsError where :func:`write_site` would refuse a folder."""
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


def _is_ours(path: Path) -> bool:
    """Whether a file has the hash of its content in its name."""
    named = _HASHED.fullmatch(path.name)
    return named is not None and named[1] == _hash(path.read_bytes())


class _Files(dict[str, bytes]):
    """What to write: contents by names, in this order."""

    def add(self, name: str, data: bytes) -> str:
        """Add a file, and return its name with its hash."""
        stem, _, suffix = name.partition(".")
        hashed = f"{stem}-{_hash(data)}.{suffix}"
        self[hashed] = data
        return hashed

    def copy_of(self, path: Path) -> str:
        """Add a file of the package."""
        return self.add(path.name, path.read_bytes())

    def checked(self, name: str, data: bytes) -> dict[str, Any]:
        """Add a file whose progress the page shows and whose content it checks."""
        hashed = self.add(name, data)
        return {"name": hashed, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _files(folder: Path, model: Model, data: bytes) -> _Files:
    files = _Files()
    title = page_title(model.labels, model.info.recipe, folder)
    description = texts.description(model.labels, texts.SITE_TEXTS["privacy"])
    examples = [_example(files, each) for each in find_examples(model.labels, folder)]
    icons = {"svg": files.copy_of(_SLIM / "icon.svg"), "png": files.copy_of(_HERE / "icon.png")}
    (slim,) = (_SLIM / "static").glob("style-*.css")
    styles = [slim, _PAGE / "dropzone.css", _PAGE / "answer.css", _HERE / "site.css"]
    style = files.add("style.css", b"\n".join(path.read_bytes() for path in styles))
    script = files.copy_of(_BUILT / "site.js")
    heif = {
        "script": files.copy_of(_BUILT / "heif.js"),
        **files.checked("heif.bin", (_BUILT / "heif.bin").read_bytes()),
    }
    config = {
        "texts": texts.SITE_TEXTS,
        "drop": {
            "texts": texts.SITE_DROP_TEXTS,
            "accept": ACCEPT,
            "max_photos": texts.MAX_PHOTOS,
            "shrinks": False,
            "live": True,
            "examples": examples,
        },
        "answer": {"texts": texts.ANSWER_TEXTS},
        "line": texts.LINES | {"names": texts.any_of(model.labels)},
        "summary": texts.SUMMARIES,
        "words": _words(),
        "modules": {name: files.copy_of(_PAGE / f"{name}.js") for name in ("dropzone", "answer")},
        "worker": files.copy_of(_BUILT / "worker.js"),
        "files": {
            "model": files.checked("export.onnx", data),
            "runtime": files.checked("ort.bin", (_BUILT / "ort.bin").read_bytes()),
            "heif": heif,
        },
        "limits": _limits(),
        "model": _model(model),
    }
    later = [heif["script"], heif["name"]]  # only for a HEIC where the browser reads none
    kept = ["./", "manifest.webmanifest", *(name for name in files if name not in later)]
    manifest = _json(_manifest(title, description, icons))
    page = {
        "policy": "; ".join(f"{name} {sources}" for name, sources in _POLICY.items()),
        "head": head(title, description, examples[0]["file"] if examples else ""),
        "title": title,
        "introduction": _introduction(folder),
        "about": about(model.info),
        "config": config,
        "icons": icons,
        "style": style,
        "script": script,
    }
    version = _hash(_render(page) + manifest)
    worker = (_BUILT / "sw.js").read_text("utf-8").replace("__VERSION__", version)
    worker = worker.replace('"__FILES__"', json.dumps({"shell": kept, "later": later}))
    files["LICENSES.txt"] = (_BUILT / "LICENSES.txt").read_bytes()
    files["manifest.webmanifest"] = manifest
    files["sw.js"] = worker.encode()
    files["index.html"] = _render(page | {"config": config | {"version": version}})
    return files


def _model(model: Model) -> dict[str, Any]:
    """Return what a photo is transformed with and an answer is made of."""
    info = model.info
    return {
        "labels": model.labels,
        "shown": [texts.plain(label) for label in model.labels],
        "mode": info.mode,
        "transforms": info.pipeline.to_json(),
        "mean": info.mean.tolist(),
        "std": info.std.tolist(),
        "temperature": info.temperature,
        "threshold": info.threshold,
        "evidence": model.can_explain,
    }


def _example(files: _Files, example: Example) -> dict[str, str]:
    """Add an example as a JPEG without its metadata, which may say where it was taken."""
    return {
        "name": example.name,
        "thumbnail": base64.b64encode(example.thumbnail).decode(),
        "file": files.add("example.jpg", thumbnail(read_image_file(example.path), _EXAMPLE_SIDE)),
    }


def _limits() -> dict[str, int]:
    """Return what a photo may cost, and from which size on it is halved."""
    pixels = {"max_whole_pixels": MAX_WHOLE_PIXELS, "max_padded_pixels": MAX_PADDED_PIXELS}
    return asdict(Limits()) | pixels


def _words() -> dict[str, str]:
    """Return what a visitor reads about a photo that cannot be used."""
    return {
        "empty": EmptyImageError.words,
        "unsupported": not_a_picture(IN_BROWSERS),
        "heif": texts.HEIF_MISSING,
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
    sources = []
    try:
        for cell in json.loads((folder / NOTEBOOK).read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                break
            sources.append("".join(cell["source"]))
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{folder / NOTEBOOK} is not a notebook: {error!r}") from error
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


def _render(page: Mapping[str, Any]) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("index.html.j2").render(page, texts=texts.SITE_TEXTS).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
