"""Run nginx with a configuration of the documents."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path


def write_config(folder: Path, text: str) -> Path:
    """Write a configuration whose temporary files and logs stay in `folder`."""
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        text = text.replace("http {", f"http {{\n{kind}_temp_path {folder}/{kind};", 1)
    path = folder / "nginx.conf"
    path.write_text(text.replace("http {", "http {\naccess_log off;", 1))
    return path


@contextlib.contextmanager
def nginx(folder: Path, config: Path, port: int) -> Iterator[str]:
    """Run nginx; yield its address when it answers."""
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert binary is not None, "nginx is not installed: make test-scale installs it where root"
    directives = "daemon off; error_log stderr;" + (" user root;" if os.geteuid() == 0 else "")
    command = [binary, "-p", str(folder), "-c", str(config), "-g", directives, "-e", "stderr"]
    log = (folder / "nginx.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://localhost:{port}/"
    try:
        end = time.monotonic() + 30
        while not _answers(f"{url}voila/static/"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((folder / "nginx.log").read_text())
            time.sleep(0.05)  # between two checks of the condition
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
