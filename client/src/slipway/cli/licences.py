"""Commands about licences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, text, usage

licence = typer.Typer(no_args_is_help=True, help="Licences of models.")

_STYLES = {"compatible": "bold green", "incompatible": "bold red", "unknown": "bold yellow"}
_EXITS = {"compatible": 0, "incompatible": 3}


@licence.callback()
def group() -> None:
    """Licences of models."""


@licence.command()
def check(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    name: Annotated[str | None, typer.Option("--licence", "-l", help="The project's, as an SPDX expression.")] = None,
    github: Annotated[str | None, typer.Option(help="Or the project's repository on GitHub.")] = None,
    file: Annotated[
        Path | None, typer.Option("--text", help="Or the project's LICENSE file.", exists=True, dir_okay=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether a project may use a model. Exits with 3 where it may not, with 1 where nobody can tell."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if sum(given is not None for given in (name, github, file)) != 1:
            raise usage(
                "The project's licence is missing, or there are several.", "Give --licence, --github or --text."
            )
        said = None if file is None else file.read_text(encoding="utf-8", errors="replace")
        found = client.licences.check(ref, licence=name, github_url=github, text=said)
        title = Text(found.answer, style=_STYLES.get(found.answer, "")).append(
            plain(f"  {found.project_licence or 'an unknown licence'} ← {found.model_licence or 'no licence'}"),
            style="dim",
        )
        lines = [title, text(found.reason), *(text(f"heed: {warning}", "yellow") for warning in found.warnings)]
        screen.result(found.raw, Group(*lines), bare=found.answer)
        if code := _EXITS.get(found.answer, 1):
            raise typer.Exit(code)
