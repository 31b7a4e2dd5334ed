"""`slipway doctor`: look at everything between this computer and the server, and say what to do."""

from __future__ import annotations

import platform
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.table import Table

from slipway import __version__, config
from slipway.cli.screen import Json, Quiet, Screen, guarded, text
from slipway.client import Client
from slipway.errors import NotAllowed, SlipwayError, Unreachable

SKEW_WARN, SKEW_FAIL = 5.0, 60.0
SLOW_SECONDS = 1.0
MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at: `state` is `ok`, `warn` or `fail`; `do` says what helps; `exit_code` what a failure means."""

    name: str
    state: str
    said: str
    do: str = ""
    exit_code: int = 0


def doctor(
    url: Annotated[str | None, typer.Option(help="Look at this server instead.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check configuration, server, its parts, your credential, clocks and versions."""
    screen = Screen(as_json=as_json, quiet=quiet)
    with guarded(screen):
        found = list(checks(url))
        screen.result({"checks": [asdict(check) for check in found]}, _table(screen, found), bare=_worst(found))
    failed = next((check.exit_code for check in found if check.state == "fail"), 0)
    if failed:
        raise typer.Exit(failed)


def checks(url: str | None) -> Iterator[Check]:
    """Yield every check; what cannot be looked at because something before it failed is left out."""
    yield Check(name="client", state="ok", said=f"slipway-client {__version__}, Python {platform.python_version()}")
    try:
        client = Client(url, timeout=10.0)
    except SlipwayError as error:
        yield _failed("configuration", error)
        return
    with client:
        yield from _configuration(client.settings)
        reached = False
        for check in _server(client):
            reached = reached or check.name == "ready"
            yield check
        if reached:
            yield _credential(client)


def _configuration(settings: config.Settings) -> Iterator[Check]:
    yield Check(name="server", state="ok", said=f"{settings.url}, from {settings.url_from}")
    path = config.config_path()
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Check(
            name="config file",
            state="warn",
            said=f"{path} can be read by others, and holds your key",
            do=f"chmod 600 {path}, then slipway login for a new key",
        )
    elif path.exists():
        yield Check(name="config file", state="ok", said=f"{path}, readable only by you")
    address = urlsplit(settings.url)
    if address.scheme == "http" and address.hostname not in {"localhost", "127.0.0.1", "::1"}:
        yield Check(
            name="encryption",
            state="warn",
            said="keys and models travel in the clear",
            do="Use an https address for anything but your own computer.",
        )


def _server(client: Client) -> Iterator[Check]:
    try:
        health = client.health()
    except SlipwayError as error:
        do = "Is SLIPWAY_URL right, and does the server run there? On the server: make up"
        yield Check(name="reachable", state="fail", said=error.detail, do=do, exit_code=error.exit_code)
        return
    slow = health.seconds > SLOW_SECONDS
    yield Check(
        name="reachable",
        state="warn" if slow else "ok",
        said=f"answers in {health.seconds * 1000:.0f} ms",
        do="The server is slow or far away." if slow else "",
    )
    yield Check(
        name="ready",
        state="ok" if health.ready else "fail",
        said="takes work" if health.ready else "does not take work now",
        do="" if health.ready else "Tell its operator; see the failing parts below.",
        exit_code=0 if health.ready else Unreachable.exit_code,
    )
    for name, (fine, said) in health.components.items():
        # A part that is down while the server is ready is one that it can do without for now.
        state = "ok" if fine else ("warn" if health.ready else "fail")
        do = "" if fine else "The server's operator has to look at it."
        yield Check(name=f"  {name}", state=state, said=said, do=do, exit_code=0 if fine else Unreachable.exit_code)
    if health.skew is not None:
        yield _clock(health.skew)
    yield _version(client)


def _clock(skew: float) -> Check:
    off = abs(skew)
    state = "fail" if off > SKEW_FAIL else "warn" if off > SKEW_WARN else "ok"
    said = "this computer and the server agree" if state == "ok" else f"the server's clock is {skew:+.0f} s from ours"
    do = "" if state == "ok" else "Set the clocks (NTP): tokens and download links expire by them."
    return Check(name="clock", state=state, said=said, do=do, exit_code=1 if state == "fail" else 0)


def _version(client: Client) -> Check:
    try:
        version = str(client.server_version().get("version") or "unknown")
    except SlipwayError as error:
        return Check(name="server version", state="warn", said=error.detail, do="An older server may not tell.")
    same = version.split(".")[:1] == __version__.split(".")[:1]
    do = "" if same else "Install the client of the same major version: pip install -U slipway-client"
    return Check(name="server version", state="ok" if same else "warn", said=version, do=do)


def _credential(client: Client) -> Check:
    source = client.settings.token_from
    if source is None:
        do = "slipway login, or set SLIPWAY_TOKEN"
        return Check(name="credential", state="fail", said="there is none", do=do, exit_code=NotAllowed.exit_code)
    try:
        account = client.me()
    except SlipwayError as error:
        return _failed("credential", error)
    rights = ", ".join(account.permissions) or "no rights"
    kind = "API key" if account.via == "key" else "sign-in"
    return Check(name="credential", state="ok", said=f"{account.username} by {kind} from {source}: {rights}")


def _failed(name: str, error: SlipwayError) -> Check:
    return Check(name=name, state="fail", said=error.detail, do=error.hint or "", exit_code=error.exit_code)


def _worst(found: list[Check]) -> str:
    return max((check.state for check in found), key=["ok", "warn", "fail"].index)


def _table(screen: Screen, found: list[Check]) -> Table:
    grid = Table.grid(padding=(0, 1))
    for index in range(3):
        grid.add_column(no_wrap=index < 2, overflow="fold")
    for check in found:
        mark, style = MARKS[check.state]
        symbol = mark if screen.out.encoding.startswith("utf") else check.state
        grid.add_row(text(symbol, style), text(check.name), text(check.said))
        if check.do:
            grid.add_row("", "", text(f"→ {check.do}", "cyan"))
    return grid
