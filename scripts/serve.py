"""Serve the page on this machine: ``make app`` (PORT=... for another port)."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

from scripts.environment import ROOT, SetupError
from scripts.prepare import prepare

NOTEBOOK = "icon_classifier.ipynb"


def port_from(environment: Mapping[str, str]) -> int:
    """Read the port from the variable PORT; 8866 if it is not set."""
    text = environment.get("PORT") or "8866"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SetupError(f"PORT must be a number from 1 to 65535, got {text!r}.")
    return int(text)


def check_port_is_free(port: int) -> None:
    """Raise :exc:`SetupError` if `port` of this machine is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise SetupError(f"Port {port} needs root; try: make app PORT=8866") from None
        except OSError:
            other = port + 1 if port < 65535 else 8866
            raise SetupError(
                f"Port {port} is in use, perhaps by an earlier `make app`. "
                f"Stop that, or use another port: make app PORT={other}"
            ) from None


def command(python: str, port: int) -> list[str]:
    """Return the command that serves the page on `port` of this machine."""
    options = [f"--port={port}", "--no-browser"]
    options.append("--Voila.log_level=ERROR")  # other lines would hide the address
    return [python, "-m", "voila", NOTEBOOK, *options]


def main() -> int:
    """Prepare and serve; return 1 with the reason on standard error if that fails."""
    try:
        port = port_from(os.environ)
        check_port_is_free(port)  # before minutes of installation, not after
        python = prepare(only_serving=True)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"In a few seconds: http://localhost:{port} (Ctrl-C stops it).", flush=True)
    os.chdir(ROOT)
    os.execv(python, command(str(python), port))  # noqa: S606 - our own


if __name__ == "__main__":
    sys.exit(main())
