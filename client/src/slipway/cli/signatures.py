"""The command about what is signed."""

from __future__ import annotations

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, text
from slipway.cli.tables import table
from slipway.signatures import Seal


def signatures(ref: Ref, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show the signatures of a version, verified by the server just now; exit with 3 where it is not sealed."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.signatures.of(ref)
        screen.result(found.raw, _shown(found), bare="sealed" if found.sealed else str(found.fault))
        if not found.sealed:
            raise typer.Exit(3)


def _shown(found: Seal) -> RenderableType:
    made = table("manifest", "sha256", "key", "signature")
    for item in found.signatures:
        state = text("valid", "green") if item.valid else text(item.fault or "not valid", "red")
        made.add_row(text(item.manifest, "bold"), text(item.sha256, "dim"), text(item.key_id), state)
    if found.sealed:
        return Group(made, Text("Sealed: everything that is published is named by what was signed.", style="green"))
    return Group(made, Text(f"Not sealed: {plain(found.fault)}.", style="red"))
