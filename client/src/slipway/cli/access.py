"""Commands about who you are: sign in, and make, list and revoke API keys."""

from __future__ import annotations

import contextlib
import getpass
import socket
import sys
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from slipway import config
from slipway.cli import tables
from slipway.cli.screen import Json, Quiet, Screen, examples, guarded, plain, session, text, usage
from slipway.client import Client
from slipway.errors import NotAllowed, NotFound, SlipwayError
from slipway.records import Key

KEY_DAYS = 30

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


def login(  # noqa: PLR0917 - one parameter per option
    url: Annotated[str | None, typer.Option(help="The server; the default is the one in use.")] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="Asked for where it is missing.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read an API key from stdin and save it.")] = False,
    days: Annotated[int, typer.Option(help="How long the key that is made for this computer lives.", min=1)] = KEY_DAYS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sign in and remember it: an API key for this computer, in a file that only you can read.

    There is no option for a password or a key itself: other users of this computer could read it.
    """
    screen = Screen(as_json=as_json, quiet=quiet)
    with guarded(screen):
        if token_stdin and (password_stdin or username):
            raise usage("--token-stdin needs no user name and no password.", "Leave the others away.")
        before = config.saved(config.config_path())
        address = config.checked_url(url or config.settings().url)
        if token_stdin:
            token = sys.stdin.readline().strip()
            key_id = None
        else:
            token, key_id = _sign_in(screen, address, username, days, password_stdin=password_stdin)
        with Client(address, token) as client:
            account = client.me()
            path = config.config_path()
            config.save(path, {"url": address, "token": token} | ({"key_id": key_id} if key_id else {}))
            old = before.get("key_id")
            if key_id and old and before.get("url") == address:
                with contextlib.suppress(SlipwayError):  # it may be gone, or somebody else's: the new one counts
                    client.revoke_key(old)
        document = {"url": address, "username": account.username, "config": str(path)}
        screen.result(document, Text(f"Signed in at {plain(address)} as {plain(account.username)}."), bare="")
        screen.hint(f"Saved in {path}, readable only by you.")


def logout(
    everywhere: Annotated[bool, typer.Option("--everywhere", help="End every bearer token of yours too.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sign out: the key that `slipway login` made for this computer is revoked and forgotten.

    A key that was given with --token-stdin is only forgotten; others may use it too.
    """
    path = config.config_path()
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        known = config.saved(path)
        ours = known.get("token") == client.token and known.get("url") == client.url
        if everywhere:
            client.logout(everywhere=True)
        if ours and known.get("key_id"):
            client.revoke_key(known["key_id"])
        elif not everywhere and client.me().via == "jwt":
            client.logout()
        elif not everywhere and not ours:
            raise usage("The key in SLIPWAY_TOKEN is none that slipway login made.", "Use: slipway keys revoke")
        if ours:
            path.unlink(missing_ok=True)
        screen.result({"url": client.url, "everywhere": everywhere}, Text("Signed out."), bare="")


def _sign_in(
    screen: Screen, address: str, username: str | None, days: int, *, password_stdin: bool
) -> tuple[str, str | None]:
    """Return a credential that lasts, and its id where it is a key."""
    if not password_stdin and not sys.stdin.isatty():
        raise usage("There is no terminal to ask for the password.", "Use --password-stdin or --token-stdin.")
    user = username or _asked("User name: ")
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else getpass.getpass("Password: ")
    with Client(address) as client:
        try:
            lasts = client.login(user, password)
        except NotAllowed as error:
            error.hint = "Check the user name and the password. With an API key: slipway login --token-stdin < FILE"
            raise
        try:
            key = client.create_key(f"slipway on {socket.gethostname()}", expires_in_days=days)
        except NotAllowed:
            screen.say(text(f"You may not make keys: this sign-in lasts {lasts // 60} minutes only.", "yellow"))
            return client.token or "", None
        if key.key is None:
            raise SlipwayError("no_key", "The server made a key and did not show it.", hint="slipway keys create")
        return key.key, key.id


def _asked(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


@keys.command(
    "create",
    epilog=examples(
        "slipway keys create ci --scope models:upload --scope models:read --days 90",
        "export SLIPWAY_TOKEN=$(slipway keys create laptop -q)",
    ),
)
def create(  # noqa: PLR0917 - one parameter per option
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may; may be repeated. Default: all you may.")] = None,
    days: Annotated[int | None, typer.Option(help="After how many days it ends.", min=1)] = None,
    calls: Annotated[int | None, typer.Option(help="For how many requests it is good.", min=1)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an API key. It is shown this once."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        key = client.create_key(name, scopes=scope, expires_in_days=days, calls=calls)
        screen.result(key.raw, Text(plain(key.key), style="bold"), bare=key.key)
        screen.hint("Keep it now: it is not shown again. Use it as SLIPWAY_TOKEN, or: slipway login --token-stdin")


@keys.command("list", epilog=examples("slipway keys list", "slipway keys list --json"))
def list_keys(as_json: Json = False, quiet: Quiet = False) -> None:
    """List your API keys."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.keys()
        document = {"items": [key.raw for key in found]}
        screen.result(document, Group(tables.keys(found)), bare="\n".join(key.id for key in found))


@keys.command("revoke", epilog=examples("slipway keys revoke slw_9f3a", "slipway keys revoke ci"))
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, how it begins, or its name, where only one has it.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an API key worthless."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        meant = _meant(client.keys(), key)
        client.revoke_key(meant.id)
        screen.result({"revoked": meant.id}, Text(f"Revoked {plain(meant.name)} ({plain(meant.prefix)}…)."), meant.id)


def _meant(found: list[Key], said: str) -> Key:
    exact = [key for key in found if key.id == said]
    fitting = exact or [key for key in found if said in {key.prefix, key.name}]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        ids = ", ".join(key.id for key in fitting)
        raise usage(f"{len(fitting)} keys are called {said}.", f"Give the id: {ids}")
    raise NotFound("no_such_key", f"You have no key {said}.", hint="See them with: slipway keys list")
