"""Commands about others: users, roles, and what they may do with a model of yours."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from slipway.cli import wording
from slipway.cli.screen import Json, Quiet, examples, plain, session, text, usage
from slipway.cli.tables import table
from slipway.grants import Grant
from slipway.users import Role, User

users = typer.Typer(no_args_is_help=True, help="List, add, change and delete users, for admins; and your own account.")
roles = typer.Typer(no_args_is_help=True, help="List, make and delete roles, for admins.")

Who = Annotated[str, typer.Argument(metavar="USER", help="A name or an id; `me` is you.")]
Name = Annotated[str, typer.Argument(help="The role's name.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="NAME of one of yours, or OWNER~NAME.")]
Permission = Annotated[
    str, typer.Argument(metavar="PERMISSION", help="read, download, upload, predict, deploy or delete.")
]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


@users.command("list", epilog=examples("slipway users list", "slipway users list --inactive -q"))
def list_users(
    inactive: Annotated[bool, typer.Option("--inactive", help="Only those who were switched off.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List users."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.users.list(active=False if inactive else None)
        bare = "\n".join(user.username for user in found)
        screen.result({"items": [user.raw for user in found]}, _users(found), bare=bare)


@users.command("show", epilog=examples("slipway users show", "slipway users show grace --json"))
def show(user: Who = "me", as_json: Json = False, quiet: Quiet = False) -> None:
    """Show one user."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.users.get(user)
        screen.result(found.raw, _users([found]), bare=found.username)


@users.command(
    "add",
    epilog=examples(
        "slipway users add grace --role engineer", "slipway users add grace --password-stdin < password.txt"
    ),
)
def add(  # noqa: PLR0917 - one parameter per option
    username: Annotated[str, typer.Argument(help="Lower case.")],
    email: Annotated[str | None, typer.Option(help="Nobody else has it.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="May be repeated; instead of the everyday rights.")] = None,
    password_stdin: PasswordStdin = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add a user, who may read, download, upload and predict, or what the roles say."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        password = _password("Their password: ", from_stdin=password_stdin)
        made = client.users.register(username, password, email=email, roles=role or ())
        screen.result(made.raw, _users([made]), bare=made.username)


@users.command(
    "set",
    epilog=examples(
        "slipway users set grace --role engineer --role reviewer",
        "slipway users set grace --permission models:deploy",
        "slipway users set grace --inactive",
        "slipway users set me --email ada@example.org",
    ),
)
def change(  # noqa: PLR0917 - one parameter per option
    user: Who,
    email: Annotated[str | None, typer.Option(help="The address.")] = None,
    plan: Annotated[str | None, typer.Option(help="Whose limits count: free, premium.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="All roles from now on; '' for none.")] = None,
    permission: Annotated[list[str] | None, typer.Option(help="All permissions without a role; '' for none.")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Switch on or off.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change a user; what is not given stays."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = None
        if role is not None or permission is not None:
            found = client.users.set_rights(user, permissions=_named(permission), roles=_named(role))
        if (email, plan, active) != (None, None, None):
            found = client.users.update(user, email=email, plan=plan, is_active=active)
        if found is None:
            raise usage("There is nothing to change.", "See what there is: slipway users set --help")
        screen.result(found.raw, _users([found]), bare=found.username)


@users.command("password", epilog=examples("slipway users password", "slipway users password grace"))
def password(
    user: Who = "me", password_stdin: PasswordStdin = False, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Change your password, or as an admin give somebody another. Ends bearer tokens; API keys stay.

    With --password-stdin your own comes as two lines: the old one and the new one.
    """
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if user == "me":
            old = _password("Your old password: ", from_stdin=password_stdin)
            client.users.change_password(old, _password("Your new password: ", from_stdin=password_stdin))
        else:
            client.users.reset_password(user, _password("Their new password: ", from_stdin=password_stdin))
        screen.result({"user": user}, Text(f"{plain(user)}: the password is another one now."), bare="")


@users.command(
    "delete", epilog=examples("slipway users delete grace --models to:ada", "slipway users delete me --models delete")
)
def delete(
    user: Who,
    models: Annotated[str | None, typer.Option(help="What becomes of their models: delete, or to:NAME.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete an account: tokens, keys and grants are over, the name stays taken."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        client.users.delete(user, models=models)
        screen.result({"deleted": user}, Text(f"Deleted {plain(user)}."), bare=user)


@roles.command("list", epilog=examples("slipway roles list"))
def list_roles(as_json: Json = False, quiet: Quiet = False) -> None:
    """List roles."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.roles.list()
        bare = "\n".join(role.name for role in found)
        screen.result({"items": [role.raw for role in found]}, _roles(found), bare=bare)


@roles.command("set", epilog=examples("slipway roles set trainer models:read models:upload"))
def set_role(
    name: Name,
    permissions: Annotated[list[str], typer.Argument(help="All that it lets its members do.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a role, or change one."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        made = client.roles.put(name, permissions, description=description)
        screen.result(made.raw, _roles([made]), bare=made.name)


@roles.command("delete", epilog=examples("slipway roles delete trainer"))
def delete_role(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Delete a role that nobody has."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        client.roles.delete(name)
        screen.result({"deleted": name}, Text(f"Deleted {plain(name)}."), bare=name)


def grants(model: ModelName, as_json: Json = False, quiet: Quiet = False) -> None:
    """List what others may do with a model of yours."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.grants.list(model)
        bare = "\n".join(f"{grant.username} {grant.permission}" for grant in found)
        screen.result({"items": [grant.raw for grant in found]}, _grants(found), bare=bare)


def grant(  # noqa: PLR0917 - one parameter per option
    model: ModelName,
    user: Annotated[str, typer.Argument(metavar="USER", help="Who, by name.")],
    permission: Permission,
    days: Annotated[int | None, typer.Option(help="After how many days it ends.", min=1)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let somebody do something with a model of yours."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        given = client.grants.give(model, user, _full(permission), expires_in_days=days)
        screen.result(given.raw, _grants([given]), bare="")


def revoke(
    model: ModelName,
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose, by name.")],
    permission: Permission,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a grant back, from now on."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        client.grants.revoke(model, user, _full(permission))
        document = {"model": model, "username": user, "permission": _full(permission)}
        screen.result(document, Text(f"{plain(user)} has no {plain(permission)} for {plain(model)} any more."), bare="")


def _users(found: Sequence[User]) -> RenderableType:
    made = table("user", "email", "roles", "may", "plan", "active", "since")
    for user in found:
        made.add_row(
            text(user.username, "bold"),
            text(user.email or ""),
            text(", ".join(user.roles)),
            text(", ".join(permission.removeprefix("models:") for permission in user.permissions)),
            text(user.plan),
            text("yes") if user.is_active else text("no", "red"),
            wording.ago(user.created_at),
        )
    return made


def _roles(found: Sequence[Role]) -> RenderableType:
    made = table("role", "may", "members", "", "description", right=("members",))
    for role in found:
        permissions = ", ".join(permission.removeprefix("models:") for permission in role.permissions)
        built_in = text("built in" if role.built_in else "", "dim")
        made.add_row(text(role.name, "bold"), text(permissions), str(role.members), built_in, text(role.description))
    return made


def _grants(found: Sequence[Grant]) -> RenderableType:
    if not found:
        return Text("Nobody has a grant.", style="dim")
    made = table("user", "may", "by", "since", "until")
    for grant in found:
        made.add_row(
            text(grant.username, "bold"),
            text(grant.permission.removeprefix("models:")),
            text(grant.granted_by),
            wording.ago(grant.granted_at),
            f"{grant.expires_at:%Y-%m-%d}" if grant.expires_at else "taken back",
        )
    return made


def _full(permission: str) -> str:
    return permission if ":" in permission else f"models:{permission}"


def _named(values: list[str] | None) -> list[str] | None:
    return None if values is None else [value for value in values if value]


def _password(question: str, *, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise usage("There is no terminal to ask for the password.", "Use --password-stdin.")
    return getpass.getpass(question)
