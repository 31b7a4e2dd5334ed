"""The two streams of the command line: stdout takes the result, stderr the progress and the errors.

Nothing from outside reaches the terminal unwashed: file names and findings are chosen by whoever made the model.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from slipway.client import Client
from slipway.errors import InvalidRequest, NotAllowed, RunEnded, SlipwayError, TimedOut

PIPE_WIDTH = 200
LISTED = 20

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result, no progress.", show_default=False)]


def plain(value: Any) -> str:
    """Return text that cannot move a cursor, change a colour or reverse a line."""
    return "".join(_shown(char) for char in str(value))


def _shown(char: str) -> str:
    if char == "\t":
        return " "
    # Cc control, Cf format (bidi overrides, zero width), Cs surrogates, Zl and Zp line separators
    hidden = unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return char.encode("unicode_escape").decode() if hidden else char


def text(value: Any, style: str = "") -> Text:
    """Return washed text for a table; markup in it is not read."""
    return Text(plain(value), style=style)


class Pipe(Console):
    """A console whose reader may leave early: `slipway runs | head -3` is no failure."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while the BrokenPipeError is being handled; `guarded` knows what it means


class Screen:
    """Where a command prints. `interrupted` says what Ctrl-C leaves behind; commands set it as they go on."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
        self.out = Pipe(highlight=False, width=width)
        self.err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self.as_json = as_json
        self.quiet = quiet
        self.interrupted = "Interrupted. Nothing was changed."

    @property
    def lively(self) -> bool:
        """Whether progress may redraw itself."""
        return not self.quiet and self.err.is_terminal and not self.err.is_dumb_terminal

    @property
    def unicode(self) -> bool:
        """Whether stderr can show more than ASCII."""
        return self.err.encoding.startswith("utf")

    def result(self, document: Any, human: RenderableType, bare: str | None = None) -> None:
        """Print the result: as JSON, or bare with `-q` where there is a bare form, or for a person."""
        if self.as_json:
            self.document(document)
        elif self.quiet and bare is not None:
            if bare:
                self.line(bare)
        else:
            self.out.print(human)

    def document(self, document: Any) -> None:
        """Print one JSON document."""
        self.line(json.dumps(document, indent=2, ensure_ascii=False))

    def compact(self, document: Any) -> None:
        """Print one JSON document on one line."""
        self.line(json.dumps(document, ensure_ascii=False))

    def line(self, line: str) -> None:
        """Print one line to stdout as it is, for a program."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def say(self, message: RenderableType) -> None:
        """Print progress, unless it is not wanted."""
        if not self.quiet:
            self.err.print(message)

    def hint(self, message: str) -> None:
        """Tell what one may do next; noise for a program."""
        if not self.as_json and not self.quiet:
            self.whole(text(message, "dim"))

    def error(self, error: SlipwayError) -> None:
        """Print what went wrong, why, what to do and whose fault it is."""
        if self.as_json:
            sys.stderr.write(json.dumps({"error": error.as_json()}, ensure_ascii=False) + "\n")
            return
        cross = "✗" if self.unicode else "x"
        calm = isinstance(error, TimedOut)
        title = Text(f"{cross} ", style="bold yellow" if calm else "bold red").append(plain(error.code))
        if isinstance(error, RunEnded):
            where = f" in {error.run.stage}" if error.run.stage else ""
            title = Text(f"{cross} {error.run.status}{plain(where)}: ", style="bold red").append(plain(error.code))
        self.err.print(title)
        told = [("what", error.detail), *(("why", why) for why in whys(error.details))]
        told += [("do", step) for step in (error.hint or "").splitlines()]
        told += [("whose", error.fault)] + ([("trace", error.trace_id)] if error.trace_id else [])
        for label, said in told:
            self.whole(Text.assemble((f"  {label:<7}", "dim"), plain(said)))

    def whole(self, line: Text) -> None:
        """Print a line to stderr unbroken: the terminal may wrap it, but a command in it can still be copied."""
        self.err.print(line, soft_wrap=True)


def whys(details: Any) -> list[str]:
    """Return what the server said beside the message, one line each."""
    if isinstance(details, Mapping):
        lines = [f"{key}: {_short(value)}" for key, value in details.items()]
    elif isinstance(details, Sequence) and not isinstance(details, str):
        lines = [_complaint(item) for item in details]
    else:
        lines = [str(details)] if details else []
    more = len(lines) - LISTED
    return [*lines[:LISTED], f"… and {more} more"] if more > 0 else lines


def _complaint(item: Any) -> str:
    """Shorten one field error as FastAPI and problem documents write them."""
    if isinstance(item, Mapping):
        where = item.get("field") or item.get("pointer") or item.get("loc")
        said = item.get("message") or item.get("msg") or item.get("detail")
        if said:
            place = ".".join(str(part) for part in where) if isinstance(where, list) else where
            return f"{place}: {said}" if place else str(said)
    return _short(item)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextmanager
def session(*, as_json: bool = False, quiet: bool = False) -> Iterator[tuple[Client, Screen]]:
    """Open what a command needs, and turn every expected failure into its message and exit code."""
    screen = Screen(as_json=as_json, quiet=quiet)
    with guarded(screen), Client() as client:
        if client.token is None:
            raise NotAllowed(
                "no_credential",
                f"There is no credential for {client.url}.",
                hint="Sign in with: slipway login – or set SLIPWAY_TOKEN.",
            )
        yield client, screen


@contextmanager
def guarded(screen: Screen) -> Iterator[None]:
    """Turn every expected failure into its message and exit code."""
    try:
        yield
        sys.stdout.flush()
    except SlipwayError as error:
        screen.error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        screen.whole(text(screen.interrupted, "yellow"))
        raise typer.Exit(130) from error
    except BrokenPipeError as error:  # somebody took the first lines and left: `slipway runs | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        failure = LocalError(
            "local_file", f"{where}{error.strerror or error}", hint="Check the path, its rights, space."
        )
        screen.error(failure)
        raise typer.Exit(1) from error


class LocalError(SlipwayError):
    """Something here could not be read or written."""

    fault = "This computer's."


def usage(detail: str, hint: str) -> InvalidRequest:
    """Return the error for an option that makes no sense."""
    return InvalidRequest("usage", detail, hint=hint)


def examples(*lines: str) -> str:
    """Return a help epilogue: each example on its own line."""
    return "\n".join(["[bold]Examples[/bold]", *(f"[dim]$[/dim] [cyan]{line}[/cyan]" for line in lines)])
