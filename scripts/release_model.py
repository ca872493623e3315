"""Make a newly trained model the page's: ``make release-model EXPORT=path``.

Nothing is replaced before everything has passed: the allow-list and the compilation, the same
answers from the compiled model as from the Learner, and an error no larger than the present
model's.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icon_classifier.conversion.convert import convert
from icon_classifier.errors import IconClassifierError
from icon_classifier.model.session import Model
from icon_classifier.server.visitor import example_photo
from scripts.environment import ROOT, SetupError
from scripts.prepare import model_state, write_stamp

CARD = "export.md"


def check_figures(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Compare the figures of two models.

    Parameters
    ----------
    new, old : dict
        What their files say of themselves.

    Raises
    ------
    SetupError
        If the new model's error on its validation photos is larger than the present one's, or is
        not known while that is.
    """
    before = (old.get("figures") or {}).get("error")
    after = (new.get("figures") or {}).get("error")
    if before is None or set(new["labels"]) != set(old["labels"]):
        return  # nothing to compare with
    if after is None:
        raise SetupError(
            "the new model does not tell its error; ARGS=--worse takes it all the same"
        )
    if after > before:
        raise SetupError(
            f"the new model's error is {after:.2%}, the present one's {before:.2%}; "
            "ARGS=--worse takes it all the same"
        )


def changes(new: dict[str, Any], old: dict[str, Any]) -> Iterator[str]:
    """Tell line by line in what two models differ."""
    for name in ("labels", "recipe", "figures", "transforms", "temperature", "unsure", "versions"):
        before, after = old.get(name), new.get(name)
        if before != after:
            yield f"{name}: {before} -> {after}"


def bare_card(about: dict[str, Any]) -> str:
    """Write a card for a Learner that came without one, from what its file says of itself.

    Parameters
    ----------
    about : dict
        What export.onnx says.
    """
    figures = about.get("figures") or {}
    known = [f"- {name}: {value}" for name, value in figures.items() if _is_number(value)]
    lines = [
        f"# Model card: {', '.join(about['labels'])}",
        "",
        "This model came without a card of its own: what it was trained on, and for what, is not "
        "written down.",
        "",
        "## How good it is",
        "",
        *(known or ["Not known: the file has no figures."]),
        "",
        "## Training",
        "",
        f"- recipe: {about.get('recipe') or 'not known'}",
    ]
    return "\n".join(lines) + "\n"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def check_parity(export: Path) -> None:
    """Compare compiled model and Learner on photographs; :exc:`SetupError` if they differ."""
    command = [sys.executable, "-m", "bench.bench_parity", str(example_photo().parent), str(export)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SetupError("the compiled model does not answer as its Learner does (see above)")


def release(export: Path, root: Path = ROOT, *, worse: bool = False) -> list[str]:
    """Check `export` and put it, its hash, its card and export.onnx into `root`.

    Parameters
    ----------
    export : Path
        The new Learner. Naming it here is its owner's consent; what it may hold is checked.
    root : Path
        The folder of the page.
    worse : bool
        Whether to take a model whose figures are worse.

    Returns
    -------
    list of str
        What changed.

    Raises
    ------
    SetupError, IconClassifierError
        If it does not pass; then nothing has changed.
    """
    if not export.is_file():
        raise SetupError(f"there is no file {export}; make release-model EXPORT=path/to/export.pkl")
    with tempfile.TemporaryDirectory(dir=root, prefix=".release-") as folder:
        candidate = Path(folder) / "export.pkl"
        shutil.copyfile(export, candidate)
        compiled = convert(candidate)
        new = dict(Model.load(compiled).info.raw)
        present = root / "export.onnx"
        old = dict(Model.load(present).info.raw) if present.exists() else {}
        if old and not worse:
            check_figures(new, old)
        check_parity(candidate)
        card = export.with_name(CARD)
        if card.is_file():
            shutil.copyfile(card, candidate.with_name(CARD))
        elif new["export_sha256"] != old.get("export_sha256"):  # the present card is another's
            candidate.with_name(CARD).write_text(bare_card(new), encoding="utf-8")
        for name in ("export.pkl", "export.pkl.sha256", "export.onnx", CARD):
            if (part := candidate.with_name(name)).exists():
                part.replace(root / name)
    return list(changes(new, old))


def main(argv: list[str] | None = None) -> int:
    """Release and tell what changed; 1 and the reason if the model does not pass."""
    parser = argparse.ArgumentParser(description="Make a newly trained model the page's.")
    parser.add_argument("export", type=Path, help="the trained Learner")
    parser.add_argument("--worse", action="store_true", help="take worse figures, too")
    arguments = parser.parse_args(argv)
    try:
        told = release(arguments.export, worse=arguments.worse)
    except (SetupError, IconClassifierError) as error:
        print(f"\nNot released: {error}", file=sys.stderr)
        return 1
    write_stamp("model", model_state())
    print("\n".join(told) or "It says the same of itself as the model before.")
    print("Released. Look at the page (make app), then commit export.pkl, its hash and its card:")
    subprocess.run(["git", "status", "--short", "--", "export.*"], cwd=ROOT, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
