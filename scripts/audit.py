"""Ask the advisory database about every locked package: ``make audit``."""

import subprocess
import sys

from scripts import hosts
from scripts.environment import ROOT, reachable

SERVICE = "https://api.osv.dev/v1/query"


def main() -> int:
    """Run pip-audit; 1 if a package has a known hole, 2 if the database cannot be reached."""
    if not reachable(SERVICE):
        print(f"Not audited: {SERVICE} cannot be reached from here.", file=sys.stderr)
        return 2
    folder = ROOT / "build" / "audit"
    folder.parent.mkdir(exist_ok=True)
    python = hosts.venv(folder)
    hosts.call([python, "-m", "pip", "install", "--quiet", "pip-audit"], ROOT)
    command = [str(python), "-m", "pip_audit", "--vulnerability-service", "osv", "--no-deps"]
    command += ["--disable-pip", "-r", "requirements.txt"]
    versions = subprocess.run(command, cwd=ROOT, check=False).returncode
    command[-1] = "requirements-dev.txt"
    return int(bool(subprocess.run(command, cwd=ROOT, check=False).returncode or versions))


if __name__ == "__main__":
    sys.exit(main())
