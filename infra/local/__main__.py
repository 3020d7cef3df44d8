"""`python -m infra.local`: starts, shows and stops the embedded stack."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from infra.local.config import StackConfig
from infra.local.errors import StackError
from infra.local.follow import follow
from infra.local.hints import first_message
from infra.local.programs import PROGRAMS, STEPS, TOOLS
from infra.local.stack import Stack
from infra.local.starting import log_file

ROOT = Path(__file__).resolve().parents[2]

EXAMPLES = """\
examples:
  python -m infra.local up                                the whole stack, at the default ports
  CHAT4ALL_PORT_OFFSET=1000 python -m infra.local up      every port moved by 1000 (remembered until changed)
  CHAT4ALL_POSTGRES_PORT=5544 python -m infra.local up    one port moved
  python -m infra.local up --only postgres,redis          these programs, and what they need
  python -m infra.local status                            exit status 1 unless everything is healthy
  python -m infra.local logs timeline -f                  one program's log, as it grows
  python -m infra.local exec timeline faust -A stream_apps.timeline worker
                                                          one more worker (CHAT4ALL_METRICS_PORT=… before it)
  python -m infra.local exec doctor python -m connectors doctor
                                                          an operator's tool: doctor, outboxes, recover
  python -m infra.local down                              stops everything; data stays
  python -m infra.local reset --yes                       stops everything and deletes the data

environment:
  CHAT4ALL_STATE_DIR       where data, passwords and logs are (.local/state)
  CHAT4ALL_ARTIFACTS_DIR   where downloaded Java archives are (.local/artifacts)
  CHAT4ALL_PORT_OFFSET     added to every default port
  CHAT4ALL_<NAME>_PORT     INGEST_API, DELIVERY, CONNECT, KAFKA, KAFKA_CONTROLLER, POSTGRES, REDIS, TIMELINE_METRICS,
                           SUPERVISE_METRICS
Other variables CHAT4ALL_* that are set when the stack is started reach its programs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit status 0; 1 if it failed or something is not healthy; 130 if a person stopped it."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        config = StackConfig.from_environment(ROOT, os.environ)
        stack = Stack(config if options.command == "up" else config.as_last_started())
        return _run(stack, options)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _run(stack: Stack, options: argparse.Namespace) -> int:
    if options.command == "up":
        return _up(stack, options.only)
    if options.command == "down":
        return _down(stack)
    if options.command == "reset":
        return _reset(stack, is_sure=options.yes)
    if options.command == "status":
        return _status(stack)
    if options.command == "exec":
        return _exec(stack, options.program, options.arguments)
    return _logs(stack, options.program, lines=options.n, keep_following=options.follow)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything that does not run, and wait until it is healthy")
    up.add_argument(
        "--only",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        metavar="PROGRAM,…",
        help=f"these programs and what they need, of: {', '.join(program.name for program in PROGRAMS)}",
    )
    commands.add_parser("down", help="stop everything; data stays")
    reset = commands.add_parser("reset", help="stop everything and delete data, passwords and logs")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("status", help="a table of the programs; exit status 1 unless all are healthy")
    logs = commands.add_parser("logs", help="what programs and steps logged")
    logs.add_argument("program", nargs="?", help="a program or step; without it, all of them")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    logs.add_argument("-n", type=int, default=30, metavar="LINES", help="lines of each log (default: 30)")
    run = commands.add_parser("exec", help="run a command with the settings and passwords of a program")
    run.add_argument("program", choices=[*(program.name for program in PROGRAMS), *TOOLS], metavar="program")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="command", help="the command and its arguments")
    return parser


def _interrupt(_signal_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


def _up(stack: Stack, only: list[str] | None) -> int:
    began = time.monotonic()
    if not stack.up(only=only, report=_say):
        _say("Everything is running and healthy.")
        return 0
    _say(f"Up in {time.monotonic() - began:.1f} s.")
    if only is None:
        _say(first_message(stack.ports))
    return 0


def _down(stack: Stack) -> int:
    _say("Stopped; no process is left." if stack.down(report=_say) else "Nothing was running.")
    return 0


def _reset(stack: Stack, *, is_sure: bool) -> int:
    if not is_sure:
        answer = input(f"Delete all data in {stack.config.state_dir}? [y/N] ") if sys.stdin.isatty() else ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was deleted. (`reset --yes` does not ask.)", file=sys.stderr)
            return 1
    stack.wipe(report=_say)
    _say(f"Deleted {stack.config.state_dir}. What was downloaded stays in {stack.config.artifacts_dir}.")
    return 0


def _status(stack: Stack) -> int:
    rows = stack.statuses()
    width = max(len(row.name) for row in rows)
    _say(f"{'PROGRAM':<{width}} {'STATE':<9} {'PID':>8} {'UPTIME':>9} {'PORT':>6}  HEALTHY")
    for row in rows:
        uptime = "-" if row.uptime_seconds is None else _duration(row.uptime_seconds)
        healthy = "yes" if row.is_healthy else "no"
        _say(f"{row.name:<{width}} {row.state:<9} {row.process_id or '-':>8} {uptime:>9} {row.port:>6}  {healthy}")
    return 0 if all(row.is_healthy for row in rows) else 1


def _duration(seconds: int) -> str:
    hours, rest = divmod(max(0, seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


def _exec(stack: Stack, program: str, command: list[str]) -> int:
    """Becomes the command. What is in this process's own environment goes before the program's."""
    if not command:
        raise StackError("Say what to run: python -m infra.local exec timeline faust -A stream_apps.timeline worker")
    environment = {**stack.environment_of(program), **os.environ}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - the command is the user's own
    except OSError as error:
        raise StackError(f"{command[0]} cannot be run: {error.strerror}.") from error


def _logs(stack: Stack, name: str | None, *, lines: int, keep_following: bool) -> int:
    known = [part.name for part in (*PROGRAMS, *STEPS)]
    if name is not None and name not in known:
        raise StackError(f"There is no log of {name}; there are {', '.join(known)}.")
    names = [name] if name else known
    for each in names:
        label = f"{each}: " if name is None else ""
        for line in stack.log_tail(each, lines):
            _say(label + line)
    if keep_following:
        follow({each: log_file(stack.config.logs_dir, each) for each in names}, _say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
