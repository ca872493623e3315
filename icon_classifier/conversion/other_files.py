"""Recognise files that are not exports of a Learner, and say of each what it is and what to do."""

from codecs import getincrementaldecoder
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from icon_classifier.conversion.unpickler import Object, shorten
from icon_classifier.errors import NotAnExportError

_EXPORT = "call learn.export() in the notebook that trained it, and take the file it writes"
_UNPACK = "unpack it, and take the export.pkl inside"
_DOWNLOAD = "download the file itself (on GitHub: 'Download raw file')"

_STARTS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer, not the model itself; run `git lfs pull`, or turn Git LFS on where "
        "this is built",
    ),
    (b"\x89HDF", f"a file of HDF5, as Keras writes; this page takes models of fastai: {_EXPORT}"),
    (b"\x1f\x8b", f"a file compressed with gzip; {_UNPACK}"),
    (b"BZh", f"a file compressed with bzip2; {_UNPACK}"),
    (b"\xfd7zXZ\0", f"a file compressed with xz; {_UNPACK}"),
    (b"7z\xbc\xaf", f"an archive of 7-Zip; {_UNPACK}"),
    (b"Rar!", f"an archive of RAR; {_UNPACK}"),
    *(
        (first, f"a file compressed with zlib, as joblib does; {_EXPORT}")
        for first in (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
    ),
    *(
        (first, f"a picture, not a model; {_EXPORT}")
        for first in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
    ),
)
"""Files by their first bytes."""


def check_start(path: Path) -> bool:
    """Return whether a file is a zip, after checking by its first bytes that it may be an export.

    Raises
    ------
    NotAnExportError
        It is a file of another kind.
    OSError
        It cannot be read.
    """
    if path.is_dir():
        raise _refusal("a folder; give the path of the export.pkl in it")
    with path.open("rb") as file:
        start = file.read(1024)
    for first, sentence in _STARTS:
        if start.startswith(first):
            raise _refusal(sentence)
    if not start:
        raise _refusal("an empty file; copy or download it again")
    if start[4:8] == b"TFL3":
        raise _refusal(f"a model of TensorFlow Lite; this page takes models of fastai: {_EXPORT}")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        raise _refusal(f"a file of safetensors: numbers without labels and transforms; {_EXPORT}")
    if (
        start[:1] == b"\x08"
        and start[1:2] < b" "
        and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a")
    ):
        raise _refusal(
            "an ONNX model; if the command `icon-classifier convert` made it, name it export.onnx, "
            f"else {_EXPORT}"
        )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<script", b"<?xml")):
        raise _refusal(f"a web page, not the file that it links to; {_DOWNLOAD}")
    if not start.startswith((b"PK", b"\x80")):
        # A character may be cut off at the end, which an incremental decoder leaves out.
        begin = getincrementaldecoder("utf-8")("replace").decode(start)[:20]
        kind = "a file of no known kind"
        if "\ufffd" not in begin and "".join(begin.split()).isprintable():
            kind = f"a text, which begins with {shorten(begin)}"
        raise _refusal(f"{kind}; {_EXPORT}")
    return start.startswith(b"PK")


def check_names(names: Collection[str]) -> None:
    """Check by the names in a zip that it may be an export.

    Raises
    ------
    NotAnExportError
        It is a file of another kind.
    """
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in ends:
        raise _refusal(f"a network of TorchScript, without labels and transforms; {_EXPORT}")
    if "model.weights.h5" in ends:
        raise _refusal(f"a model of Keras; this page takes models of fastai: {_EXPORT}")
    if "data.pkl" not in ends:
        inside = next((name for name in names if name.endswith((".pkl", ".pth"))), None)
        what = (
            f"a zip with {shorten(inside)} in it; {_UNPACK}"
            if inside
            else f"a zip without a model; {_EXPORT}"
        )
        raise _refusal(what)


def check_root(root: Any) -> None:
    """Check that the value in a pickle is a Learner.

    Raises
    ------
    NotAnExportError
        It is something else.
    """
    if isinstance(root, Object) and root.get("dls") is not None:
        return
    for matches, sentence in _ROOTS:
        if matches(root):
            raise _refusal(f"{sentence}; {_EXPORT}")
    what = root.cls if isinstance(root, Object) else shorten(root)
    raise _refusal(f"a pickle, but not of a Learner ({what}); {_EXPORT}")


def _refusal(sentence: str) -> NotAnExportError:
    return NotAnExportError(f"expected an export of a fastai Learner, got {sentence}")


def _has_keys(*names: str) -> Callable[[Any], bool]:
    return lambda root: isinstance(root, dict) and all(name in root for name in names)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Object) and value.cls.startswith(("torch._utils.", "torch._tensor."))


def _is_state_dict(root: Any) -> bool:
    return isinstance(root, dict) and bool(root) and all(map(_is_tensor, root.values()))


def _is_learner(root: Any) -> bool:
    return isinstance(root, Object) and root.get("opt_func") is not None


def _is_network(root: Any) -> bool:
    return isinstance(root, Object) and isinstance(root.get("_modules"), dict)


_ROOTS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_has_keys("pytorch-lightning_version"), "a checkpoint of Lightning, without transforms"),
    (_has_keys("model", "opt"), "weights that learn.save() wrote, without labels and transforms"),
    (_has_keys("cls", "model", "data"), "an export of fastai 1; train it again with fastai 2"),
    (_has_keys("state_dict"), "a checkpoint of weights, without labels and transforms"),
    (_has_keys("model_state_dict"), "a checkpoint of weights, without labels and transforms"),
    (_is_state_dict, "weights alone (a state_dict), without labels and transforms"),
    (_is_learner, "a Learner without its DataLoaders (dls), which hold labels and transforms"),
    (_is_network, "a network alone, without labels and transforms"),
)
"""What else people store with torch.save, and how to tell."""
