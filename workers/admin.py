"""`slipway-admin rescan|audit|user|gc|storage|restore`: what an operator does by hand, with the settings of every other process."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence

from pipeline.stage import discover
from registry import audit, keys, people, reviews
from registry.errors import RegistryError
from shared import observe, tokens
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from shared.signing import Signer
from workers import housekeeping
from workers.rescan import current_rules, queue

SHORTEST = 12
"""Characters of a password, as over HTTP."""


def main() -> None:
    wish = parse(sys.argv[1:])
    settings = Settings()
    observe.configure(fmt=settings.log_format, level=settings.log_level)
    begin = transactions(connect(settings.sqlalchemy_url, pool_size=1))
    try:
        sys.exit(carry_out(wish, begin, settings))
    except RegistryError as error:
        sys.exit(error.message)


def parse(words: Sequence[str]) -> argparse.Namespace:
    return _parser().parse_args(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slipway-admin", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("rescan", help="queue another scan of versions whose verdict is out of date")
    looking.add_argument("--all", action="store_true", help="of every clean version, whatever rules it was judged by")

    housekeeping.add_commands(commands)

    trail = commands.add_parser("audit", help="check the audit trail, or sign it")
    what = trail.add_subparsers(dest="what")
    what.add_parser("verify", help="name every entry that was changed or removed (the default)")
    what.add_parser("checkpoint", help="sign the last entry now")

    user = commands.add_parser("user", help="make a user, give one a password, make one an admin")
    what = user.add_subparsers(dest="what", required=True)
    adding = what.add_parser("add", help="make a user who may read, download, upload and predict, or what --role says")
    adding.add_argument("--email")
    adding.add_argument("--role", action="append", default=[], help="may be repeated; instead of the everyday rights")
    adding.add_argument("--admin", action="store_true", help="they may everything")
    adding.add_argument("--key", action="store_true", help="print an API key instead of asking for a password")
    password = what.add_parser("password", help="give a user another password; ends their bearer tokens")
    what.add_parser("grant-admin", help="let a user do everything").add_argument("username")
    for one in (adding, password):
        one.add_argument("username")
        one.add_argument("--password-stdin", action="store_true", help="read the password from stdin, one line")
    return parser


def carry_out(wish: argparse.Namespace, begin: Begin, settings: Settings) -> int:
    """Do what the command line says; the exit code."""
    match wish.command, getattr(wish, "what", None):
        case "rescan", _:
            return _rescan(begin, settings, everything=wish.all)
        case "audit", "checkpoint":
            return _checkpoint(begin, settings)
        case "audit", _:
            return _verify(begin, settings)
        case (("gc" | "storage" | "restore"), _):
            return housekeeping.run(wish, begin, settings)
        case _, "add":
            return _add_user(begin, wish)
        case _, "password":
            return _set_password(begin, wish)
        case _:
            return _grant_admin(begin, wish.username)


def _rescan(begin: Begin, settings: Settings, *, everything: bool) -> int:
    stages = discover(settings.stage_packages)
    if everything:
        with begin() as session:
            reviews.forget_rules(session)
    queued = queue(begin, stages, current_rules(settings.second_opinions))
    sys.stdout.write(f"{queued} re-scans are queued; follow them as runs.\n")
    return 0


def _checkpoint(begin: Begin, settings: Settings) -> int:
    with begin() as session:
        signed = audit.checkpoint(session, Signer(settings.signing_key.get_secret_value()))
    sys.stdout.write("The last entry is signed already.\n" if signed is None else f"Entry {signed} is signed.\n")
    return 0


def _verify(begin: Begin, settings: Settings) -> int:
    trusted = (Signer(settings.signing_key.get_secret_value()).public_key, *settings.trusted_keys)
    with begin() as session:
        chain = audit.verify(session, trusted)
    for fault in chain.faults:
        which = f"Entry {fault.first}" if fault.first == fault.last else f"Entries {fault.first} to {fault.last}"
        sys.stderr.write(f"{which}: {_MEANINGS[fault.what]}\n")
    signed = "none is signed" if chain.signed is None else f"signed up to {chain.signed}"
    if chain.faults:
        sys.stderr.write(f"The trail is broken; the first {chain.entries} entries are intact, {signed}.\n")
        return 1
    sys.stdout.write(f"{chain.entries} entries, intact, {signed}. Head: {chain.head}\n")
    return 0


_MEANINGS = {
    "changed": "changed, not what was written.",
    "removed": "removed.",
    "rewritten": "written anew, together: the last of them is not what was signed.",
    "unsigned": "its checkpoint was made by no key of SIGNING_KEY or TRUSTED_KEYS.",
}


def _add_user(begin: Begin, wish: argparse.Namespace) -> int:
    rights: Sequence[str] = ("admin",) if wish.admin else () if wish.role else people.EVERYDAY
    password_hash = None if wish.key else _hashed(from_stdin=wish.password_stdin)
    fresh = tokens.new_key()
    with begin() as session:
        user = people.register(
            session,
            username=wish.username,
            password_hash=password_hash,
            permissions=rights,
            roles=wish.role,
            email=wish.email,
        )
        if wish.key:
            keys.add(
                session,
                user_id=user.id,
                name="slipway-admin",
                prefix=fresh.prefix,
                digest=fresh.digest,
                scopes=list(user.permissions),
                expires_at=None,
            )
        told = {"username": user.username, "permissions": list(user.direct), "roles": list(user.roles)}
        audit.append(session, audit.SLIPWAY, "user.registered", str(user.id), told)
    sys.stdout.write(f"{fresh.text}\n" if wish.key else f"{user.username} may {', '.join(user.permissions)}.\n")
    return 0


def _set_password(begin: Begin, wish: argparse.Namespace) -> int:
    password_hash = _hashed(from_stdin=wish.password_stdin)
    with begin() as session:
        user = people.find(session, wish.username, lock=True)
        people.set_password(session, user.id, password_hash)
        audit.append(session, audit.SLIPWAY, "user.password_reset", str(user.id), {})
    sys.stdout.write(f"{user.username} has a new password; their bearer tokens are over.\n")
    return 0


def _grant_admin(begin: Begin, username: str) -> int:
    with begin() as session:
        user = people.find(session, username, lock=True)
        people.set_rights(session, user, permissions={*user.direct, "admin"}, roles=None)
        people.change(session, user, {"is_active": True})
        audit.append(session, audit.SLIPWAY, "user.rights_set", str(user.id), {"added": "admin"})
    sys.stdout.write(f"{user.username} may everything from now on.\n")
    return 0


def _hashed(*, from_stdin: bool) -> str:
    """The hash of a password that is asked for, never given on the command line: others could read it there."""
    password = sys.stdin.readline().rstrip("\r\n") if from_stdin else getpass.getpass("Password: ")
    if len(password) < SHORTEST:
        sys.exit(f"A password has at least {SHORTEST} characters.")
    try:
        return tokens.Passwords().hash(password)
    except ModuleNotFoundError:
        sys.exit("Passwords are hashed where the extra api or worker is installed: run this there, or use --key.")


if __name__ == "__main__":
    main()
