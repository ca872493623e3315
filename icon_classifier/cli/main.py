"""The command line: ``icon-classifier predict``, ``convert``, ``info`` and ``api``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from icon_classifier import __version__
from icon_classifier.api.settings import cores
from icon_classifier.cli.output import open_results
from icon_classifier.cli.predict import classify_files, find_photos
from icon_classifier.cli.progress import Counter, progress
from icon_classifier.errors import IconClassifierError, SettingsError
from icon_classifier.model.opening import EXPORT, MODEL, open_model
from icon_classifier.model.session import Model

app = typer.Typer(
    help="Your own picture classifier, on the command line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelFolder = Annotated[
    Path, typer.Option("--model", help=f"The folder with {EXPORT} and {MODEL}.", show_default=".")
]


@app.command()
def predict(
    photos: Annotated[
        list[str], typer.Argument(help="Photos, folders of photos, or patterns like 'a/**/*.jpg'.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write a table.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; what it holds is not redone."),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Tell so many of the best classes.", show_default="1")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Photos at a time.", show_default="one a core")
    ] = None,
    on_ray: Annotated[
        bool,
        typer.Option("--ray", help="Spread the photos over a Ray cluster; see docs/scaling.md."),
    ] = False,
    model: ModelFolder = Path(),
) -> None:
    """Tell what is in photos. A file that cannot be read is a line with its error; exit code 1."""
    if as_json and as_csv:
        raise SettingsError("--json and --csv exclude each other")
    form = "json" if as_json else "csv" if as_csv else "text"
    # Photos run side by side instead of one on all cores.
    classifier = open_model(model, threads=1, keep_memory=True)
    with open_results(output, form, top or 1) as results:
        if on_ray:
            scale = _import_scale()
            find = partial(scale.find_photos_anywhere, photos)
            paths = (path for path in find() if path not in results.done)
            records = scale.classify_on_ray(model / MODEL, paths, top=top)
        else:
            find = partial(find_photos, photos)
            paths = (path for path in find() if path not in results.done)
            records = classify_files(classifier, paths, threads=threads or cores(), top=top)
        # A bar belongs to a person, and must not run through lines on the same screen.
        if sys.stderr.isatty() and (output is not None or not sys.stdout.isatty()):
            records = progress(records, Counter(find), done=len(results.done))
        for record in records:
            results.write(record)
    if results.failed:
        raise typer.Exit(1)


@app.command()
def convert(
    export: Annotated[Path, typer.Argument(help="The trained Learner.")] = Path(EXPORT),
    target: Annotated[
        Path | None, typer.Argument(help=f"The file to write; {MODEL} beside it if not given.")
    ] = None,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help=f"Do nothing if {MODEL} is up to date.")
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", hidden=True)] = False,
) -> None:
    """Compile export.pkl to export.onnx; nothing in export.pkl is run."""
    from icon_classifier.model.opening import is_up_to_date

    if trust:
        print("--trust is no longer needed: nothing in export.pkl is run.", file=sys.stderr)
    target = export.with_suffix(".onnx") if target is None else target
    if if_needed and is_up_to_date(target, export):
        print(f"{target} is up to date.")
        return
    # Imported here: only this command needs torch, which takes seconds to import.
    from icon_classifier.conversion.convert import convert as compile_export

    compile_export(export, target)
    print(f"Compiled {export} to {target} ({target.stat().st_size / 1e6:.1f} MB).")


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
        from icon_classifier.api.app import app_from_environment
        from icon_classifier.api.serve import serve
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed: run pip install 'icon-classifier[api]'"
        ) from error
    serve(app_from_environment(model), host=host, port=port)


@app.command()
def smoke(
    url: Annotated[str, typer.Argument(help="The address of a served page.")],
    photo: Annotated[
        Path | None, typer.Option(help="A photo to upload; fastbook's grizzly if not given.")
    ] = None,
    label: Annotated[str, typer.Option(help="What the page must see in it.")] = "grizzly",
    timeout: Annotated[float, typer.Option(help="Seconds for all of it.")] = 60,
) -> None:
    """Visit a served page, upload a photo and check the label; exit code 1 if that fails."""
    # Imported here: the other commands need no web client.
    from icon_classifier.server.visitor import smoke as visit

    print(visit(url, photo, label, timeout))


def _import_scale() -> ModuleType:
    try:
        from icon_classifier.api import on_ray as scale
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed: run pip install 'icon-classifier[scale]'"
        ) from error
    return scale


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 1."""
    try:
        app()
    except IconClassifierError as error:
        print(f"icon-classifier: {error}", file=sys.stderr)
        sys.exit(1)


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
