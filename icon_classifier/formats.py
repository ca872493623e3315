"""The formats of pictures that are read, by their names and the endings of their files."""

from __future__ import annotations

FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "AVIF": "AVIF",
    "HEIF": "HEIC",
}
"""Pillow's names and those that people know. Pillow reads forty more formats; a photo needs none of
them, and each is one more parser for a stranger to attack (EPS even starts Ghostscript)."""

IN_BROWSERS = tuple(name for name in FORMATS.values() if name != "TIFF")
"""Those that the static site reads, by the names that people know: most browsers read no TIFF."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif"),
)
"""The endings, in lower case, by which a file in a folder is taken for a photo."""
