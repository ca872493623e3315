"""What the Makefile and the hosts run: set-up, serving, locking, releasing a model."""

import sys
from types import TracebackType


def _print_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nStopped. The same command starts again.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _print_error  # Ctrl-C is no error: no traceback for whoever runs make
