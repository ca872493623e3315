"""Replace the page's model by a newly trained one: ``make release-model EXPORT=path``.

Nothing is replaced before every check has passed: the file converts, the converted model answers
like the Learner, and its error is no larger than the present model's.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icon_classifier.cli.smoke import example_photo
from icon_classifier.cli.summary import notes, summary
from icon_classifier.conversion.convert import convert
from icon_classifier.errors import IconClassifierError
from icon_classifier.model.names import names_file
from icon_classifier.model.session import Model
from icon_classifier.training.model_card import CARD, plain
from scripts.environment import ROOT, SetupError

COMMIT = "git add 'export.*' && git commit -m 'Release a new model'"
"""Names of classes, too; git leaves out export.onnx, which it ignores."""

GO_BACK = "git stash --include-untracked -- 'export.*'"


def check_figures(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Compare the figures in the metadata of two models.

    :exc:`SetupError` if the new model's error on its validation photos is larger than the present
    one's, or unknown while that one is known.
    """
    before = (old.get("figures") or {}).get("error")
    after = (new.get("figures") or {}).get("error")
    if before is None or not _same_classes(new, old):
        return  # nothing to compare with
    if after is None:
        raise SetupError(
            "the new model's file has no error figure; ARGS=--worse releases it anyway"
        )
    if after > before:
        raise SetupError(
            f"the new model's error is {after:.2%}, the present one's {before:.2%}; "
            "ARGS=--worse releases it anyway"
        )


def _same_classes(new: dict[str, Any], old: dict[str, Any]) -> bool:
    return set(new["labels"]) == set(old.get("labels", ()))


def changes(new: dict[str, Any], old: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each difference between two models, as ``icon-classifier info`` has it."""
    before, after = (dict(_about(each)) if each else {} for each in (old, new))
    if not old:
        yield from (f"{name}: {value}" for name, value in sorted(after.items()))
        return
    if not _same_classes(new, old):
        del before["error"]
        yield f"error: {after.pop('error')}; nothing to compare with, because the classes changed"
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, 'none')} -> {after.get(name, 'none')}"


def _about(metadata: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, value) for name, value in summary(metadata) if name != "left out")
    yield "recipe", metadata.get("recipe") or "unknown"
    error = (metadata.get("figures") or {}).get("error")
    yield "error", "unknown" if error is None else f"{error:.2%}"


def bare_card(about: dict[str, Any]) -> str:
    """Return a model card for a Learner that has none, from the metadata of its export.onnx."""
    figures = about.get("figures") or {}
    known = [
        f"- {name}: {value}" for name, value in figures.items() if isinstance(value, int | float)
    ]
    return f"""\
# Model card: {plain(", ".join(about["labels"]))}

This model was released without a card: its training data and intended use are unknown.

## How good it is

{chr(10).join(known) or "Unknown: the file has no figures."}

## Training

- recipe: {plain(about.get("recipe") or "unknown")}
"""


def check_parity(export: Path) -> None:
    """Compare converted model and Learner on photographs; :exc:`SetupError` if that fails."""
    command = [sys.executable, "-m", "bench.bench_parity", str(example_photo().parent), str(export)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(
            "it is not shown that the converted model answers like its Learner:\n"
            f"{done.stdout}{done.stderr}"
        )


def release(export: Path, root: Path = ROOT, *, worse: bool = False) -> list[str]:
    """Check `export`, put it, its card and export.onnx into `root`; return what changed, and notes.

    `export` may be the folder of an export.pkl. Names of classes come with it; those of the present
    model go. `worse` accepts a model whose figures are worse. :exc:`SetupError` or another error of
    this package if a check fails; then nothing has changed.
    """
    named = export != Path()  # without EXPORT, make passes an empty name
    if export.is_dir():
        export /= "export.pkl"
    if not export.is_file() or export.resolve() == (root / "export.pkl").resolve():
        trained = [
            shlex.quote(str(path.relative_to(root)))
            for path in sorted(root.glob("models/*/export.pkl"))
        ]
        what = "that is the page's model" if export.is_file() else f"there is no file {export}"
        what = what if named else "expected the file of a trained model, got none"
        raise SetupError(
            f"{what}; make release-model EXPORT=path/to/export.pkl"
            + (f"; there are: {', '.join(trained)}" if trained else "")
        )
    print("Converting the model, comparing it with its Learner: about half a minute.", flush=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".release-") as folder:
        candidate = Path(folder) / "export.pkl"
        shutil.copyfile(export, candidate)
        if names_file(export).is_file():
            shutil.copyfile(names_file(export), names_file(candidate))
        converted = convert(export, candidate.with_suffix(".onnx"))
        new = dict(Model.load(converted).info.raw)
        present = root / "export.onnx"
        old = dict(Model.load(present).info.raw) if present.exists() else {}
        if old and not worse:
            check_figures(new, old)
        check_parity(candidate)
        card = export.with_name(CARD)
        if card.is_file():
            shutil.copyfile(card, candidate.with_name(CARD))
        elif new["export_sha256"] != old.get("export_sha256"):
            # The present card describes another model.
            candidate.with_name(CARD).write_text(bare_card(new), encoding="utf-8")
        names = names_file(candidate).name
        for name in ("export.pkl", "export.onnx", CARD, names):
            if (part := candidate.with_name(name)).exists():
                part.replace(root / name)
            elif name == names:
                (root / names).unlink(missing_ok=True)
    card = root / CARD
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    return [*changes(new, old), *(f"Note: {note}" for note in notes(new, text))]


def main(argv: list[str] | None = None) -> int:
    """Release and print what changed; return 1 with the reason if a check fails."""
    parser = argparse.ArgumentParser(description="Replace the page's model by a new one.")
    parser.add_argument("export", type=Path, help="the trained Learner")
    parser.add_argument("--worse", action="store_true", help="accept worse figures")
    arguments = parser.parse_args(argv)
    try:
        changed = release(arguments.export.expanduser(), worse=arguments.worse)
    except (SetupError, IconClassifierError, OSError) as error:
        print(f"\nNot released: {error}", file=sys.stderr)
        return 1
    print("\n".join(changed) or "The metadata is the same as before.")
    print(f"\nReleased. Look at the page (make app), then commit the model:\n  {COMMIT}")
    print(f"Or go back to the last committed one:\n  {GO_BACK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
