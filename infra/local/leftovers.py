"""Processes of a stack that its supervisor does not keep (any more): found by the mark that they carry."""

from __future__ import annotations

from pathlib import Path

import psutil

from infra.local.program import STACK_MARK

PATIENCE_SECONDS = 10.0

WORKING_FOLDERS = {"postgres": "postgres/data", "redis-server": "redis"}
"""Servers that write their title over their environment -> the folder in the state folder where they work."""


def find_processes(state_dir: Path) -> list[psutil.Process]:
    """Every visible process of the stack with this state folder: those whose environment names it, and those of
    servers that write their title over their environment but work in a folder of it."""
    return [process for process in psutil.process_iter() if _belongs(process, state_dir)]


def _belongs(process: psutil.Process, state_dir: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(STACK_MARK) == str(state_dir):
            return True
        folder = WORKING_FOLDERS.get(process.name())
        return folder is not None and Path(process.cwd()) == (state_dir / folder).resolve()
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False


def end_processes(state_dir: Path) -> list[str]:
    """Ends what is left of the stack, first politely, and says what it was. An empty list means nothing was."""
    left = find_processes(state_dir)
    ended = [f"{_name(process)} ({process.pid})" for process in left]
    for process in left:
        _signal(process, kill=False)
    _, stubborn = psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
    for process in stubborn:
        _signal(process, kill=True)
    psutil.wait_procs(stubborn, timeout=PATIENCE_SECONDS)
    return ended


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "a process"


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
