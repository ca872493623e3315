"""The command line: ``icon-classifier predict``, ``convert``, ``site``, ``api`` and others.

Each command imports itself what takes long: ONNX Runtime and other libraries take a second.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from icon_classifier.cli.summary import comparison, history, notes, summary
from icon_classifier.errors import (
    ConversionError,
    IconClassifierError,
    ModelDamagedError,
    ModelError,
    SettingsError,
)
from icon_classifier.files import write_file
from icon_classifier.model.info import read_metadata, read_model_file
from icon_classifier.model.names import names_file, parse_names
from icon_classifier.model.opening import EXPORT, MODEL, open_model
from icon_classifier.system.memory import usable_cores
from icon_classifier.system.texts import is_printable, printable


class _Command(TyperCommand):
    """A command whose help shows an argument as PHOTOS..., not as {PHOTOS}... <list[str]>."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "") for piece in pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            found = (
                p.get_help_record(ctx) for p in self.get_params(ctx) if p.param_type_name == kind
            )
            if rows := [(name.partition(" <")[0], text) for name, text in filter(None, found)]:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    help="Classify photos, and serve and check a classifier.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _model_folder(path: Path) -> Path:
    """Return the folder of a model, which a user may name by one of its files."""
    folder = path.expanduser()
    if folder.name in (EXPORT, MODEL) and folder.is_file():
        folder = folder.parent
    if folder.is_file():
        raise SettingsError(f"expected a folder with {EXPORT} or {MODEL}, got the file {path}")
    if not any((folder / name).is_file() for name in (EXPORT, MODEL)):
        raise SettingsError(
            f"there is no {MODEL} in {folder.resolve()}; name the model's folder with --model"
        )
    return folder


ModelFolder = Annotated[
    Path,
    typer.Option(
        "--model",
        metavar="FOLDER",
        help=f"The folder with {EXPORT} and {MODEL}; this one by default.",
        show_default=False,
        callback=_model_folder,
    ),
]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(cls=_Command)
def predict(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS", help="Photos, folders of photos, or patterns like 'a/**/*.jpg'."
        ),
    ],
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A file for the results; one of an earlier run is continued.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Classes to name for each photo; 1 by default."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Photos to classify at a time; one for each core by default."
        ),
    ] = None,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Classify on a Ray cluster; see docs/api.md.")
    ] = False,
    model: ModelFolder = Path(),
) -> None:
    """Classify photos.

    JSON is an object for each photo. A file that cannot be read becomes a line with its error; the
    exit code is then 1.
    """
    from icon_classifier.cli.output import open_results, show_progress
    from icon_classifier.cli.predict import classify_files, find_photos, passed_over_line

    if as_json and as_csv:
        raise SettingsError("expected --json or --csv, got both")
    form = "json" if as_json else "csv" if as_csv else "text"
    passed_over: Counter[str] = Counter()
    count = 0
    # One thread for each photo: photos are classified in parallel instead.
    classifier = open_model(model, threads=1, keep_memory=True)
    with open_results(output, form, top or 1) as results:
        if on_ray:
            try:
                from icon_classifier.cli.on_ray import classify_on_ray, find_photos_anywhere
            except ModuleNotFoundError as error:
                raise _missing_extra(error, "scale") from error
            find = find_photos_anywhere
            classify = partial(classify_on_ray, model / MODEL)
        else:
            find = find_photos
            classify = partial(classify_files, classifier, threads=threads or usable_cores())
        paths = (path for path in find(photos, passed_over) if path not in results.done)
        records = classify(paths, top=top)
        # Not while results are printed to the same terminal.
        if sys.stderr.isatty() and (output is not None or not sys.stdout.isatty()):
            records = show_progress(records, partial(find, photos), done=len(results.done))
        for record in records:
            results.write(record)
            count += 1
    total = len(results.done) + count
    messages = [passed_over_line(passed_over)]
    if output is not None:
        messages.append(f"{output} has {total} photos, {count} of them new")
    for message in filter(None, messages):
        print(f"icon-classifier: {printable(message)}", file=sys.stderr)
    if not total:
        raise SettingsError(f"there are no photos in {', '.join(photos)}")
    if results.failed:
        raise typer.Exit(1)


@app.command(cls=_Command)
def info(
    as_json: AsJson = False,
    model: ModelFolder = Path(),
) -> None:
    """Print what the model is."""
    metadata = open_model(model).info.raw
    if as_json:
        _print_json(metadata)
        return
    try:
        rows = list(chain(summary(metadata), history(metadata)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelDamagedError(f"the model's metadata is invalid: {error}") from error
    _print_rows(rows)


@app.command(cls=_Command)
def evaluate(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Photos in folders named like the classes.")
    ],
    as_json: AsJson = False,
    wrong: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file for the wrong answers.")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Also add the result to the model card, export.md.")
    ] = False,
    model: ModelFolder = Path(),
) -> None:
    """Judge the model on photos whose classes are known."""
    try:
        from icon_classifier.cli.evaluate import evaluate_folder, remarks, to_json, wrong_table
        from icon_classifier.training.model_card import add_evaluation
    except ModuleNotFoundError as error:
        raise _missing_extra(error, "train") from error

    classifier = open_model(model, threads=1, keep_memory=True)
    report = evaluate_folder(classifier, folder.expanduser(), threads=usable_cores())
    if as_json:
        _print_json(to_json(report))
    else:
        print(report)
        print(*remarks(report), sep="\n")
    if wrong is not None:
        write_file(wrong, wrong_table(report))
    if card:
        add_evaluation(str(report), folder.resolve().name, model)


@app.command(cls=_Command)
def convert(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="The trained Learner.")] = Path(
        EXPORT
    ),
    target: Annotated[
        Path | None,
        typer.Argument(metavar="TARGET", help=f"The file to write; {MODEL} beside it by default."),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names of classes for people, as 'False=dog,True=cat'; '' for none. They are "
            "kept in export.names.txt beside export.pkl, a line for each.",
        ),
    ] = None,
    int8: Annotated[
        str | None,
        typer.Option(
            metavar="PHOTOS",
            help="A folder of photos: convert to 8-bit integers, smaller and faster, calibrated "
            "on some of them and judged on the others; '' for an exact model again.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert export.pkl to export.onnx.

    Prints what was found in export.pkl. Nothing in it is run.
    """
    from icon_classifier.conversion.convert import convert as convert_export

    target = export.with_suffix(".onnx") if target is None else target
    try:
        named = None if names is None else parse_names(names.replace(",", "\n").encode())
    except ConversionError as error:
        raise ConversionError(
            f"{error}; where names have commas, write a line for each class, as in False = cat, "
            f"tabby, into {names_file(export)}"
        ) from error
    was_int8 = int8 is None and _is_int8(target)
    convert_export(export, target, names=named, int8=int8)
    metadata = read_metadata(target)
    if as_json:
        _print_json(metadata)
        return
    print(f"Converted {export} to {target} ({target.stat().st_size / 1e6:.1f} MB).")
    _print_rows(summary(metadata))
    if int8:
        _print_rows(comparison(metadata["int8"]["judged"]))
    if was_int8 and "int8" not in metadata:
        print(f"Note: {target} was quantized and is exact now; --int8 PHOTOS quantizes it again.")
    card = export.with_suffix(".md")
    for note in notes(metadata, card.read_text("utf-8", "replace") if card.is_file() else ""):
        print(f"Note: {note}")
    if target.name != MODEL and export.name == EXPORT:
        print(f"Note: The page opens {MODEL}; to write it, leave out {target}.")
    elif target.name != MODEL:
        also = ""
        if names_file(export).exists():
            also = f" and {names_file(export)} to {names_file(Path(EXPORT))}"
        print(f"Note: The page opens {MODEL}. For this model, rename {export} to {EXPORT}{also}.")


@app.command(cls=_Command)
def site(
    out: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="The folder to write: a new one, or a site's."),
    ],
    exact: Annotated[
        bool, typer.Option("--exact", help=f"Publish {MODEL} as it is: twice the size.")
    ] = False,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTOS",
            help="A folder of photos: publish 8-bit integers, half the size, calibrated on some "
            "of them and judged on the others, which takes minutes.",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTOS",
            help="A folder of photos: print how the published model's answers differ.",
        ),
    ] = None,
    model: ModelFolder = Path(),
) -> None:
    """Write the page as static files.

    Any web server serves them; photos are answered in the visitor's browser. Weights are stored in
    half precision.
    """
    from icon_classifier.site.build import check_target, write_site

    if exact and (int8 or compare):
        raise SettingsError("expected --exact alone, got it with --int8 or --compare")
    out = out.expanduser()  # make passes it on as it was typed
    check_target(out)
    open_model(model)  # converts export.pkl where that is necessary
    data = read_model_file(model / MODEL)
    if not exact:
        try:
            from icon_classifier.compact.shrink import shrink
        except ModuleNotFoundError as error:
            raise SettingsError(f"{_missing_extra(error, 'train')}, or add --exact") from error
        data, comparisons = shrink(data, quantize_by=int8, compare_on=compare)
        for judged in comparisons:
            _print_rows(comparison(judged))
    write_site(out, model, data)
    print(f"Wrote {out} ({len(data) / 1e6:.1f} MB of weights); to look at it, run")
    print(f"  python3 -m http.server -d {shlex.quote(str(out))}\nand open http://localhost:8000")


@app.command(cls=_Command)
def api(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", envvar="PORT", min=0, max=65535, help="The port.")
    ] = 8867,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The prefix under which a proxy serves the API, such as /classifier; the proxy "
            "removes it from addresses.",
            show_default=False,
        ),
    ] = "",
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FOLDER", help=f"The folder with {EXPORT} and {MODEL}."),
    ] = None,
) -> None:
    """Serve the JSON API.

    Its other options are environment variables; see docs/api.md.
    """
    try:
        from icon_classifier.api.app import app_from_environment
        from icon_classifier.api.serve import serve
    except ModuleNotFoundError as error:
        raise _missing_extra(error, "api") from error
    folder = None if model is None else _model_folder(model)
    serve(app_from_environment(folder), host=host, port=port, root_path=root_path)


@app.command(cls=_Command)
def smoke(
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of a served page.")],
    photo: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A photo to upload; fastbook's grizzly by default."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="The label that the page must return; any by default."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time for the whole test.")
    ] = 60,
) -> None:
    """Check a served page with a photo.

    Opens it, uploads the photo and reads the answer; the exit code is 1 if that fails.
    """
    from icon_classifier.cli.smoke import smoke as visit

    print(visit(url, photo, label, timeout))


def _is_int8(model: Path) -> bool:
    try:
        return "int8" in read_metadata(model)
    except ModelError:
        return False


def _print_json(metadata: Mapping[str, Any]) -> None:
    text = json.dumps(metadata, ensure_ascii=False, indent=2)
    if not all(map(is_printable, text.split("\n"))):
        text = json.dumps(metadata, indent=2)
    print(text)


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; a name that comes again is printed once."""
    last = ""
    for name, value in rows:
        if value:
            print(printable(f"{name + ':' if name != last else '':<20}{value}"))
            last = name


def _missing_extra(error: ModuleNotFoundError, extra: str) -> SettingsError:
    return SettingsError(
        f"{error.name} is not installed: run pip install 'icon-classifier[{extra}]'"
    )


def main() -> None:
    """Run the command line; what a user can mend is one line on stderr and exit code 1."""
    try:
        app()
    except IconClassifierError as error:
        lines = map(printable, f"icon-classifier: {error}".split("\n"))
        print("\n".join(lines), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        path = printable(str(error.filename))
        print(f"icon-classifier: {path} cannot be opened: {error.strerror}", file=sys.stderr)
        sys.exit(1)
