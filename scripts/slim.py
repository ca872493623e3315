"""Remove every installed package that serving does not need: ``python -m scripts.slim --remove``.

For a host's image, after ``export.onnx`` has been converted: torch, fastai, spaCy and whatever else
only the build needed are removed, so that the image is small and a process that faces visitors has
nothing to unpickle with. What stays follows from the dependencies of this package (pyproject.toml),
in the Python that runs this module. Without ``--remove`` it only prints the size.
"""

import argparse
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT_PACKAGE = "icon-classifier"
# Required by some package, but of no use to a page: a debugger, code completion, the widgets of the
# classic notebook, and what validates addresses, dates and colours in Jupyter's own schemas.
# rfc3987-syntax builds a grammar when it is imported: 16 MB of the server's memory and most of its
# start.
_CHECKS = {"fqdn", "isoduration", "rfc3987-syntax", "uri-template", "webcolors"}
UNUSED = frozenset({"debugpy", "jedi", "parso", "widgetsnbextension", *_CHECKS})
# A host installs into the same environment at the next build; fastbook has the page's examples.
KEPT = frozenset({"fastbook", "pip"})
_CHECK = "import icon_classifier.page.ui, ipykernel.kernelapp, voila.app"


def requirements_of(name: str) -> list[Requirement]:
    """Return what an installed distribution requires; nothing if it is not installed."""
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def closure(name: str, unused: Iterable[str] = UNUSED) -> set[str]:
    """Collect the distributions that `name` needs here, save `unused` and what only they need."""
    found: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), "")]
    while waiting:
        entry = waiting.pop()
        if entry in found or entry[0] in unused:
            continue
        found.add(entry)
        for wanted in requirements_of(entry[0]):
            if wanted.marker is None or wanted.marker.evaluate({"extra": entry[1]}):
                needed = canonicalize_name(wanted.name)
                waiting += [(needed, extra) for extra in {"", *wanted.extras}]
    return {distribution for distribution, _ in found}


def is_unused(path: PurePosixPath) -> bool:
    """Return whether a file of a package that stays, named as in RECORD, is not needed to serve."""
    if {"test", "tests"}.intersection(path.parts[:-1]):
        return True
    if path.parts[:2] == ("babel", "locale-data"):
        return re.match(r"(root|en(_\w+)?)\.", path.name) is None
    if path.parts[0] == "onnxruntime" and len(path.parts) > 1:
        return path.parts[1] in {"datasets", "quantization", "tools", "transformers"}
    return path.suffix in {".a", ".c", ".cpp", ".h", ".hpp", ".map", ".pxd", ".pyi", ".pyx"}


def files_to_remove(staying: set[str]) -> Iterator[Path]:
    """Yield the files of packages that are removed, and the unused files of those that stay."""
    kept: set[Path] = set()
    removed: set[Path] = set()
    for distribution in metadata.distributions():
        stays = canonicalize_name(distribution.metadata["Name"]) in staying
        for file in distribution.files or []:
            remove = not stays or is_unused(file)
            (removed if remove else kept).add(Path(str(file.locate())).resolve())
    yield from removed - kept  # a file that two packages own stays if one of them does


def remove_empty(folder: Path) -> None:
    """Remove folders without files, and bytecode whose source was removed."""
    for cache in list(folder.rglob("__pycache__")):
        for compiled in cache.glob("*.pyc"):
            if not (cache.parent / f"{compiled.name.partition('.')[0]}.py").exists():
                compiled.unlink()
    folders = (path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())
    for path in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def main(argv: list[str] | None = None) -> int:
    """Remove, or print what would be removed; return 1 if the page can no longer be imported."""
    parser = argparse.ArgumentParser(description="Remove what serving does not need.")
    parser.add_argument("--remove", action="store_true", help="without it nothing is removed")
    arguments = parser.parse_args(argv)
    staying = closure(ROOT_PACKAGE) | KEPT
    unused = [path for path in files_to_remove(staying) if path.is_file()]
    size = sum(path.stat().st_size for path in unused) / 1e6
    print(f"{len(staying)} packages stay; {len(unused)} files of {size:.0f} MB are not needed.")
    if not arguments.remove:
        print("Nothing was removed; add --remove to do so.")
        return 0
    for path in unused:
        path.unlink()
    remove_empty(Path(sysconfig.get_path("purelib")))
    return subprocess.run([sys.executable, "-c", _CHECK], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
