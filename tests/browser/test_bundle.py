"""The committed bundle of the page is what web/ builds."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.servers import ROOT

WEB = ROOT / "web"


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Install the packages that package-lock.json names, unless that was done already."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed; CI has it")
    lock, installed = WEB / "package-lock.json", WEB / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm("ci", "--include=dev")


def npm(*arguments: str) -> None:
    command = ["npm", "--prefix", WEB, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_committed_bundle_equals_a_rebuild() -> None:
    npm("run", "check-built")


def test_types_are_right() -> None:
    npm("run", "check")
