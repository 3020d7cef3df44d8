"""promtool, Prometheus' own checker: it comes with Debian's package `prometheus`."""

from __future__ import annotations

import shutil

from infra.local import packages


def find_promtool() -> str:
    """Its path; the package is installed if need be. Raises StackError with the command to run where that is not
    allowed."""
    if shutil.which("promtool") is None:
        packages.install(["prometheus"], report=print)
    found = shutil.which("promtool")
    assert found is not None
    return found
