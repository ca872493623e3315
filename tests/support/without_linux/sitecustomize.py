"""Takes away what only Linux has, as on macOS, from a Python that has this folder on its path."""

import os
import select
import signal
import sys
from typing import Any

NAMES = {
    os: "copy_file_range eventfd eventfd_read eventfd_write getrandom memfd_create pidfd_open "
    "pipe2 sched_getaffinity sched_setaffinity splice",
    select: "epoll",
    signal: "pidfd_send_signal",
}

for module, names in NAMES.items():
    for name in names.split():
        delattr(module, name)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


sys.addaudithook(refuse)
