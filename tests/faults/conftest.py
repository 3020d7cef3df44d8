"""What fault tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.faults.timeline_workers import Workers


@pytest.fixture
def workers(stack: Stack, tmp_path: Path) -> Iterator[Workers]:
    """None yet; the stack's own worker is away."""
    stack.stop_program("timeline")
    own = Workers(stack, tmp_path)
    try:
        yield own
    finally:
        own.end()
        stack.start_program("timeline")
