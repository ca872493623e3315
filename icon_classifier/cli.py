"""The command line: ``icon-classifier predict``, ``convert``, ``info`` and ``api``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from icon_classifier import __version__
from icon_classifier.errors import IconClassifierError, ImageError, SettingsError
from icon_classifier.images import read_image_file
from icon_classifier.model import EXPORT, MODEL, Model, Prediction, open_model

__all__ = ["api", "app", "convert", "info", "main", "predict"]

app = typer.Typer(
    help="Your own picture classifier, on the command line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif"),
)

ModelFolder = Annotated[
    Path, typer.Option("--model", help=f"The folder with {EXPORT} and {MODEL}.", show_default=".")
]


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    model: ModelFolder = Path(),
) -> None:
    """Tell what is in photos. A file that cannot be read is a line with its error; exit code 1."""
    classifier = open_model(model)
    failed = False
    for path in _photos(photos):
        try:
            answer = _answer(path, classifier.predict(read_image_file(path)))
        except ImageError as error:
            failed = True
            answer = {"path": str(path), "error": error.words}
        print(json.dumps(answer, ensure_ascii=False) if as_json else _line(answer), flush=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def convert(
    export: Annotated[Path, typer.Argument(help="The trained Learner.")] = Path(EXPORT),
    target: Annotated[
        Path | None, typer.Argument(help=f"The file to write; {MODEL} beside it if not given.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="I made this file or know who did: record its SHA-256."),
    ] = False,
) -> None:
    """Compile export.pkl to export.onnx."""
    # Imported here: only this command needs torch, which takes seconds to import.
    from icon_classifier.convert import convert as compile_export

    written = compile_export(export, target, trust=trust)
    size = written.stat().st_size / 1e6
    print(f"Compiled {export} to {written} ({size:.1f} MB).")


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    model: ModelFolder = Path(),
) -> None:
    """Tell what the model says of itself."""
    classifier = open_model(model)
    if as_json:
        print(json.dumps(classifier.info.raw, ensure_ascii=False, indent=2))
        return
    for name, value in _about(classifier):
        print(f"{name + ':':<14}{value}")


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for everybody.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(envvar="PORT", min=0, max=65535)] = 8867,
    model: Annotated[
        Path | None, typer.Option("--model", help=f"The folder with {EXPORT} and {MODEL}.")
    ] = None,
) -> None:
    """Serve the JSON API; docs/api.md tells its options, which stand in the environment."""
    # Imported here: the other commands need no server.
    try:
        from icon_classifier.api import app_from_environment
        from icon_classifier.api_server import serve
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed: run pip install 'icon-classifier[api]'"
        ) from error
    serve(app_from_environment(model), host=host, port=port)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 1."""
    try:
        app()
    except IconClassifierError as error:
        print(f"icon-classifier: {error}", file=sys.stderr)
        sys.exit(1)


def _photos(paths: list[Path]) -> Iterator[Path]:
    """Yield files as given, and what looks like a photo below folders, in the order of names."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
        else:
            yield path


def _answer(path: Path, prediction: Prediction) -> dict[str, Any]:
    return {
        "path": str(path),
        "label": prediction.label,
        "probability": round(prediction.probability, 6),
        "known": prediction.known,
        "ranking": [
            {"label": label, "probability": round(probability, 6)}
            for label, probability in prediction.ranking
        ],
    }


def _line(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"{answer['path']}\t{answer['error']}"
    sure = "" if answer["known"] else "\tnot sure"
    return f"{answer['path']}\t{answer['label']}\t{answer['probability']:.4f}{sure}"


def _about(model: Model) -> Iterator[tuple[str, str]]:
    about = model.info
    yield "labels", ", ".join(about.labels)
    yield "recipe", about.recipe or "not recorded"
    yield "compiled", about.date
    yield "from", f"{EXPORT} with SHA-256 {about.export_sha256}"
    yield "transforms", str(about.pipeline)
    yield "temperature", f"{about.temperature:.4f}"
    yield (
        "not sure",
        "never said" if about.threshold is None else f"{about.score} below {about.threshold:.4f}",
    )
    for name, value in about.figures.items():
        yield str(name), str(value)
    yield "versions", ", ".join(f"{name} {version}" for name, version in about.versions.items())
    yield "command line", __version__
