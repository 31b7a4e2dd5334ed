"""Commands about a version's variants: have more made, have all made again, prefer one."""

from __future__ import annotations

from typing import Annotated

import typer

from slipway.cli import tables
from slipway.cli.reading import Ref
from slipway.cli.running import launched
from slipway.cli.screen import Json, Quiet, session

Stay = Annotated[bool, typer.Option("--watch", "-w", help="Stay until the run is over.")]
Device = Annotated[str, typer.Option("--device", "-d", help="Where: cpu, or a GPU's architecture, such as sm90.")]

variant = typer.Typer(no_args_is_help=True, help="Add variants to a version, and say which one to prefer.")


@variant.command()
def add(
    ref: Ref,
    names: Annotated[
        list[str], typer.Argument(metavar="VARIANT...", help="Such as onnx-int8-dynamic or tensorrt-fp16.")
    ],
    stay: Stay = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have more variants made of a published version."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        launched(client, screen, client.add_variants(ref, names), stay=stay)


@variant.command()
def pin(ref: Ref, name: str, device: Device = "cpu", as_json: Json = False, quiet: Quiet = False) -> None:
    """Prefer a variant on a device, whatever the measurements say."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        shown = client.pin(ref, name, device=device)
        screen.result(shown.raw, tables.version(shown), bare=name)


@variant.command()
def unpin(ref: Ref, device: Device = "cpu", as_json: Json = False, quiet: Quiet = False) -> None:
    """Let the measurements choose again on a device."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        shown = client.unpin(ref, device=device)
        screen.result(shown.raw, tables.version(shown), bare=shown.best_variant or "")


def rebuild(ref: Ref, stay: Stay = False, as_json: Json = False, quiet: Quiet = False) -> None:
    """Convert a version again from scratch and compare digests; with --watch, exit with 1 where they differ."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        run = launched(client, screen, client.rebuild(ref), stay=stay)
        if stay and run.facts("compare").get("same") is not True:
            raise typer.Exit(1)
