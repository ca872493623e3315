"""How each host is played.

Heroku: a clone, requirements.txt, ``bin/post_compile``, and the Procfile's line from another folder
than the one of the build, with Heroku's variables alone in 512 MB. Binder: repo2docker reads the
folder; then the files of ``binder/`` in its order and Jupyter's own server. Container hosts: the
Dockerfile's lines in a root of their own (:mod:`scripts.container`).
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from icon_classifier.server.visitor import smoke
from scripts import container, hosts, starting
from scripts.environment import ROOT, SetupError
from scripts.rows import Row
from scripts.visitors import memory_with, see

VISITORS = 20


def serving_rows(host: str, server: starting.Started, page: str = "") -> Iterator[Row]:
    """Yield the rows that every host has: the smoke test of a started server."""
    yield Row(host, "time to bind the port", server.bind_seconds, 10.0, "s")
    report = smoke(server.url + page, timeout=120)
    yield Row(host, "smoke test", f"{report.label}, {report.probability:.4f}")
    yield Row(host, "page, whole", report.page_seconds, None, "s")


def stopping_rows(host: str, server: starting.Started) -> Iterator[Row]:
    """Yield how the server ended."""
    unclean = 0.0 if server.code == 0 else float(abs(server.code))
    yield Row(host, "time to stop after SIGTERM", server.stop_seconds, 10.0, "s")
    yield Row(host, "exit code", unclean, 0.0)


def refused_build(app: Path, environment: Mapping[str, str]) -> str:
    """Build with an export.pkl that does not convert, and return the reason the build gives.

    Raises
    ------
    SetupError
        If the build succeeds all the same, or gives no reason.
    """
    export, hash_file = app / "export.pkl", app / "export.pkl.sha256"
    good, good_hash = export.read_bytes(), hash_file.read_text()
    half = good[: len(good) // 2]
    export.write_bytes(half)
    hash_file.write_text(f"{hashlib.sha256(half).hexdigest()}  export.pkl\n")
    try:
        answer = subprocess.run(
            ["bash", "bin/post_compile"],
            cwd=app,
            env=dict(environment),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        export.write_bytes(good)
        hash_file.write_text(good_hash)
    reasons = [line for line in answer.stdout.splitlines() if "export.pkl" in line]
    if not answer.returncode or len(reasons) < 2:
        raise SetupError(f"half an export.pkl was taken for a whole one:\n{answer.stdout[-1500:]}")
    return reasons[-2].strip()


def play_heroku(work: Path) -> Iterator[Row]:
    """Build and start as Heroku's classic buildpacks do."""
    host = "Heroku"
    app, build = hosts.fresh(work / "app"), hosts.clone(work / "build")
    for name in (build / ".slugignore").read_text().split():
        for ignored in build.glob(name.removeprefix("/")):
            shutil.rmtree(ignored) if ignored.is_dir() else ignored.unlink()
    # The buildpack, too, puts Python where it will run, and a link into the folder of the build.
    python = hosts.venv(app / ".heroku" / "python")
    (build / ".heroku").symlink_to(app / ".heroku")
    remark = hosts.install_requirements(python, build / "requirements.txt")
    yield Row(host, "requirements.txt installed", remark or "as it is")
    # The home folder and these variables tell how this machine reaches its registries.
    building = {"HOME": str(Path.home()), "STACK": "heroku-24", "LANG": "C.UTF-8"}
    building |= {"PATH": f"{python.parent}:{os.environ['PATH']}"} | hosts.ways_out()
    yield Row(host, "half an export.pkl", f"refused: {refused_build(build, building)}")
    hosts.call(["bash", "bin/post_compile"], build, building)
    (build / ".heroku").unlink()
    for part in build.iterdir():  # the dyno has the files elsewhere than the build had
        part.rename(app / part.name)
    hosts.call([python, "-m", "compileall", "-q", app / ".heroku" / "python" / "lib"], app)
    slug = hosts.pack(app, work / "slug.tgz", leave_out=[".git"])
    library = hosts.pack_library(work / "library.tgz")
    yield Row(host, "slug, packed, with Python's own library", slug + library, 150.0, "MB")

    port = starting.free_port()
    serving = {"PORT": str(port), "DYNO": "web.1", "HOME": str(app), "LANG": "C.UTF-8"}
    serving |= {"PATH": f"{python.parent}:/usr/bin:/bin"}
    serving |= {"PYTHONUNBUFFERED": "true", "MALLOC_ARENA_MAX": "2"}
    command = ["bash", "-c", f"exec {hosts.procfile_command(app)}"]
    with starting.start(command, app, serving, port) as server:
        yield Row(host, "bare voila, without PYTHONPATH", f"{smoke(server.url, timeout=120).label}")
    serving |= {"PYTHONPATH": str(app)}  # the buildpack sets it
    with starting.start(command, app, serving, port, megabytes=512) as server:
        limit = "in a control group" if server.limited else "could not be set here"
        yield Row(host, "limit of 512 MB", limit)
        yield from serving_rows(host, server)
        one = memory_with(server.url, server.pid, 1)
        yield Row(host, "memory, 1 visitor", one, 220.0, "MB")
        many = memory_with(server.url, server.pid, VISITORS)
        yield Row(host, f"memory, {VISITORS} visitors, come in turn", many, 512.0, "MB")
        yield Row(host, "in a browser", see(server.url))
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
    yield Row(host, "requirements.txt installed", remark or "as it is")
    path = f"{python.parent}:{os.environ['PATH']}"
    building = {"HOME": str(Path.home()), "PATH": path, "LANG": "C.UTF-8"} | hosts.ways_out()
    hosts.call([app / "binder" / "postBuild"], app, building)
    port = starting.free_port()
    serving = {"HOME": str(work), "PATH": path, "LANG": "C.UTF-8"}
    command = f"jupyter server --no-browser --port={port} --allow-root --IdentityProvider.token="
    with starting.start(shlex.split(command), app, serving, port) as server:
        yield from serving_rows(host, server, "voila/render/icon_classifier.ipynb")
        yield Row(host, "in a browser", see(server.url + "voila/render/icon_classifier.ipynb"))
    yield from stopping_rows(host, server)


def play_container(work: Path) -> Iterator[Row]:
    """Do the Dockerfile's lines, and start what they make as another user, read-only."""
    host = "container"
    image = container.Image.read((ROOT / "Dockerfile").read_text())
    room = container.Room.make(work)
    yield Row(host, "played in", room.words)
    build = hosts.clone(work / "build")
    container.leave_out(build, (build / ".dockerignore").read_text())
    room.build(image, build)
    final = room.second_stage(image, build)
    size = hosts.pack(final, work / "final.tgz")
    yield Row(host, "second stage above its base, packed", size, None, "MB")
    port = starting.free_port()
    settings = image.settings | {"PORT": str(port)}
    with room.start(image, final, settings, port) as server:
        yield from serving_rows(host, server)
        with urllib.request.urlopen(f"{server.url}healthz", timeout=10) as answer:  # noqa: S310
            yield Row(host, "GET /healthz", f"{answer.status}")
        room.check_health(image, final, settings)
        yield Row(host, "HEALTHCHECK's command", "healthy")
    yield from stopping_rows(host, server)
