"""A run as it goes down the slipway: a live list of its stages on a terminal, one line per event anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from slipway.cli import wording
from slipway.cli.screen import Screen, plain, text
from slipway.records import Event, Run, Step

SYMBOLS = {
    "pending": ("·", ".", "dim"),
    "queued": ("◌", "o", "cyan"),
    "running": ("▸", ">", "cyan"),
    "passed": ("✓", "+", "green"),
    "refused": ("✗", "x", "bold red"),
    "broke": ("!", "!", "bold yellow"),
    "skipped": ("–", "-", "dim"),
}
STATUS_STYLE = {"succeeded": "bold green", "rejected": "bold red", "failed": "bold red", "cancelled": "yellow"}


def follow(moves: Iterable[tuple[Event, Run]], screen: Screen) -> Run | None:
    """Show every move and return the run as the last one left it."""
    if screen.lively and not screen.as_json:
        return _live(moves, screen)
    last: Run | None = None
    for event, run in moves:
        last = run
        if not screen.as_json:
            screen.say(line(event, run))
    return last


def _live(moves: Iterable[tuple[Event, Run]], screen: Screen) -> Run | None:
    picture = Picture(unicode=screen.unicode)
    with Live(get_renderable=picture.draw, console=screen.err, refresh_per_second=8) as live:
        for _, run in moves:
            picture.see(run)
            live.refresh()
        picture.over = True
    return picture.run


class Picture:
    """What the terminal shows of a run. Running stages count on by our clock from what the server's clock said."""

    def __init__(self, *, unicode: bool = True) -> None:
        self.run: Run | None = None
        self.over = False
        self._unicode = unicode
        self._since: dict[tuple[str, int], float] = {}
        self._spinner = Spinner("dots" if unicode else "line", style="cyan")

    def see(self, run: Run) -> None:
        """Take the newest state."""
        self.run = run
        for step in run.steps:
            key = (step.stage, step.attempt)
            if step.status == "running" and key not in self._since:
                before = 0.0
                if run.updated_at and step.started_at:
                    before = max(0.0, (run.updated_at - step.started_at).total_seconds())
                self._since[key] = time.monotonic() - before

    def draw(self) -> RenderableType:
        """Return the picture as of now."""
        if self.run is None:
            return text("Waiting for the first event …", "dim")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=2, justify="right")
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        for step in self.run.steps:
            grid.add_row(*self._row(step))
        return Group(headline(self.run), grid)

    def _row(self, step: Step) -> tuple[RenderableType, ...]:
        fancy, ascii_only, style = SYMBOLS.get(step.status, ("?", "?", ""))
        symbol: RenderableType = Text(fancy if self._unicode else ascii_only, style=style)
        if step.status == "running" and not self.over:
            symbol = self._spinner
        took = step.seconds
        if step.status == "running":
            took = time.monotonic() - self._since.get((step.stage, step.attempt), time.monotonic())
        quiet = "dim" if step.status in {"pending", "skipped"} else ""
        return (
            symbol,
            text(step.stage, quiet or "bold"),
            text(status_of(step), style if step.status != "passed" else "dim"),
            text(wording.seconds(took), "dim"),
            text(about(step), quiet),
        )


def headline(run: Run) -> Text:
    """Return which run this is and how it stands."""
    style = STATUS_STYLE.get(run.status, "cyan")
    name = Text(plain(f"{run.model}@{run.version}" if run.version else run.model), style="bold")
    name.append(f"  run {plain(run.id)}  ", style="dim").append(plain(run.status), style=style)
    return name.append(f"  {plain(run.waiting)}", style="yellow") if run.waiting else name


def status_of(step: Step) -> str:
    """Return a step's status, with the attempt where it is not the first."""
    return f"{step.status} ({step.attempt}/{step.max_attempts})" if step.attempt > 1 else step.status


def about(step: Step) -> str:
    """Return one line about how a step went: what it reported, or why it did not pass."""
    if step.status in {"refused", "broke"} or (step.status in {"queued", "skipped"} and step.code):
        return ": ".join(part for part in (step.code, step.detail) if part)
    return wording.summary(step.stage, step.report)


def line(event: Event, run: Run) -> Text:
    """Return one line about one event, for a log."""
    clock = f"{event.at:%H:%M:%S} " if event.at else ""
    step = run.step(event.stage) if event.stage else None
    attempt = f" (attempt {event.attempt})" if event.attempt and event.attempt > 1 else ""
    took, said = "", ": ".join(part for part in (event.code, event.detail) if part)
    if event.kind == "passed" and step:
        took = f" in {wording.seconds(step.seconds)}" if step.seconds is not None else ""
        said = wording.summary(step.stage, step.report)
    stage = f" {event.stage}" if event.stage else ""
    ending = f" -> run {event.status}" if event.terminal else (f", {run.waiting}" if run.waiting else "")
    body = f"{clock}{run.model}@{run.version}{stage} {event.kind}{attempt}{took}"
    return text(body + (f": {said}" if said else "") + ending)


def still(run: Run, screen: Screen) -> RenderableType:
    """Return the picture of a run that nobody waits for."""
    picture = Picture(unicode=screen.unicode)
    picture.see(run)
    picture.over = True
    return picture.draw()
