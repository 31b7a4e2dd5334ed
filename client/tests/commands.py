"""The command line, run inside the test's own process."""

from __future__ import annotations

from pathlib import Path

from slipway.cli import app
from typer.testing import CliRunner, Result


def slipway(*arguments: str | Path, said: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=said, prog_name="slipway")
