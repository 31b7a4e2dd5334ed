"""The whole stack: what is started in which order, with which environment, and stopped in reverse.

    with Stack(home, services_only=True) as stack:
        subprocess.run(command, env={**os.environ, **stack.environment})
        stack.kill("redis"); stack.start("redis")

A service whose URL is given in the environment is used and not started.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from stack import clamd, postgres, procfile, s3, valkey
from stack.console import Console
from stack.home import Home, StackError
from stack.processes import Guardian, Output, Service

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
_PORTS = {"SLIPWAY_PORT": 8000, "SERVING_PORT": 8100, "FLOWER_PORT": 5555}
_POLL_SECONDS = 0.05
_APP_GRACE_SECONDS = 25.0
_API_PATIENCE_SECONDS = 60.0
_SETTLING_SECONDS = 0.5
_ONE_SHOT_PATIENCE_SECONDS = 300.0
_URLS = {"redis": "REDIS_URL", "postgres": "DATABASE_URL", "s3": "S3_ENDPOINT_URL", "clamd": "CLAMD_URL"}


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process of the stack."""

    service: Service
    pid: int


class Stack:
    """Services and application processes on one state folder. Use it as a context manager."""

    def __init__(
        self,
        home: Path,
        *,
        services_only: bool = False,
        without: tuple[str, ...] = (),
        given: Mapping[str, str] | None = None,
        follow: bool = False,
        quiet: bool = False,
    ) -> None:
        """Prepare; nothing is started.

        `without` names processes of the Procfile to leave out. `given` is the environment that URLs and secrets of
        ours may be given in (default: that of this process). `follow` shows all output, `quiet` only warnings.
        """
        self.home = Home.at(home)
        self.console = Console(self.home.folder("log"), follow=follow, quiet=quiet)
        self._given = dict(os.environ if given is None else given)
        self._services_only, self._without, self._quiet = services_only, without, quiet
        self._running: dict[str, Running] = {}
        self._makers: dict[str, Callable[[], Service]] = {}
        self._guardian: Guardian | None = None
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start everything; return when it is ready. If that fails, nothing is left running."""
        self.home.acquire()
        try:
            self._guardian = Guardian(lock=self.home.lock)
            self._start_all()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self.close()

    # -- one process ------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start one process again and wait until it is ready."""
        if (known := self._running.get(name)) and self.guardian.status(known.pid) is None:
            raise StackError(f"{name} is already running.")
        self._launch(self._makers[name]())
        self._await(name)

    def stop(self, name: str, *, wipe: bool = False) -> None:
        """Stop one process in its own time; `wipe` also removes everything a service has stored."""
        if wipe and name not in _URLS:
            raise StackError(f"{name} stores nothing.")
        self._stop((name,))
        if wipe:
            shutil.rmtree(self.home.path / name)

    def kill(self, name: str, *, alone: bool = False) -> None:
        """SIGKILL one process and all below it, or only itself if `alone`."""
        running = self._running.pop(name)
        self.guardian.kill(running.pid, alone=alone)
        self._publish()

    def pid(self, name: str) -> int:
        """The process id of one process."""
        return self._running[name].pid

    def names(self) -> list[str]:
        """Everything started and not stopped or killed since, in the order of starting."""
        return list(self._running)

    def ended(self) -> dict[str, int]:
        """The processes that have ended on their own, with their exit codes."""
        codes = {name: self.guardian.status(running.pid) for name, running in self._running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    # -- a command in the stack -------------------------------------------------------------------------------------

    def execute(self, command: tuple[str, ...], *, output: Output, group: int | None = None) -> int:
        """Start a command with the stack's environment and return its pid; `guardian` knows how it goes on."""
        folder = Path.cwd() if group is not None else ROOT
        return self.guardian.spawn(
            command, output=output, folder=folder, environment=self.environment, inherit=True, group=group
        )

    @property
    def guardian(self) -> Guardian:
        """The parent of all our processes."""
        if self._guardian is None:
            raise StackError("The stack is not running.")
        return self._guardian

    def close(self) -> None:
        """Stop everything in reverse order. Safe to call twice."""
        if self._guardian is not None:
            with contextlib.suppress(StackError):  # a dead guardian has taken everything with it
                running = [name for name in reversed(self._makers) if name in self._running]
                self._stop([name for name in running if name not in _URLS])  # together: none needs another to end
                for name in running:
                    if name in _URLS:
                        self._stop([name])
            self._guardian.close()
            self._guardian = None
        self._running.clear()
        self.home.path.joinpath("running.json").unlink(missing_ok=True)
        self.home.release()

    def _stop(self, names: Sequence[str]) -> None:
        for name in names:
            running = self._running[name]
            self.guardian.signal(running.pid, running.service.stop_signal)
        for name in names:
            running = self._running.pop(name)
            if not self.guardian.finish(running.pid, grace=running.service.grace):
                self.console.warn(f"{name} did not stop within {running.service.grace:.0f} s and was killed.")
        self._publish()

    # -- starting ---------------------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        self._settle_environment()
        began = time.monotonic()
        self._makers = self._service_makers()
        # The S3 server takes longest: it starts while the others are still being prepared.
        for name in sorted(self._makers, key=lambda name: name != "s3"):
            self._launch(self._makers[name]())
        for name in self._makers:
            self._await(name)
        started = ", ".join(self._makers) or "none, all are given"
        self.console.say(f"services ready in {time.monotonic() - began:.1f} s: {started}")
        if not self._services_only:
            self._start_apps()

    def _settle_environment(self) -> None:
        """Everything that others need to know and that no service gives."""
        generated = {
            "ENVIRONMENT": "development",
            "JWT_SECRET": self.home.secret("jwt-secret"),
            "SIGNING_KEY": self.home.secret("signing-key"),
            "FLOWER_USER": "slipway",
            "FLOWER_PASSWORD": self.home.secret("flower-password"),
            "S3_BUCKET_PREFIX": "slipway",
            "SLIPWAY_HOST": HOST,
            "LOG_FORMAT": "text",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment = {name: self._given.get(name) or value for name, value in generated.items()}
        self.environment["SLIPWAY_HOME"] = str(self.home.path)
        search = self._given.get("PATH", os.defpath)
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{search}"
        for name, usual in _PORTS.items():
            wish = self._given.get(name)
            port = self.home.port(name.removesuffix("_PORT").lower(), int(wish or usual), fixed=bool(wish))
            self.environment[name] = str(port)
        host = self.environment["SLIPWAY_HOST"]
        reachable = HOST if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
        self.environment["SLIPWAY_URL"] = f"http://{reachable}:{self.environment['SLIPWAY_PORT']}"
        self.environment["SERVING_URL"] = f"http://{reachable}:{self.environment['SERVING_PORT']}"
        self.environment["FLOWER_URL"] = f"http://{HOST}:{self.environment['FLOWER_PORT']}"

    def _service_makers(self) -> dict[str, Callable[[], Service]]:
        """How to declare each service that is ours to run, in the order of starting."""
        home, makers = self.home, dict[str, Callable[[], Service]]()
        if self._ours("redis"):
            redis_port = home.port("redis", valkey.USUAL_PORT)
            makers["redis"] = lambda: valkey.service(home, redis_port)
        if self._ours("postgres"):
            postgres_port = home.port("postgres", postgres.USUAL_PORT)
            makers["postgres"] = lambda: postgres.service(home, postgres_port)
        if self._ours("s3"):
            s3_ports = {name: home.port(name, usual) for name, usual in s3.USUAL_PORTS.items()}
            makers["s3"] = lambda: s3.service(home, s3_ports, python=ROOT / ".venv-s3" / "bin" / "python")
        if self._ours("clamd"):
            if binary := clamd.program():
                clamd_port = home.port("clamd", clamd.USUAL_PORT)
                makers["clamd"] = lambda: clamd.service(home, clamd_port, binary=binary)
                if not clamd.has_real_signatures():
                    self.console.say("clamd knows only the EICAR test file: freshclam has fetched no signatures here")
            else:
                self.console.warn(
                    "NO VIRUS SCANNER: clamd is not installed (Debian: clamav-daemon) and CLAMD_URL is not given.\n"
                    "Uploads are judged by our own readers only. This is for development; production refuses to start."
                )
        return makers

    def _ours(self, name: str) -> bool:
        """Whether a service is ours to run; if not, its URL and what belongs to it reach everybody as they were given."""
        if not (url := self._given.get(_URLS[name])):
            return True
        self.environment[_URLS[name]] = url
        if name == "s3":
            belongs = ("S3_", "STORAGE_")
            self.environment |= {key: value for key, value in self._given.items() if key.startswith(belongs)}
        self.console.say(f"{name}: {_URLS[name]} is given, nothing is started for it")
        return False

    def _start_apps(self) -> None:
        began = time.monotonic()
        commands = procfile.read(ROOT / "Procfile")
        if unknown := set(self._without) - set(commands):
            raise StackError(f"The Procfile has no {', '.join(sorted(unknown))}.")
        apps = {name: partial(self._app, name, text) for name, text in commands.items() if name not in self._without}
        self._makers |= apps
        self._finish_once("migrate", self._start_once("migrate", (sys.executable, "-m", "alembic", "upgrade", "head")))
        # The API is ready only when the buckets are there, so both may start at the same time.
        bootstrap = self._start_once("bootstrap", (sys.executable, "-m", "api.bootstrap"), shown=not self._quiet)
        for make in apps.values():
            self._launch(make())
        self._finish_once("bootstrap", bootstrap)
        for name in apps:
            self._await(name)
        self.console.say(f"Slipway ready in {time.monotonic() - began:.1f} s on {self.environment['SLIPWAY_URL']}")

    def _app(self, name: str, command: str) -> Service:
        settled = time.monotonic() + _SETTLING_SECONDS
        url = {"api": "SLIPWAY_URL", "serving": "SERVING_URL"}.get(name)
        return Service(
            name=name,
            command=("/bin/sh", "-c", f"exec {command}"),
            folder=ROOT,
            environment=None,
            ready=(lambda: _is_ready(self.environment[url])) if url else (lambda: time.monotonic() > settled),
            grace=_APP_GRACE_SECONDS,
            patience=_API_PATIENCE_SECONDS,
        )

    def _launch(self, service: Service) -> None:
        self.environment |= service.gives
        with self._output(service.name) as output:
            pid = self.guardian.spawn(
                service.command,
                output=output,
                folder=service.folder,
                environment=self.environment if service.environment is None else service.environment,
                inherit=service.environment is None,
                user=service.user,
                stop_signal=service.stop_signal,
            )
        self._running[service.name] = Running(service=service, pid=pid)
        self._publish()

    def _await(self, name: str) -> None:
        running = self._running[name]
        deadline = time.monotonic() + running.service.patience
        while True:
            answers = _answers(running.service)
            if (code := self.guardian.status(running.pid)) is not None:
                raise StackError(f"{name} ended with {code} while starting.\n{self.console.tail(name)}")
            if answers:
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"{name} is not ready after {running.service.patience:.0f} s.\n{self.console.tail(name)}"
                )
            time.sleep(_POLL_SECONDS)

    def _start_once(self, name: str, command: tuple[str, ...], *, shown: bool = False) -> int:
        """Start a command that does one thing; `shown` lets it speak to the person (it prints the first key)."""
        with self._output(name, shown=shown) as output:
            return self.execute(command, output=output)

    def _finish_once(self, name: str, pid: int) -> None:
        code = self.guardian.wait(pid, seconds=_ONE_SHOT_PATIENCE_SECONDS)
        if code is None:
            self.guardian.kill(pid)
        if code != 0:
            reason = "it took too long" if code is None else code
            raise StackError(f"{name} failed ({reason}).\n{self.console.tail(name)}")

    @contextlib.contextmanager
    def _output(self, name: str, *, shown: bool = False) -> Iterator[Output]:
        log, nothing = self.console.open(name), os.open(os.devnull, os.O_RDONLY)
        try:
            yield Output(stdin=nothing, stdout=sys.__stdout__.fileno() if shown and sys.__stdout__ else log, stderr=log)
        finally:
            os.close(log)
            os.close(nothing)

    def _publish(self) -> None:
        """Let `python -m stack status` and `env` know, in a file that only the owner can read."""
        pids = {name: running.pid for name, running in self._running.items()}
        self.home.write("running.json", {"launcher": os.getpid(), "processes": pids, "environment": self.environment})


def _answers(service: Service) -> bool:
    try:
        return service.ready()
    except OSError:
        return False


def _is_ready(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except http.client.HTTPException:
        return False
    finally:
        connection.close()
