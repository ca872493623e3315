"""Play each host as closely as a machine without a container engine can: ``make deploy-check``.

Heroku: a clone, requirements.txt, ``bin/post_compile``, the Procfile's line with Heroku's
variables alone in 512 MB. Binder: repo2docker reads the folder, then the files of ``binder/`` in
its order and Jupyter's own server. Container hosts: the Dockerfile's RUN and COPY lines, then its
command on a read-only file system as another user than root, where namespaces can be made.
"""

import argparse
import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from icon_classifier.errors import IconClassifierError
from icon_classifier.smoke import SmokeReport, example_photo, smoke, visit
from scripts import hosts
from scripts.browser import find_browser
from scripts.environment import ROOT, SetupError

__all__ = [
    "Row",
    "main",
    "play_binder",
    "play_container",
    "play_heroku",
    "see",
    "serving_rows",
    "stay",
    "stopping_rows",
    "table",
]

VISITORS = 20


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    host, what : str
        Where, and what was measured.
    value : float or str
        The figure, or words.
    limit : float, optional
        What the figure must not exceed; words have none.
    unit : str
        Of figure and limit.
    """

    host: str
    what: str
    value: float | str
    limit: float | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        """The figure with its unit, or the words."""
        value = f"{self.value:.1f} {self.unit}" if isinstance(self.value, float) else self.value
        return value.strip()

    @property
    def good(self) -> bool:
        """Whether the figure is within its limit."""
        return self.limit is None or (isinstance(self.value, float) and self.value <= self.limit)


def table(rows: list[Row]) -> str:
    """Lay rows out as a table in Markdown."""
    lines = ["| host | what | measured | limit | |", "| --- | --- | ---: | ---: | --- |"]
    for row in rows:
        limit = f"{row.limit:g} {row.unit}" if row.limit is not None else ""
        verdict = "" if row.limit is None else ("good" if row.good else "**too much**")
        lines.append(f"| {row.host} | {row.what} | {row.text} | {limit.strip()} | {verdict} |")
    return "\n".join(lines)


async def stay(url: str, count: int) -> list[SmokeReport]:
    """Visit a page `count` times and keep every kernel, four visitors at once."""
    turns = asyncio.Semaphore(4)

    async def one() -> SmokeReport:
        async with turns:
            return await visit(url, example_photo(), 120, stay=True)

    return await asyncio.gather(*(one() for _ in range(count)))


def see(url: str) -> str:
    """Open the page in a browser, upload the example, and return the line with the label."""
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        raise SetupError("there is no browser; make deploy-check installs one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.locator("input[type=file]").first.set_input_files(example_photo(), timeout=60_000)
        page.get_by_role("button", name="Classify Icon").click()
        answer = page.get_by_text(re.compile("Prediction: ")).first
        answer.wait_for(timeout=60_000)
        text = answer.inner_text()
        browser.close()
    if "grizzly" not in text:
        raise SetupError(f"the browser read {text!r} in a photo of a grizzly")
    return text


def serving_rows(host: str, server: hosts.Started) -> Iterator[Row]:
    """Yield the rows that every host has: the smoke test of a started server."""
    yield Row(host, "time to bind the port", server.bind_seconds, 10.0, "s")
    report = smoke(server.url, timeout=120)
    yield Row(host, "smoke test", f"{report.label}, {report.probability:.4f}")
    yield Row(host, "page, whole", report.page_seconds, None, "s")


def stopping_rows(host: str, server: hosts.Started) -> Iterator[Row]:
    """Yield how the server ended."""
    unclean = 0.0 if server.code in (0, -15, 143) else float(abs(server.code))
    yield Row(host, "time to stop after SIGTERM", server.stop_seconds, 10.0, "s")
    yield Row(host, "unclean exit", unclean, 0.0)


def play_heroku(work: Path) -> Iterator[Row]:
    """Build and start as Heroku's classic buildpacks do."""
    host = "Heroku"
    app = hosts.clone(work / "app")
    for name in (app / ".slugignore").read_text().split():
        for ignored in app.glob(name.removeprefix("/")):
            shutil.rmtree(ignored) if ignored.is_dir() else ignored.unlink()
    python = hosts.venv(app / ".heroku" / "python")
    remark = hosts.install_requirements(python, app / "requirements.txt")
    path = f"{python.parent}:{os.environ['PATH']}"
    # The home folder and these variables tell how this machine reaches its registries.
    building = {"HOME": str(Path.home()), "PATH": path, "STACK": "heroku-24", "LANG": "C.UTF-8"}
    ways = ("PIP_", "NODE_", "NPM_", "npm_", "SSL_")
    passed = {name: value for name, value in os.environ.items() if name.startswith(ways)}
    hosts.call(["bash", "bin/post_compile"], app, building | passed)
    hosts.call([python, "-m", "compileall", "-q", app / ".heroku" / "python" / "lib"], app)
    slug = hosts.pack(app, work / "slug.tgz", leave_out=[".git"])
    library = hosts.pack(
        Path(os.__file__).parent,
        work / "library.tgz",
        leave_out=["__pycache__", "test", "idlelib", "site-packages", "dist-packages"]
        + [path.name for path in Path(os.__file__).parent.glob("config-*")],
    )
    yield Row(host, "requirements.txt installed", remark or "as it is")
    yield Row(host, "slug, packed, with Python's own library", slug + library, 150.0, "MB")
    port = hosts.free_port()
    serving = {"PORT": str(port), "DYNO": "web.1", "HOME": str(app), "LANG": "C.UTF-8"}
    serving |= {"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHONPATH": str(app)}
    serving |= {"PYTHONUNBUFFERED": "true", "MALLOC_ARENA_MAX": "2"}
    command = ["bash", "-c", f"exec {hosts.procfile_command(app)}"]
    with hosts.start(command, app, serving, port, megabytes=512) as server:
        yield from serving_rows(host, server)
        yield Row(host, "in a browser", see(server.url))
        asyncio.run(stay(server.url, 1))
        yield Row(host, "memory, 1 visitor", hosts.tree_memory(server.pid), 220.0, "MB")
        asyncio.run(stay(server.url, VISITORS - 1))
        what = f"memory, {VISITORS} visitors"
        yield Row(host, what, hosts.tree_memory(server.pid), 512.0, "MB")
    yield from stopping_rows(host, server)


def play_binder(work: Path) -> Iterator[Row]:
    """Let repo2docker read the folder; then do as the image it describes would."""
    host = "Binder"
    app = hosts.clone(work / "app")
    reader = hosts.venv(work / "repo2docker")
    hosts.call([reader, "-m", "pip", "install", "--quiet", "jupyter-repo2docker"], work)
    describe = [str(reader), "-m", "repo2docker", "--no-build", "--debug", "--user-id", "1000"]
    answer = subprocess.run(
        [*describe, "--user-name", "jovyan", str(app)], check=False, capture_output=True, text=True
    )
    text = answer.stdout + answer.stderr
    if answer.returncode or "binder/postBuild" not in text:
        raise SetupError(f"repo2docker cannot read the folder:\n{text[-1500:]}")
    yield Row(host, "repo2docker --no-build", "reads binder/, runs binder/postBuild")
    python = hosts.venv(work / "kernel")
    # pip reads the file it includes, so the index is left out there.
    remark = hosts.install_requirements(python, app / "requirements.txt")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    environment |= {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(work)}
    hosts.call([app / "binder" / "postBuild"], app, environment)
    yield Row(host, "requirements.txt installed", remark or "as it is")
    port = hosts.free_port()
    command = f"jupyter server --no-browser --port={port} --allow-root --IdentityProvider.token="
    with hosts.start(shlex.split(command), app, environment, port) as server:
        report = smoke(f"{server.url}voila/render/icon_classifier.ipynb")
        yield Row(host, "time to bind the port", server.bind_seconds, None, "s")
        yield Row(host, "smoke test", f"{report.label}, {report.probability:.4f}")


def play_container(work: Path) -> Iterator[Row]:
    """Do the Dockerfile's lines in private mounts, where a stage's folder is /app."""
    host = "container"
    stages = hosts.run_lines((ROOT / "Dockerfile").read_text())
    build, final = hosts.clone(work / "build"), hosts.fresh(work / "final")
    for name in (build / ".dockerignore").read_text().split():
        for found in build.glob(name):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
    (work / "home").mkdir()
    for word, rest in stages[0]:
        if word == "RUN" and not rest.startswith("ln -s"):  # node is this machine's
            hosts.call(_as_app(build, work, rest), work)
    copied = [rest.split()[1:] for word, rest in stages[1] if word == "COPY"]
    for *sources, target in copied:
        for source in sources:
            origin = build / Path(source).relative_to("/app")
            goal = final / target if target != "./" else final / origin.name
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(origin, goal, symlinks=True) if origin.is_dir() else shutil.copy2(
                origin, goal
            )
    size = hosts.pack(final, work / "final.tgz")
    settings = {
        name: value
        for word, rest in stages[1]
        if word == "ENV"
        for name, _, value in (part.partition("=") for part in shlex.split(rest))
    }
    port = hosts.free_port()
    settings |= {"PORT": str(port), "PATH": "/app/.venv/bin:/usr/local/bin:/usr/bin:/bin"}
    words = next(rest for word, rest in stages[1] if word == "CMD")
    command = shlex.join(re.findall(r'"((?:[^"\\]|\\.)*)"', words))
    user = next(rest for word, rest in stages[1] if word == "USER")
    drop = f"exec setpriv --reuid {user} --regid {user} --clear-groups {command}"
    with hosts.start(_as_app(final, work, drop, read_only=True), work, settings, port) as server:
        yield Row(host, "second stage above its base, packed", size, None, "MB")
        yield from serving_rows(host, server)
    yield from stopping_rows(host, server)


def _as_app(folder: Path, work: Path, line: str, *, read_only: bool = False) -> list[str]:
    """Wrap a shell line so that it sees `folder` as /app, and nothing of it outside."""
    script = ["set -e", "mkdir -p /app", f"mount --bind {shlex.quote(str(folder))} /app"]
    if read_only:
        script += ["mount -o remount,ro,bind /app", "mount -o remount,ro,bind /"]
        script += ["mount -t tmpfs -o mode=1777 none /tmp"]
    script += ["cd /app", line]
    return ["unshare", "--mount", "bash", "-c", "\n".join(script)]


PLAYS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "heroku": play_heroku,
    "binder": play_binder,
    "container": play_container,
}


def main(argv: list[str] | None = None) -> int:
    """Play the hosts, print the table; 1 if a play or a limit fails."""
    parser = argparse.ArgumentParser(description="Play each host and compare with its limits.")
    parser.add_argument("hosts", nargs="*", help=f"of {', '.join(PLAYS)}; all if none is named")
    names = parser.parse_args(argv).hosts or list(PLAYS)
    rows: list[Row] = []
    failed = False
    (ROOT / "build").mkdir(exist_ok=True)
    for name in names:
        print(f"Playing {name} (steps in build/deploy-check.log).", flush=True)
        began = time.monotonic()
        work = hosts.fresh(ROOT / "build" / "deploy" / name)
        try:
            for row in PLAYS[name](work):
                print(f"  {row.what}: {row.text}", flush=True)
                rows.append(row)
        except (SetupError, IconClassifierError) as error:
            print(f"\n{name}: {error}", file=sys.stderr)
            rows.append(Row(name, "play", "failed"))
            failed = True
        finally:
            shutil.rmtree(work, ignore_errors=True)
        rows.append(Row(name, "took", time.monotonic() - began, None, "s"))
    print(table(rows))
    return int(failed or not all(row.good for row in rows))


if __name__ == "__main__":
    sys.exit(main())
