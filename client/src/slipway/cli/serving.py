"""Commands about models that answer: ask one, copy code that asks it, say who may ask."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from slipway import refs, snippets, tensors
from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, text, usage
from slipway.cli.tables import table
from slipway.client import Client
from slipway.endpoints import Endpoint
from slipway.predictions import IMAGES, Prediction

ARRAYS = (".npy", ".npz")
BAR = 24
SHOWN = 5
"""Rows and classes that a person is shown."""


def predict(
    ref: Annotated[
        str, typer.Argument(metavar="NAME[@REF]", help="A model; without REF what is live on production, else default.")
    ],
    source: Annotated[
        str,
        typer.Option("--input", "-i", help="A file (.json, .npy, .npz, .png, .jpg, .webp), or - for JSON on stdin."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the outputs as arrays: a .npz file.", dir_okay=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a served model."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        answer = _asked(client, ref, source)
        if output is not None:
            _write(output, answer)
        document = {name: value for name, value in vars(answer).items() if name != "raw"}
        document["outputs"] = {name: _lists(value) for name, value in answer.outputs.items()}
        bare = answer.predictions or tuple(document["outputs"].values())
        lines = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in bare)
        screen.result(document, _shown(answer, bar="█" if screen.out.encoding.startswith("utf") else "#"), bare=lines)


def snippet(
    ref: Ref,
    language: Annotated[str, typer.Option("--lang", "-l", help=", ".join(snippets.LANGUAGES))] = "curl",
) -> None:
    """Print code that asks a served model: it runs as it is, with your key in SLIPWAY_TOKEN."""
    with session() as (client, screen):
        if language not in snippets.LANGUAGES:
            raise usage(f"{language} is no language of ours.", f"It is one of {', '.join(snippets.LANGUAGES)}.")
        reference = refs.parse(ref)[1] if "@" in ref else None
        described = client.predict.describe(ref)
        screen.line(snippets.snippet(language, described, url=client.predict.url, reference=reference).rstrip("\n"))


def endpoint(  # noqa: PLR0917 - one parameter per option
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model.")],
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="Whether anybody may ask, without a key.")
    ] = None,
    rpm: Annotated[
        int | None, typer.Option(help="Requests a minute of each caller; -1: as their plan says.", min=-1)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that an answer may take; 0: as for all models.", min=0)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where a model answers and by which rules, or change these."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        rules: dict[str, Any] = {}
        if public is not None:
            rules["auth_required"] = not public
        if rpm is not None:
            rules["requests_per_minute"] = rpm if rpm >= 0 else None
        if timeout is not None:
            rules["timeout"] = timeout or None
        found = client.endpoints.change(name, **rules) if rules else client.endpoints.get(name)
        screen.result(found.raw, _rules(found), bare=found.url)


def _asked(client: Client, ref: str, source: str) -> Prediction:
    """What the model says to a file: arrays go as bytes, images as they are, JSON in the simple form."""
    suffix = Path(source).suffix.lower()
    if suffix in IMAGES:
        return client.predict.image(ref, source)
    if suffix in ARRAYS:
        np = _numpy(f"{source} holds arrays")
        try:
            held = np.load(source, allow_pickle=False)
        except ValueError as error:
            raise usage(f"{source} holds no arrays that can be read: {error}", "Write it with numpy.save.") from error
        return client.predict(ref, dict(held) if suffix == ".npz" else held)
    if source != "-" and suffix != ".json":
        raise usage(
            f"{source} is no input by its name.", f"It ends in .json, {', '.join((*ARRAYS, *IMAGES))}, or is -."
        )
    try:
        said = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8"))
    except ValueError as error:
        raise usage(
            f"The input is no JSON: {error}.", 'Write {"inputs": {"NAME": [[…]]}}, or only the array.'
        ) from error
    return client.predict.simple(ref, said)


def _write(output: Path, answer: Prediction) -> None:
    np = _numpy(f"{output} is to hold arrays")
    with output.open("wb") as file:
        np.savez(file, **{name: np.asarray(value) for name, value in answer.outputs.items()})


def _numpy(why: str) -> Any:
    np = tensors.numpy()
    if np is None:
        raise usage(f"{why}, and numpy is not installed.", "pip install numpy")
    return np


def _lists(value: Any) -> Any:
    return value if isinstance(value, list) else value.tolist()


def _shown(answer: Prediction, *, bar: str) -> RenderableType:
    told = f"{answer.model}@{answer.version}, {answer.seconds * 1000:.0f} ms"
    last = text(told if answer.receipt is None else f"{told}, receipt {answer.receipt}", "dim")
    if not answer.predictions:
        made = table("output", "shape", "values")
        for name, value in answer.outputs.items():
            lists = _lists(value)
            made.add_row(text(name, "bold"), text(_sizes(lists)), text(_beginning(lists)))
        return Group(made, last)
    made = table("prediction", "confidence", right=("confidence",))
    made.add_column()
    for prediction, sure in _ranked(answer):
        share = f"{sure:.1%}" if isinstance(sure, float) else ""
        length = round(sure * BAR) if isinstance(sure, float) else 0
        made.add_row(text(_beginning(prediction), "bold"), share, Text(bar * length, style="cyan"))
    more = len(answer.predictions) - SHOWN
    return Group(made, *([text(f"… and {more} more rows: --json", "dim")] if more > 0 else []), last)


def _ranked(answer: Prediction) -> list[tuple[Any, Any]]:
    """The predictions with their confidence; of a single row the likeliest classes, where the model gives shares."""
    if len(answer.predictions) == 1 and answer.classes:
        for value in answer.outputs.values():
            row = value[0] if isinstance(value, list) and len(value) == 1 else None
            if isinstance(row, list) and len(row) == len(answer.classes) and _are_shares(row):
                return sorted(zip(answer.classes, row, strict=True), key=lambda one: -one[1])[:SHOWN]
    confidence = answer.confidence or (None,) * len(answer.predictions)
    return list(zip(answer.predictions, confidence, strict=False))[:SHOWN]


def _are_shares(row: list[Any]) -> bool:
    return all(isinstance(one, float) and 0 <= one <= 1 for one in row) and abs(sum(row) - 1) < 1e-3


def _sizes(value: Any) -> str:
    sizes = []
    while isinstance(value, list):
        sizes.append(str(len(value)))
        value = value[0] if value else None
    return "×".join(sizes)


def _beginning(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return said if len(said) <= 100 else f"{said[:99]}…"


def _rules(found: Endpoint) -> RenderableType:
    who = "whoever has the right" if found.auth_required else "anybody, without a key"
    often = (
        "as the caller's plan says" if found.requests_per_minute is None else f"{found.requests_per_minute} a minute"
    )
    lines = (("who", who), ("how often", often), ("how long", f"{found.timeout:g} s"), ("schema", found.schema_url))
    return Group(
        Text(plain(found.url), style="bold"),
        *(Text.assemble((f"  {name:<10}", "dim"), plain(said)) for name, said in lines),
    )
