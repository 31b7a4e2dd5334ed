"""`slipway score`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, text
from slipway.cli.tables import table
from slipway.scores import Score


def score(ref: Ref, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show a version's net score, what it is made of, and why."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.scores.read(ref)
        screen.result(found.raw, _shown(found), bare=f"{found.net_score:.2f}")


def _shown(found: Score) -> RenderableType:
    title = Text(f"{found.net_score:.2f}", style="bold").append(
        plain(f"  version {found.version}, from evidence for {found.known:.0%} of the weight"), style="dim"
    )
    made = table("part", "score", "weight", "because", right=("score", "weight"))
    for one in found.sub_scores:
        value = text("–", "dim") if one.value is None else Text(f"{one.value:.2f}")
        made.add_row(
            text(one.name, "bold"), value, f"{one.weight:.2f}", text(one.because, "dim" if one.value is None else "")
        )
    return Group(title, made)
