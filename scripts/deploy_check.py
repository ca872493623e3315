"""Build and start the page as Heroku does, within Heroku's limits: ``make deploy-check``.

A clone of what is committed, a fresh Python environment with requirements.txt,
``bin/post_compile``, and the Procfile's command in another folder than the build's, with Heroku's
variables only, in a control group of 512 MB. The exit code is 1 if a step or a limit fails.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from icon_classifier.cli.smoke import example_photo, smoke, visiting
from icon_classifier.errors import IconClassifierError
from scripts.environment import CPU_INDEX, ROOT, SetupError, reachable
from scripts.server_process import free_port, start, tree_memory

LOG = ROOT / "build" / "deploy-check.log"
MAX_VISITOR_SECONDS = 120.0


def within(name: str, value: float, limit: float, unit: str = "") -> bool:
    """Print a figure and return whether it is within its limit; NaN is not."""
    verdict = "good" if value <= limit else "TOO MUCH"
    print(f"  {name}: {value:.1f} {unit} (limit {limit:g}), {verdict}", flush=True)
    return value <= limit


def call(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a step of the build; raise :exc:`SetupError` with the end of its output if it fails."""
    with LOG.open("a") as file:
        file.write(f"\n$ {' '.join(map(str, command))}\n")
        file.flush()
        begin = file.tell()
        answer = subprocess.run(
            command, cwd=cwd, env=env, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if answer.returncode:
        end = "\n".join(LOG.read_bytes()[begin:].decode(errors="replace").splitlines()[-15:])
        raise SetupError(f"{command[0]} failed with {answer.returncode}:\n{end}")


def procfile_command(folder: Path) -> str:
    """Read the command of the web process."""
    match = re.search(r"^web: (.+)$", (folder / "Procfile").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError("Procfile has no line for web")
    return match[1]


def slug_size(app: Path) -> float:
    """Pack the app with Python's own library, which an environment lacks; MB (1e6 bytes)."""
    library = Path(os.__file__).parent
    excluded = {"__pycache__", "test", "idlelib", "site-packages", "dist-packages"}
    excluded |= {path.name for path in library.glob("config-*")}

    def keep(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(item.name).name in excluded else item

    slug = app.with_name("slug.tgz")
    with tarfile.open(slug, "w:gz", compresslevel=6) as archive:
        archive.add(app, "app")
        archive.add(library, "library", filter=keep)
    return slug.stat().st_size / 1e6


def build(work: Path) -> Path:
    """Build the app as Heroku's Python buildpack does, and return its folder."""
    app, source = work / "app", work / "build"
    call(["git", "clone", "--quiet", "--no-local", ROOT, source], ROOT)
    for name in [".git", *(source / ".slugignore").read_text().split()]:
        ignored = source / name.removeprefix("/")
        shutil.rmtree(ignored) if ignored.is_dir() else ignored.unlink(missing_ok=True)
    # The buildpack, too, puts Python where it will run, and a link into the folder of the build.
    python = app / ".heroku" / "python" / "bin" / "python"
    venv.create(python.parents[1], with_pip=True, symlinks=True)
    (source / ".heroku").symlink_to(app / ".heroku")
    requirements = (source / "requirements.txt").read_text()
    if not reachable(f"{CPU_INDEX}/torch/"):
        print("  PyTorch's index cannot be reached; installing without it", flush=True)
        requirements = re.sub(r"^--extra-index-url .*\n", "", requirements, flags=re.MULTILINE)
    (work / "requirements.txt").write_text(requirements)
    # Bytecode of what stays is made after trimming: the same result, minutes sooner.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    call([*pip, "-r", str(work / "requirements.txt")], work)
    path = f"{python.parent}:{os.environ['PATH']}"
    call(["bash", "bin/post_compile"], source, os.environ | {"PATH": path})
    (source / ".heroku").unlink()
    for part in source.iterdir():
        part.rename(app / part.name)
    call([python, "-m", "compileall", "-q", app / ".heroku" / "python" / "lib"], app)
    return app


async def memory_with_visitors(url: str, pid: int, count: int) -> float:
    """Measure a server in MB (2**20 bytes) while visitors who have an answer keep the page open."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(visiting(url, example_photo(), MAX_VISITOR_SECONDS))
        return tree_memory(pid)


def check(work: Path) -> bool:
    """Build, start, visit and stop the page; return whether every limit was kept."""
    app = build(work)
    good = within("slug, packed, with Python's own library", slug_size(app), 130, "MB")
    port = free_port()
    environment = {
        "PORT": str(port),
        "DYNO": "web.1",
        "HOME": str(app),
        "LANG": "C.UTF-8",
        "PATH": f"{app}/.heroku/python/bin:/usr/bin:/bin",
        "PYTHONPATH": str(app),
        "PYTHONUNBUFFERED": "true",
        "MALLOC_ARENA_MAX": "2",
    }
    command = ["bash", "-c", f"exec {procfile_command(app)}"]
    with start(command, app, environment, port, megabytes=512) as server:
        if not server.limited:
            print("  no control group can be made here: memory is not limited", flush=True)
        good &= within("time until the port is open", server.bind_seconds, 10, "s")
        print(f"  smoke test: {smoke(server.url, timeout=MAX_VISITOR_SECONDS)}", flush=True)
        for count, limit in ((1, 220), (20, 512)):
            memory = asyncio.run(memory_with_visitors(server.url, server.pid, count))
            good &= within(f"memory, visitors: {count}", memory, limit, "MB")
    print(f"  exit code after SIGTERM: {server.exit_code}", flush=True)
    good &= within("time to stop", server.stop_seconds, 10, "s")
    return good and server.exit_code == 0


def main() -> int:
    """Print what was measured; return 1 if a step or a limit fails."""
    work = ROOT / "build" / "deploy"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    LOG.unlink(missing_ok=True)
    print(f"Building as Heroku does; the output of the steps is in {LOG}.", flush=True)
    try:
        return int(not check(work))
    except (SetupError, IconClassifierError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
