"""Train by train.ipynb without opening it: ``make train DATA=folder`` or ``RECIPE=name``.

What a user can have got wrong is looked for before the notebook starts and anything is written.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import copy
import re
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from traitlets.config import Config

from icon_classifier import errors
from icon_classifier.dataset.gather import check_own_photos
from icon_classifier.dataset.recipes import Recipe, folder_recipe, load_recipe, suggestion
from icon_classifier.errors import IconClassifierError, SettingsError
from icon_classifier.files import write_file
from scripts.environment import ROOT, SetupError

NOTEBOOK = ROOT / "train.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"


def check(recipe: str, data: str) -> Recipe:
    """Return the recipe that the notebook will use; raise an error if it would end with one."""
    if not (recipe or data):
        raise SettingsError(
            "expected DATA=folder, which holds a folder of photos for each class, or RECIPE=name"
        )
    plan = load_recipe(recipe) if recipe else folder_recipe(data)
    check_own_photos(plan, data or None)
    return plan


def with_parameters(notebook: Any, parameters: Mapping[str, object]) -> Any:
    """Add a cell that sets parameters behind the one that declares them.

    What is a text there stays one; another parameter may be given as the text of its value.
    """
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    at = next(index for index, each in enumerate(tags) if "parameters" in each)
    known = dict(re.findall(r"^(\w+) = (.)", notebook.cells[at].source, re.MULTILINE))
    lines = []
    for name, value in parameters.items():
        if name not in known:
            raise SettingsError(f"there is no parameter {name!r}{suggestion(name, list(known))}")
        if isinstance(value, str) and known[name] not in "\"'":
            lines.append(f"{name} = {_value(name, value)!r}")
        else:
            lines.append(f"{name} = {value!r}")
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    return notebook


def _value(name: str, text: str) -> object:
    """Return the value of a parameter that is no text."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    if value is None or isinstance(value, int | float):
        return value
    raise SettingsError(f"{name}: expected True, False, None or a number, got {text!r}")


class _Client(NotebookClient):
    """Prints what cells print, and the text of their tables, as it comes, below its heading."""

    _heading = ""

    def show_heading(self, cell: Any, cell_index: int) -> None:
        """Print the last heading where a cell starts that can print, which may take minutes."""
        if cell.cell_type == "markdown":
            headings = re.findall("^## (.*)", cell.source, re.MULTILINE)
            self._heading = headings[-1] if headings else self._heading
        elif self._heading and re.search(r"\b(print|display)\(", cell.source):
            print(f"\n{self._heading}", flush=True)
            self._heading = ""

    def output(self, outs: Any, msg: Any, display_id: str | None, cell_index: int) -> Any:
        output: Any = super().output(outs, msg, display_id, cell_index) or {}
        text = output.get("text", "")
        if "<table" in output.get("data", {}).get("text/html", ""):
            text = f"{output['data']['text/plain']}\n"
        print(text, end="", flush=True)
        return output or None

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel, and let Ctrl-C raise KeyboardInterrupt as it does elsewhere.

        Told to stop, nbclient closes the kernel's sockets while it still waits for their messages.
        """
        await super().async_start_new_kernel(**kwargs)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


def train(parameters: Mapping[str, object], report: Path) -> Any:
    """Run the notebook, print what its cells print, by heading, and write a page of it.

    Parameters
    ----------
    parameters : mapping
        Replace those that the notebook declares.
    report : Path
        The HTML file to write: texts and outputs, without the code.

    Returns
    -------
    nbformat.NotebookNode
        The executed notebook.

    Raises
    ------
    SettingsError
        There is no such parameter.
    SetupError
        A cell failed, or the kernel ended.
    """
    notebook = with_parameters(nbformat.read(NOTEBOOK, nbformat.NO_CONVERT), parameters)

    # Sockets that are files: no other process can take their ports or listen. Their paths must be
    # short.
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        sockets = {"transport": "ipc", "ip": f"{folder}/ipc"}
        client = _Client(
            notebook,
            kernel_name="python3",
            timeout=None,
            # Asked to end, ipykernel 7 closes its sockets now and then while its control thread
            # still writes to them, and prints a traceback below the results.
            shutdown_kernel="immediate",
            config=Config({"KernelManager": sockets}),
            resources={"metadata": {"path": str(ROOT)}},
        )
        client.on_cell_start = client.show_heading
        try:
            client.execute()
        except CellExecutionError as error:
            kind = getattr(errors, error.ename, None)
            if isinstance(kind, type) and issubclass(kind, IconClassifierError):
                raise SetupError(error.evalue) from error
            _write(notebook, report)
            raise SetupError(
                f"{error.ename}: {error.evalue}\nWhere it happened is in {report}."
            ) from error
        except DeadKernelError as error:
            raise SetupError(
                "the kernel of the notebook ended: it was stopped, or the memory of this machine "
                "does not suffice"
            ) from error
    _write(notebook, report)
    return notebook


def _write(notebook: Any, report: Path) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    shown = copy.deepcopy(notebook)
    # Widgets would be dead there, and shown by scripts of another host.
    shown.metadata.pop("widgets", None)
    for cell in shown.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if WIDGET not in each.get("data", {})]
    exporter = HTMLExporter(exclude_input=True, exclude_output_prompt=True)
    page, _ = exporter.from_notebook_node(shown)
    write_file(report, page)


def main(argv: list[str] | None = None) -> int:
    """Train; return 1 with the reason on standard error if that fails."""
    parser = argparse.ArgumentParser(description="Train by train.ipynb, without opening it.")
    parser.add_argument("--recipe", default="", help="the name of a recipe, or its file")
    parser.add_argument("--data", default="", help="a folder, an archive or a table of your own")
    parser.add_argument(
        *("-p", "--parameter"),
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="another parameter of the notebook",
    )
    arguments = parser.parse_args(argv)
    try:
        plan = check(arguments.recipe, arguments.data)
        report = ROOT / "reports" / f"train-{plan.name}.html"
        named = {"recipe": arguments.recipe, "data": arguments.data}
        train(named | dict(arguments.parameters), report)
    except (SetupError, IconClassifierError) as error:
        print(f"\nNot trained: {error}", file=sys.stderr)
        return 1
    print(f"\nTo see all figures and plots, open {report} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
