"""The embedded stack as an object: up, down, wipe, and one program at a time for tests of failure."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import indent

import psutil

from infra.local import downloads, java, packages, plan, postgres
from infra.local.config import STATE_VARIABLE, StackConfig, read_memory, write_memory
from infra.local.errors import StackError
from infra.local.leftovers import end_processes
from infra.local.ports import Ports, require_free
from infra.local.program import Program, Site, Step
from infra.local.programs import PROGRAMS, STEPS, TOOLS, inherited_environment
from infra.local.secrets import Secrets, ensure_secrets, write_private
from infra.local.starting import Start, has_changed, log_file, tail_of
from infra.local.supervisor import Command, ProcessInfo, Supervisor, render_config

Report = Callable[[str], None]

JAVA_PROGRAMS = {"kafka", "connect"}
SHUTDOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Status:
    """One program's row in `status`. `uptime_seconds` and `process_id` are None while it does not run."""

    name: str
    state: str
    port: int
    is_healthy: bool
    process_id: int | None = None
    uptime_seconds: int | None = None


def _silent(_: str) -> None:
    return


class Stack:
    """One embedded stack. Everything it knows is in its state folder, so any number of these may speak of it."""

    def __init__(
        self,
        config: StackConfig,
        *,
        programs: Collection[Program] = PROGRAMS,
        steps: Collection[Step] = STEPS,
    ) -> None:
        self.config = config
        self._programs = {program.name: program for program in programs}
        self._steps = {step.name: step for step in steps}

    @property
    def ports(self) -> Ports:
        """The ports that its programs listen on."""
        return self.config.ports

    @cached_property
    def secrets(self) -> Secrets:
        """Its passwords; made if there are none yet."""
        return ensure_secrets(self.config.secrets_dir)

    # --- The whole stack ---

    def up(self, *, only: Collection[str] | None = None, report: Report = _silent) -> bool:
        """Starts what does not run, in order, and waits until all of it is healthy; says whether there was anything
        to do. `only`: these programs and what they need. Raises StackError after stopping what it had started."""
        chosen = plan.choose(self._program_needs, self._step_needs, only)
        programs = [program for name, program in self._programs.items() if name in chosen]
        steps = [step for name, step in self._steps.items() if name in chosen]
        with self._lock():
            supervisor, is_new = self._supervisor_of_these_ports(report)
            asleep = [p for p in programs if is_new or not supervisor.info(p.name).is_up]
            vital = [program for program in asleep if not program.only_watches]
            require_free(self.ports, [port for p in vital for port in (p.port, *p.more_ports)])
            self._install(chosen, report)
            site = self._site(chosen)
            if not asleep and all(program.is_ready(site) for program in programs):
                steps = [step for step in steps if has_changed(site, step)]
                if not steps:
                    return False
            if is_new:
                supervisor = self._launch(site)
            start = Start(site, supervisor, report)
            try:
                start.run([*(p for p in programs if not p.only_watches), *steps])
                self._start_watchers(site, supervisor, [p for p in programs if p.only_watches], report)
            except BaseException:
                report("Stopping what this start had started.")
                self._stop(supervisor, only=None if is_new else start.started, report=_silent)
                raise
        return True

    def down(self, *, report: Report = _silent) -> bool:
        """Stops everything and waits until no process is left; says whether anything ran."""
        if not self.config.state_dir.is_dir():
            return False
        with self._lock():
            return self._stop(self._supervisor(), only=None, report=report)

    def wipe(self, *, report: Report = _silent) -> None:
        """Stops everything and removes the state folder: all data and passwords. Artifacts stay."""
        memory = read_memory(self.config.state_dir)
        if memory is None:
            return
        self.down(report=report)
        if memory.socket.parent != self.config.state_dir:
            shutil.rmtree(memory.socket.parent, ignore_errors=True)
        shutil.rmtree(self.config.state_dir)
        self.__dict__.pop("secrets", None)

    def statuses(self) -> list[Status]:
        """One row per program."""
        supervisor = self._supervisor()
        if supervisor.process_id() is None:
            return [
                Status(name, "STOPPED", getattr(self.ports, program.port), is_healthy=False)
                for name, program in self._programs.items()
            ]
        return [self._status(program, supervisor.info(program.name)) for program in self._programs.values()]

    # --- One program ---

    def process_id(self, program: str) -> int:
        """The id of the program's (first) process. Raises StackError if it does not run."""
        info = self._info(program)
        if not info.is_up:
            raise StackError(f"{program} does not run: it is {info.state.lower()}.")
        return info.process_id

    def stop_program(self, program: str) -> None:
        """Stops a program and waits until it has ended. It stays stopped until it is started."""
        self._running_supervisor().stop(self._program(program).name)

    def start_program(self, program: str) -> None:
        """Starts a program unless it runs, and waits until it is healthy. Raises StackError."""
        self._start(self._running_supervisor()).bring_up(self._program(program))

    def is_healthy(self, program: str) -> bool:
        """Whether the program runs and answers."""
        known = self._program(program)
        supervisor = self._supervisor()
        return (
            supervisor.process_id() is not None and supervisor.info(program).is_up and known.is_ready(self._probe_site)
        )

    def environment_of(self, program: str) -> dict[str, str]:
        """The variables that this program (or tool of an operator) is given, passwords among them."""
        environment = TOOLS.get(program) or self._program(program).environment
        return environment(self._probe_site)

    def log_tail(self, program: str, lines: int = 30) -> list[str]:
        """The last lines that a program (or step) logged."""
        return tail_of(log_file(self.config.logs_dir, program), lines)

    # --- Parts of the above ---

    @property
    def _program_needs(self) -> dict[str, tuple[str, ...]]:
        return {name: program.needs for name, program in self._programs.items()}

    @property
    def _step_needs(self) -> dict[str, tuple[str, ...]]:
        return {name: step.needs for name, step in self._steps.items()}

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            raise StackError(f"There is no program {name}; there are {', '.join(self._programs)}.")
        return self._programs[name]

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or stop at a time per state folder."""
        folder = self.config.state_dir
        _require_ours(folder)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise StackError(f"Another start or stop is at work on {folder}; wait for it.") from error
        finally:
            os.close(descriptor)

    def _supervisor(self) -> Supervisor:
        memory = read_memory(self.config.state_dir)
        return Supervisor(memory.socket if memory else self.config.state_dir / "supervisor.sock")

    def _running_supervisor(self) -> Supervisor:
        supervisor = self._supervisor()
        if supervisor.process_id() is None:
            raise StackError("The stack does not run: start it with `up`.")
        return supervisor

    def _supervisor_of_these_ports(self, report: Report) -> tuple[Supervisor, bool]:
        """The supervisor, and whether it has yet to be launched. Raises StackError if it runs at other ports."""
        supervisor = self._supervisor()
        if supervisor.process_id() is None:
            left = end_processes(self.config.state_dir)
            if left:
                report(f"Ended what was left of an earlier run: {', '.join(left)}.")
            return supervisor, True
        memory = read_memory(self.config.state_dir)
        if memory is not None and memory.ports != self.ports:
            raise StackError(
                "The stack already runs, at other ports than the environment asks for now."
                " Stop it with `down` first, or leave the port variables away."
            )
        return supervisor, False

    def _info(self, program: str) -> ProcessInfo:
        return self._running_supervisor().info(self._program(program).name)

    def _install(self, chosen: Collection[str], report: Report) -> None:
        """Debian packages and Java archives that the chosen programs need and that are missing."""
        needs_java = bool(JAVA_PROGRAMS & set(chosen))
        needs_download = needs_java and bool(downloads.missing_artifacts(self.config.root, self.config.artifacts_dir))
        missing = [packages.java_package()] if needs_java and java.find_java(os.environ) is None else []
        missing += ["maven"] if needs_download and shutil.which("mvn") is None else []
        missing += ["redis-server"] if "redis" in chosen and shutil.which("redis-server") is None else []
        packages.install(missing, report=report)
        if needs_java and java.find_java(os.environ) is None:
            raise StackError(
                f"`java` is older than {java.OLDEST_JAVA}: set JAVA_HOME to a newer one, or select it with"
                " `update-alternatives --config java`."
            )
        if needs_download:
            report("Downloading what the pom.xml files name, once.")
            downloads.download(self.config.root, self.config.artifacts_dir, report=report)

    def _start_watchers(
        self, site: Site, supervisor: Supervisor, programs: Collection[Program], report: Report
    ) -> None:
        """Has what only watches started, side by side; says what cannot be, and why."""

        def leave_out(names: str, error: StackError) -> None:
            report(f"  {names} is left out, and nothing else needs it:\n{indent(str(error), '    ')}")

        missing = [p for p in programs if shutil.which(p.command(site)[0]) is None]
        try:
            packages.install([program.package for program in missing if program.package], report=report)
        except StackError as error:
            leave_out(", ".join(program.name for program in missing), error)
            programs = [program for program in programs if program not in missing]

        def start(program: Program) -> None:
            try:
                if not supervisor.info(program.name).is_up:
                    require_free(self.ports, [program.port])
                Start(site, supervisor, report).run([program])
            except StackError as error:
                leave_out(program.name, error)

        with ThreadPoolExecutor() as pool:
            list(pool.map(start, programs))

    def _site(self, chosen: Collection[str]) -> Site:
        account = postgres.choose_account(self.config.state_dir) if "postgres" in chosen else postgres.Account()
        found = java.find_java(os.environ) if JAVA_PROGRAMS & set(chosen) else None
        return Site(config=self.config, secrets=self.secrets, account=account, java=found or "java")

    @property
    def _probe_site(self) -> Site:
        """Enough for probes and environments; no command is made from it."""
        return Site(config=self.config, secrets=self.secrets, account=postgres.Account(), java="java")

    def _start(self, supervisor: Supervisor) -> Start:
        return Start(self._site(self._programs), supervisor, _silent)

    def _launch(self, site: Site) -> Supervisor:
        """Writes what supervisord reads, and starts it."""
        state_dir = self.config.state_dir
        memory = write_memory(state_dir, self.ports)
        self.config.logs_dir.mkdir(exist_ok=True)
        (state_dir / "steps").mkdir(exist_ok=True)
        commands = [
            Command(
                name=program.name,
                argv=program.command(site),
                environment=program.environment(site),
                stop_signal=program.stop_signal,
                stop_seconds=program.stop_seconds,
                stops_as_group=program.stops_as_group,
                priority=priority,
            )
            for priority, program in enumerate(self._programs.values(), start=1)
        ]
        config = render_config(
            commands,
            root=self.config.root,
            state_dir=state_dir,
            socket_path=memory.socket,
            user="root" if os.geteuid() == 0 else None,
        )
        write_private(self.config.supervisor_config, config)
        supervisor = Supervisor(memory.socket)
        supervisor.launch(self.config.supervisor_config, inherited_environment(self.config))
        return supervisor

    def _status(self, program: Program, info: ProcessInfo) -> Status:
        port = getattr(self.ports, program.port)
        if not info.is_up:
            return Status(program.name, info.state, port, is_healthy=False)
        return Status(
            program.name,
            info.state,
            port,
            is_healthy=program.is_ready(self._probe_site),
            process_id=info.process_id,
            uptime_seconds=info.now - info.started_at,
        )

    def _stop(self, supervisor: Supervisor, *, only: Collection[str] | None, report: Report) -> bool:
        """Stops programs, dependants first. Without `only` also the supervisor, and whatever else is left."""
        supervisor_id = supervisor.process_id()
        if supervisor_id is not None:
            for wave in plan.stop_waves(self._program_needs, self._step_needs):
                self._stop_wave(supervisor, [n for n in wave if only is None or n in only], report)
        if only is not None:
            return True
        if supervisor_id is not None:
            _end_supervisor(supervisor, supervisor_id)
        left = end_processes(self.config.state_dir)
        if left:
            report(f"  ended what was left: {', '.join(left)}")
        return supervisor_id is not None or bool(left)

    def _stop_wave(self, supervisor: Supervisor, names: list[str], report: Report) -> None:
        began = time.monotonic()
        stopping = [name for name in names if supervisor.info(name).state not in ("STOPPED", "EXITED", "FATAL")]
        for name in stopping:
            supervisor.stop(name, wait=False)
        while stopping:
            for name in stopping.copy():
                if supervisor.info(name).state in ("STOPPED", "EXITED", "FATAL"):
                    report(f"  {name:<16} {'stopped':<12} {time.monotonic() - began:5.1f} s")
                    stopping.remove(name)
            time.sleep(0.05)


def _end_supervisor(supervisor: Supervisor, process_id: int) -> None:
    try:
        process = psutil.Process(process_id)
    except psutil.NoSuchProcess:
        return
    supervisor.shut_down()
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(SHUTDOWN_SECONDS)


def _require_ours(folder: Path) -> None:
    """Raises StackError if the folder is another user's, or holds what no stack has put there."""
    if not folder.exists():
        return
    if folder.stat().st_uid != os.geteuid():
        raise StackError(f"{folder} belongs to another user: be that user, or set {STATE_VARIABLE}.")
    if any(folder.iterdir()) and not {"stack.json", "secrets"} & {path.name for path in folder.iterdir()}:
        raise StackError(f"{folder} holds something else than a stack's state; set {STATE_VARIABLE} to another.")
