"""The `slipway` command: says what exists, and nothing about how it works."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from slipway._version import __version__
from slipway.cli import access, pushing, reading, running, varying
from slipway.cli.doctor import doctor
from slipway.cli.screen import examples

app = typer.Typer(
    name="slipway",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "slipway login --url https://models.example.org",
        "slipway push digits.onnx --name digits --watch",
        "slipway pull digits@latest",
    )
    + """

[bold]Exit codes[/bold]
  0  done                          5  not found
  1  failed                        6  conflict
  2  usage                         7  rate limit
  3  a gate or a scan said no      8  server or network
  4  not allowed                 124  timeout: the run goes on
                                 130  Ctrl-C: a run goes on

[bold]Environment[/bold]
SLIPWAY_URL, SLIPWAY_TOKEN, SLIPWAY_CONFIG (a file), NO_COLOR""",
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"slipway-client {__version__}\n")
        raise typer.Exit


@app.callback()
def slipway(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the client's version.")
    ] = False,
) -> None:
    """Push a model down the slipway, watch it, and pull what was promoted."""


_START, _RUNS, _REGISTRY = "Start here", "Runs", "Models"

app.command(
    rich_help_panel=_START,
    epilog=examples(
        "slipway login --url https://models.example.org -u ada",
        "slipway login --token-stdin < admin.key",
    ),
)(access.login)
app.command(
    rich_help_panel=_START,
    epilog=examples(
        "slipway push digits.onnx --name digits --watch",
        "slipway push net.pt --name digits --bump minor --input-shape 1,1,8,8 --classes @classes.txt",
        "RUN=$(slipway push digits.onnx -n digits -q) && slipway watch $RUN --timeout 600",
    ),
)(pushing.push)
app.command(rich_help_panel=_START, epilog=examples("slipway doctor", "slipway doctor --json"))(doctor)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway runs --status rejected", "slipway runs --model digits -q", "slipway runs RUN --json"),
)(running.runs)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway watch RUN", "slipway watch RUN --timeout 600", "slipway watch RUN --json | jq .kind"),
)(running.watch)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway logs RUN", "slipway logs RUN convert --attempt 1"),
)(running.logs)
app.command(rich_help_panel=_RUNS, epilog=examples("slipway cancel RUN"))(running.cancel)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway retry RUN --watch", "slipway retry RUN --from convert"),
)(running.retry)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway models", "slipway models digits --type classification", "slipway models --json"),
)(reading.models)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway show digits", "slipway show digits@1.0.0", "slipway show digits@latest --json"),
)(reading.show)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway pull digits",
        "slipway pull digits@1.0.0 --artifact onnx-int8-dynamic -o models/",
        "slipway pull digits@1.0.0 -a source -o digits.pt",
    ),
)(reading.pull)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway rebuild digits@1.0.0 --watch", "slipway rebuild digits --watch -q"),
)(varying.rebuild)
app.add_typer(
    varying.variant,
    name="variant",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway variant add digits@1.0.0 onnx-int8-dynamic --watch",
        "slipway variant pin digits@1.0.0 onnx-fp32",
        "slipway variant unpin digits@1.0.0 --device sm90",
    ),
)
app.add_typer(
    access.keys,
    name="keys",
    rich_help_panel=_START,
    epilog=examples("slipway keys create ci --days 90", "slipway keys list", "slipway keys revoke ci"),
)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × and → shows ?, and no traceback
    app(prog_name="slipway")
