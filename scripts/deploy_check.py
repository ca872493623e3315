"""Play each host as closely as a machine without a container engine can: ``make deploy-check``.

What is done for each is told in :mod:`scripts.plays`. The table of what was measured comes at the
end; the exit code is 1 if a play or a limit failed.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from icon_classifier.errors import IconClassifierError
from scripts import hosts
from scripts.environment import ROOT, SetupError
from scripts.plays import play_binder, play_container, play_heroku
from scripts.rows import Row, table

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
    (ROOT / "build" / "deploy-check.log").unlink(missing_ok=True)
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
