"""One start: programs and steps run as soon as what they need is there, side by side, until all are healthy."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from infra.local.errors import StackError
from infra.local.program import Program, Site, Step
from infra.local.programs import inherited_environment
from infra.local.supervisor import Supervisor

POLL_SECONDS = 0.1
MOST_EXITS = 3
TAIL_LINES = 30


class Cancelled(Exception):
    """This start was given up, because another part failed or a person stopped it."""


class Start:
    """Brings programs up and runs steps. `started` names the programs that were not running before."""

    def __init__(self, site: Site, supervisor: Supervisor, report: Callable[[str], None]) -> None:
        self._site = site
        self._supervisor = supervisor
        self._report = report
        self._cancelled = threading.Event()
        self.started: list[str] = []

    def run(self, parts: Collection[Program | Step]) -> None:
        """Runs these parts in the order of their needs. Raises StackError for the first that fails."""
        waiting = {part.name: part for part in parts}
        known = set(waiting)
        done: set[str] = set()
        with ThreadPoolExecutor(max_workers=max(1, len(waiting))) as pool:
            running: dict[Future[None], str] = {}
            try:
                while waiting or running:
                    for name, part in list(waiting.items()):
                        if done.issuperset(known.intersection(part.needs)):
                            running[pool.submit(self._run_part, part)] = name
                            del waiting[name]
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        done.add(running.pop(future))
            except BaseException:
                self._cancelled.set()
                raise

    def _run_part(self, part: Program | Step) -> None:
        began = time.monotonic()
        if isinstance(part, Program):
            what = "healthy" if self.bring_up(part) else "was running"
        else:
            self._run_step(part)
            what = "done"
        self._report(f"  {part.name:<16} {what:<12} {time.monotonic() - began:5.1f} s")

    def bring_up(self, program: Program) -> bool:
        """Has a program started unless it is, and waits until it is healthy. Says whether it had to be started.
        Raises StackError with its last log lines."""
        was_up = self._supervisor.info(program.name).is_up
        if not was_up:
            if program.prepare is not None:
                program.prepare(self._site)
            self._check_cancelled()
            self.started.append(program.name)
            self._supervisor.start(program.name)
        self._await_health(program)
        return not was_up

    def _await_health(self, program: Program) -> None:
        deadline = time.monotonic() + program.start_seconds
        seen: set[int] = set()
        failed: set[int] = set()
        while True:
            self._check_cancelled()
            info = self._supervisor.info(program.name)
            if info.is_up:
                seen.add(info.process_id)
                if program.is_ready(self._site):
                    return
            elif info.state == "BACKOFF":
                failed.add(info.started_at)
            elif info.state != "EXITED":
                raise self._failure(program.name, f"is {info.state.lower()}: {info.description}")
            if len(seen) > MOST_EXITS or len(failed) >= MOST_EXITS:
                raise self._failure(program.name, f"keeps ending ({info.description})")
            if time.monotonic() > deadline:
                raise self._failure(program.name, f"did not become healthy within {program.start_seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def _run_step(self, step: Step) -> None:
        log = log_file(self._site.config.logs_dir, step.name)
        environ = {**inherited_environment(self._site.config), **step.environment(self._site)}
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                step.command(self._site),
                cwd=self._site.config.root,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            deadline = time.monotonic() + step.timeout_seconds
            try:
                while (status := process.poll()) is None:
                    self._check_cancelled()
                    if time.monotonic() > deadline:
                        raise self._failure(step.name, f"did not end within {step.timeout_seconds:.0f} s")
                    time.sleep(POLL_SECONDS / 2)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if status != 0:
            raise self._failure(step.name, f"failed (exit status {status})")
        _stamp_file(self._site, step).write_text(digest_of_inputs(self._site.config.root, step), "ascii")

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def _failure(self, name: str, what: str) -> StackError:
        log = log_file(self._site.config.logs_dir, name)
        tail = "".join(f"    {line}\n" for line in tail_of(log, TAIL_LINES))
        return StackError(f"{name} {what}. The end of {log}:\n{tail}".rstrip())


def has_changed(site: Site, step: Step) -> bool:
    """Whether what the step reads differs from when it last succeeded here."""
    try:
        return _stamp_file(site, step).read_text("ascii") != digest_of_inputs(site.config.root, step)
    except FileNotFoundError:
        return True


def digest_of_inputs(root: Path, step: Step) -> str:
    """A hash over names and contents of the step's inputs."""
    digest = hashlib.sha256()
    for name in step.inputs:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _stamp_file(site: Site, step: Step) -> Path:
    return site.config.state_dir / "steps" / step.name


def log_file(logs_dir: Path, name: str) -> Path:
    """Where a program or step logs."""
    return logs_dir / f"{name}.log"


def tail_of(path: Path, lines: int) -> list[str]:
    """The last lines of a text file, without their line ends; none if there is no such file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
    except FileNotFoundError:
        return []
