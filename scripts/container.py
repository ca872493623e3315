"""A container host without a container engine: the Dockerfile's lines in a root of their own.

The root is a small Debian made by debootstrap, with this machine's node copied in; where that
cannot be had, this machine's own files with a stage's folder mounted as /app; and where nothing can
be mounted either, the folder itself with its fresh virtual environment.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts import hosts, starting
from scripts.environment import SetupError, apt_install

# What the official image of Python has and debootstrap's smallest Debian lacks.
PACKAGES = "python3.11-venv,python3-distutils,ca-certificates"
RELEASE = "bookworm"
# A host's PATH is not root's.
CHROOT = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin") or "chroot"


@dataclass(frozen=True)
class Image:
    """What a Dockerfile of two stages says.

    Attributes
    ----------
    runs : list of str
        The shell lines of the first stage.
    copies : list of (list of str, str)
        What the second stage takes from the first: sources, each an absolute path, and a target.
    settings : dict of str to str
        The second stage's environment.
    user : str
        Whom it runs as.
    command, health : list of str
        How it starts, and how its health is checked.
    """

    runs: list[str]
    copies: list[tuple[list[str], str]]
    settings: dict[str, str]
    user: str
    command: list[str]
    health: list[str]

    @classmethod
    def read(cls, dockerfile: str) -> "Image":
        """Read the text of a Dockerfile."""
        first, second = hosts.run_lines(dockerfile)
        words = dict(second)
        copies = [rest.split()[1:] for word, rest in second if word == "COPY"]
        return cls(
            runs=[rest for word, rest in first if word == "RUN"],
            copies=[(sources, target) for *sources, target in copies],
            settings={
                name: value
                for word, rest in second
                if word == "ENV"
                for name, _, value in (part.partition("=") for part in shlex.split(rest))
            },
            user=words["USER"],
            command=json.loads(words["CMD"]),
            health=json.loads(words["HEALTHCHECK"].partition(" CMD ")[2]),
        )


def leave_out(folder: Path, dockerignore: str) -> None:
    """Remove from a folder what a .dockerignore names."""
    for name in dockerignore.split():
        for found in folder.glob(name):
            shutil.rmtree(found) if found.is_dir() else found.unlink()


def _debian(work: Path) -> Path | None:
    """Make a root with debootstrap, which is installed where that can be done."""
    if os.geteuid() != 0 or not (shutil.which("debootstrap") or apt_install("debootstrap")):
        return None
    root = work / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root)]
    try:
        hosts.call(command, work)
    except SetupError:  # the log has the reason
        shutil.rmtree(root, ignore_errors=True)
        return None
    _copy_node(root / "usr" / "local")
    for name in ("resolv.conf", "hosts"):
        with contextlib.suppress(OSError):
            shutil.copyfile(Path("/etc") / name, root / "etc" / name)
    for name in ("app", "dev", "proc", "tmp"):
        (root / name).mkdir(exist_ok=True)
    return root


def _copy_node(local: Path) -> None:
    """Copy what the Dockerfile copies from node's own image."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        shutil.copy2(Path(node).resolve(), local / "bin" / "node")
        packages = Path(npm).resolve().parents[1]  # …/node_modules/npm/bin/npm-cli.js
        shutil.copytree(packages, local / "lib" / "node_modules" / "npm", symlinks=True)


@dataclass
class Room:
    """Where a stage's lines run.

    Attributes
    ----------
    work : Path
        For everything that is made.
    root : Path, optional
        A Debian of its own.
    mounts : bool
        Whether a stage's folder can be mounted as /app.
    """

    work: Path
    root: Path | None
    mounts: bool

    @classmethod
    def make(cls, work: Path) -> "Room":
        """Make the best one that can be had here."""
        try:
            hosts.call(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], work)
        except (SetupError, FileNotFoundError):
            return cls(work, None, False)
        return cls(work, _debian(work), True)

    @property
    def words(self) -> str:
        """What it is, for the table."""
        if self.root:
            return f"a root of Debian {RELEASE} made by debootstrap"
        return "this machine's root" + ("" if self.mounts else ", not read-only: nothing mounts")

    def build(self, image: Image, folder: Path) -> None:
        """Do the first stage's lines in `folder`, as root."""
        settings = {"HOME": str(Path.home()), "LANG": "C.UTF-8"} | hosts.ways_out()
        path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" if self.root else os.environ["PATH"]
        for line in image.runs:
            if self.root or not line.startswith("ln -s"):  # else node is this machine's
                command = self._command(folder, ["sh", "-c", line])
                hosts.call(command, self._cwd(folder), settings | {"PATH": path})

    def second_stage(self, image: Image, build: Path) -> Path:
        """Copy what the second stage takes, and forget the rest; its folder."""
        final = hosts.fresh(self.work / "final")
        for sources, target in image.copies:
            for source in sources:
                origin = build / Path(source).relative_to("/app")
                goal = final / (origin.name if target == "./" else target)
                goal.parent.mkdir(parents=True, exist_ok=True)
                if origin.is_dir():
                    shutil.copytree(origin, goal, symlinks=True)
                else:
                    shutil.copy2(origin, goal)
        if self.root:
            shutil.rmtree(self.root / "usr" / "local")
        if not self.mounts:  # the environment holds the path of its folder
            shutil.rmtree(build)
            final.rename(build)
            return build
        return final

    @contextlib.contextmanager
    def start(
        self, image: Image, folder: Path, settings: Mapping[str, str], port: int
    ) -> Iterator[starting.Started]:
        """Start the image's command as its user, on a file system that cannot be written."""
        command = self._command(folder, image.command, image.user)
        environment = self._environment(folder, settings)
        with starting.start(command, self._cwd(folder), environment, port) as server:
            yield server

    def check_health(self, image: Image, folder: Path, settings: Mapping[str, str]) -> None:
        """Run the health check's command; :exc:`SetupError` if it fails."""
        command = self._command(folder, image.health, image.user)
        hosts.call(command, self._cwd(folder), self._environment(folder, settings))

    def _cwd(self, folder: Path) -> Path:
        return self.work if self.mounts else folder

    def _environment(self, folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
        system = "/usr/local/bin:/usr/bin:/bin"
        made = {name: value.replace("$PATH", system) for name, value in settings.items()}
        if not self.mounts:
            made = {k: re.sub(r"(?<![\w/])/app\b", str(folder), v) for k, v in made.items()}
        return made

    def _command(self, folder: Path, command: list[str], user: str | None = None) -> list[str]:
        """Wrap a command to see `folder` as /app, and as a user to write to /tmp alone."""
        if not self.mounts:
            return command
        root = shlex.quote(str(self.root or "/"))
        app = f"{root.rstrip('/')}/app"
        script = ["set -e", f"mkdir -p {app}"]
        if self.root:
            script.append(f"mount --bind {root} {root}")
        script.append(f"mount --bind {shlex.quote(str(folder))} {app}")
        if self.root:
            script += [f"mount --rbind /dev {root}/dev", f"mount -t proc none {root}/proc"]
            script += [] if user else [_bind(path, self.root) for path in hosts.local_ways_out()]
        line = shlex.join(command)
        if user:
            script += [f"mount -o remount,ro,bind {app}", f"mount -o remount,ro,bind {root}"]
            script += [f"mount -t tmpfs -o mode=1777 none {root.rstrip('/')}/tmp"]  # noqa: S108
            line = f"setpriv --reuid {user} --regid {user} --clear-groups {line}"
        inside = f"cd /app && exec {line}"
        script.append(f"exec {CHROOT} {root} sh -c {shlex.quote(inside)}")
        return ["unshare", "--mount", "bash", "-c", "\n".join(script)]


def _bind(path: Path, root: Path) -> str:
    """Say how to show a file or folder of this machine at the same place in `root`."""
    target = root / path.relative_to("/")
    goal, above = shlex.quote(str(target)), shlex.quote(str(target.parent))
    make = f"mkdir -p {goal}" if path.is_dir() else f"mkdir -p {above} && touch {goal}"
    return f"{make} && mount --bind {shlex.quote(str(path))} {goal}"
