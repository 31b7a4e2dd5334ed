"""The command line of the stack: `python -m stack up | run | status | env`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stack import guardian
from stack.home import Home, StackError
from stack.launcher import ROOT, Stack
from stack.processes import Output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_EXAMPLES = """\
examples:
  python -m stack up                                     everything in the foreground; Ctrl-C stops it
  python -m stack run -- python -m examples.demo         everything for as long as one command lasts
  python -m stack run --services-only -- pytest          PostgreSQL, Valkey, S3 and clamd only
  eval "$(python -m stack env)"                          the addresses and secrets of the stack that is running

The state is kept in SLIPWAY_HOME (default: .slipway). A service whose DATABASE_URL, REDIS_URL, S3_ENDPOINT_URL or
CLAMD_URL is set is used and not started.
"""
_POLL_SECONDS = 0.1
_COMMAND_GRACE_SECONDS = 10.0


def main() -> int:
    """Do what the command line asks; the exit code."""
    arguments = _parser().parse_args()
    home = Path(os.environ.get("SLIPWAY_HOME") or ROOT / ".slipway")
    try:
        match arguments.action:
            case "up":
                return _up(home, arguments)
            case "run":
                return _run(home, arguments)
            case "status":
                return _status(home)
            case _:
                return _environment(home)
    except StackError as error:
        sys.stderr.write(f"slipway | {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stack",
        description="Run all of Slipway on this machine, without containers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="up | run | status | env")
    up = actions.add_parser("up", help="run everything in the foreground")
    run = actions.add_parser("run", help="run one command inside the stack, then stop")
    for action in (up, run):
        action.add_argument("--services-only", action="store_true", help="without migrations and application processes")
        action.add_argument(
            "--without", action="append", default=[], metavar="NAME", help="leave out this Procfile entry"
        )
    run.add_argument("--verbose", action="store_true", help="show the output of all processes too")
    run.add_argument("command", nargs="+", metavar="-- COMMAND")
    actions.add_parser("status", help="say what is running")
    actions.add_parser("env", help="print the environment of the running stack as shell exports")
    return parser


def _stack(home: Path, arguments: argparse.Namespace, *, follow: bool) -> Stack:
    return Stack(home, services_only=arguments.services_only, without=tuple(arguments.without), follow=follow)


def _up(home: Path, arguments: argparse.Namespace) -> int:
    stack = _stack(home, arguments, follow=True)
    with _until_signalled(stack) as signals, stack:
        stack.console.say("Ctrl-C stops everything")
        while not (ended := stack.ended()):
            time.sleep(_POLL_SECONDS)
        for name, code in ended.items():
            stack.console.warn(f"{name} ended with {code}: stopping everything. Its log is {stack.console.log(name)}")
    return 0 if signals else 1


def _run(home: Path, arguments: argparse.Namespace) -> int:
    stack = _stack(home, arguments, follow=arguments.verbose)
    code = None
    with _until_signalled(stack) as signals, stack:
        output = Output(stdin=0, stdout=1, stderr=2)
        # In our process group, so that the command may read the terminal and gets Ctrl-C from it.
        pid = stack.execute(tuple(arguments.command), output=output, group=os.getpgrp())
        try:
            while (code := stack.guardian.status(pid)) is None:
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            if signals[-1] != signal.SIGINT or not sys.stdin.isatty():
                stack.guardian.signal(pid, signals[-1])
            code = stack.guardian.wait(pid, seconds=_COMMAND_GRACE_SECONDS)
        finally:
            with contextlib.suppress(StackError):
                stack.guardian.kill(pid)
    if code is None:
        return 128 + signals[0] if signals else 1
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _until_signalled(stack: Stack) -> Iterator[list[int]]:
    """Leave the block in order on SIGINT, SIGTERM or SIGHUP, whose numbers are put into the list.

    A second signal has no patience with processes that take long to stop.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if len(received) == 1:
            stack.console.say("stopping; again to stop at once")
            raise KeyboardInterrupt
        with contextlib.suppress(StackError, ProcessLookupError):
            os.kill(stack.guardian.pid, signal.SIGTERM)

    guardian.become_subreaper()  # should the guardian be killed, its orphans come to us
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        guardian.end_descendants()


def _status(home: Path) -> int:
    state = Home(path=home.absolute())
    if not state.in_use():
        sys.stdout.write(f"No stack is running on {state.path}.\n")
        return 1
    running = state.read("running.json")
    sys.stdout.write(f"A stack is running on {state.path} (launcher {running.get('launcher')}).\n")
    for name, pid in running.get("processes", {}).items():
        alive = "running" if Path("/proc", str(pid)).exists() else "ended"
        sys.stdout.write(f"  {name:<10} {pid:>8}  {alive}\n")
    for name in ("SLIPWAY_URL", "FLOWER_URL"):
        sys.stdout.write(f"  {name} {running.get('environment', {}).get(name)}\n")
    return 0


def _environment(home: Path) -> int:
    state = Home(path=home.absolute())
    if not state.in_use():
        sys.stderr.write(f"No stack is running on {state.path}.\n")
        return 1
    for name, value in state.read("running.json").get("environment", {}).items():
        if name != "PATH":
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
