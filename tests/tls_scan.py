"""`python -m tests.tls_scan` (make tls-scan): Debian's testssl.sh looks at the gateway's production configuration."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.local import packages
from tests.production_gateway import DOMAIN, start_production_gateway

OPTIONS = ["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none"]
CHECKS = ["--protocols", "--std", "--fs", "--server-preference", "--headers", "--vulnerable"]
LATEST_SECONDS = 900
FINE = ("OK", "INFO")

NOT_TESTED = {"engine_problem", "secure_renego"}
"""What testssl could not look at with Debian's openssl: GOST suites, and a renegotiation, which it cannot begin."""


def scan(port: int, folder: Path) -> list[dict[str, str]]:
    """Every finding of the scanner, worst and best."""
    packages.install(["testssl.sh"] if shutil.which("testssl") is None else [], report=print)
    found = folder / "found.json"
    command = ["testssl", *OPTIONS, *CHECKS, "--jsonfile", str(found), f"{DOMAIN}:{port}"]
    subprocess.run(command, check=True, timeout=LATEST_SECONDS, stdout=sys.stderr)
    findings: list[dict[str, str]] = json.loads(found.read_text("utf-8"))
    return findings


def main() -> int:
    """The command. Exit status 0 if the scanner has no complaint, else 1 with its complaints."""
    folder = Path(tempfile.mkdtemp(prefix="chat4all-tls-scan-"))
    try:
        with start_production_gateway(folder / "certificates") as gateway:
            findings = scan(gateway.acme.tls_port, folder)
    finally:
        shutil.rmtree(folder)
    complaints = [each for each in findings if each["severity"] not in FINE and each["id"] not in NOT_TESTED]
    for each in complaints:
        sys.stdout.write(f"{each['severity']}: {each['id']}: {each['finding']}\n")
    sys.stdout.write(f"{len(findings)} findings, {len(complaints)} of them complaints.\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
