"""Commands about runs: list and show them, watch one, read its logs, cancel it, take it up again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from slipway.cli import tables, timeline, wording
from slipway.cli.screen import Json, Quiet, Screen, plain, session, text, usage
from slipway.client import Client
from slipway.errors import RunEnded
from slipway.records import Run

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Wait = Annotated[float | None, typer.Option(help="Stay at most that many seconds.")]


def runs(  # noqa: PLR0917 - one parameter per option
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show this one in full.")] = None,
    status: Annotated[str | None, typer.Option(help="Only these, e.g. running or rejected.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List runs, newest first, or show one in full."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if run is None:
            found = client.runs(status=status, model=model, limit=limit)
            bare = "\n".join(item.id for item in found)
            screen.result({"items": [item.raw for item in found]}, tables.runs(found), bare=bare)
            return
        shown = client.run(run)
        parts = [timeline.still(shown, screen)]
        if shown.status == "succeeded":
            parts += [Text(), tables.variants(shown)]
        elif shown.code and shown.finished:
            parts += [Text(), text(f"{shown.code}: {shown.detail or ''}", "red")]
            parts += [part for part in (tables.findings(shown), tables.gates(shown)) if part is not None]
        screen.result(shown.raw, Group(*parts), bare=f"{shown.status}")


def watch(run: RunId, timeout: Wait = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Follow a run to its end; with --json one line per event."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if timeout is not None and timeout <= 0:
            raise usage("--timeout is a positive number of seconds.", "For example: --timeout 600")
        conclude(screen, watched(client, screen, run, timeout, lines=as_json))


def watched(client: Client, screen: Screen, run_id: str, timeout: float | None, *, lines: bool = False) -> Run:
    """Show a run until it is over; with `lines`, print each event as the server sent it."""
    screen.interrupted = f"The run goes on. Watch it again: slipway watch {run_id}"
    if lines:
        for event in client.events(run_id, timeout=timeout):
            screen.compact(event.raw)
        return client.run(run_id)
    moves = client.watch(run_id, timeout=timeout)
    last = timeline.follow(moves, screen) or client.run(run_id)
    return last if last.finished else client.run(run_id)


def conclude(screen: Screen, run: Run) -> None:
    """Print what a finished run came to; raise where it did not succeed."""
    screen.interrupted = "Interrupted. The run is over."
    try:
        run.check()
    except RunEnded as error:
        if not screen.as_json:
            explain(screen, error)
        raise
    if screen.as_json:
        return
    name = f"{run.model}@{run.version}"
    if screen.quiet:
        screen.line(name)
        return
    screen.out.print(Text(plain(name), style="bold").append(f" {wording.ending(run)}.", style="green"))
    if run.purpose == "rebuild":
        screen.out.print(tables.rebuilt(run.facts("compare")))
    elif run.purpose in {"intake", "variant"}:
        screen.out.print(tables.variants(run))
        screen.hint(f"Fetch the best one: slipway pull {name}")


def explain(screen: Screen, error: RunEnded) -> None:
    """Print, before the error itself, the evidence: findings and closed gates."""
    run = error.run
    findings, gates = tables.findings(run), tables.gates(run)
    for title, evidence in (("findings", findings), ("gates that stayed closed", gates)):
        if evidence is not None:
            screen.err.print(Text(title, style="bold"))
            screen.err.print(evidence)
    if run.stage == "scan":
        found = [item for item in run.facts("scan").get("findings") or () if item.get("severity") != "info"]
        if found and found[0].get("advice"):  # the worst comes first
            error.hint = f"{found[0]['advice']}\n{error.hint}"


def logs(
    run: RunId,
    stage: Annotated[str | None, typer.Argument(help="Only this stage, e.g. convert.")] = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt; the default is all of them.", min=1)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print what the stages of a run wrote to their logs."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if stage is None and attempt is not None:
            raise usage("--attempt needs a stage.", f"For example: slipway logs {run} convert --attempt 1")
        stages = [stage] if stage else [step.stage for step in client.run(run).steps if step.attempt]
        found = {name: client.log(run, name, attempt=attempt) for name in stages}
        if screen.as_json:
            screen.document({"run": run, "logs": found})
            return
        for name, lines in found.items():
            for line in lines:
                screen.line(plain(line) if stage else f"{plain(name):<9} {plain(line)}")
        if not any(found.values()):
            screen.hint("Nothing was logged yet.")


def cancel(run: RunId, as_json: Json = False, quiet: Quiet = False) -> None:
    """Stop a run and what works on it."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        _changed(screen, client.cancel(run), f"Take it up again: slipway retry {run}")


def retry(
    run: RunId,
    stage: Annotated[str | None, typer.Option("--from", help="Begin again at this stage.")] = None,
    stay: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the run is over.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a run up again that failed or was cancelled."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        launched(client, screen, client.retry(run, stage=stage), stay=stay)


def launched(client: Client, screen: Screen, run: Run, *, stay: bool) -> Run:
    """Say how to watch a run that was set going, or stay until it is over; return it as it then is."""
    if not stay:
        _changed(screen, run, f"Watch it: slipway watch {run.id}")
        return run
    finished = watched(client, screen, run.id, None)
    if screen.as_json:
        screen.document(finished.raw)
    conclude(screen, finished)
    return finished


def _changed(screen: Screen, run: Run, offer: str) -> None:
    screen.result(run.raw, Text(f"run {plain(run.id)}  {plain(run.status)}"), bare=run.id)
    screen.hint(offer)
