"""Commands about what has been let in: list models, show one, pull its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from slipway import download, refs
from slipway.cli import tables, wording
from slipway.cli.pushing import Meter
from slipway.cli.screen import Json, Quiet, plain, session
from slipway.errors import Conflict
from slipway.upload import digest_of

Ref = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@REF]", help="A model, and which version: 1.0.0, 3 (the third upload), production or latest."
    ),
]


def show(ref: Ref, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show a model with its versions, or one version with what is stored for it."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        name, _ = refs.parse(ref)
        if "@" in ref:
            version = client.version(ref)
            screen.result(version.raw, tables.version(version), bare=version.version)
            return
        model, versions = client.model(name), client.versions(name)
        document = {**model.raw, "versions": [item.raw for item in versions]}
        screen.result(document, tables.model(model, versions), bare="\n".join(item.version for item in versions))


def pull(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    artifact: Annotated[
        str | None, typer.Option("--artifact", "-a", help="Which one; the default is the best, `source` the upload.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="A file to write, or a folder/.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a different file that is there.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch an artifact: digest checked, continued where an earlier call broke off."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        offer = client.download(ref, artifact)
        target = download.target_for(offer, output or ".")
        # A file named with -o may be replaced; a name that the server chose must not cost somebody a file.
        if target.exists() and target != Path(output or ".") and not force and digest_of(target) != offer.sha256:
            raise Conflict(
                "file_exists",
                f"{target} is there already and is something else.",
                hint="Name another file with -o, or replace it with --force.",
            )
        with Meter(screen, target) as meter:
            path = client.pull(ref, target, artifact, progress=meter.see)
        document = {
            "path": str(path),
            "artifact": offer.name,
            "sha256": offer.sha256,
            "size": offer.size,
            "media_type": offer.media_type,
        }
        human = Text(plain(path), style="bold").append(
            f"  {plain(offer.name)}, {wording.size(offer.size)}, SHA-256 {plain(offer.sha256)} checked", style="dim"
        )
        screen.result(document, human, bare=str(path))
