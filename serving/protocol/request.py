"""What a request holds once it is understood, in whichever form it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving.protocol.refusals import BadRequest, Buffer, Kind, brief, listed
from serving.protocol.signature import Signature
from serving.protocol.tensors import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """An output to answer with: as bytes or in JSON, and as the best `classification` classes where that is not 0."""

    name: str
    binary: bool = False
    classification: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Arrays that fit the signature. `rows` is the size that the inputs with a free first axis share, if they share one."""

    kind: Kind
    id: str | None
    arrays: Mapping[str, Array]
    outputs: tuple[Wanted, ...]
    rows: int | None


def understood(
    signature: Signature, kind: Kind, said: Mapping[str, Any], arrays: Mapping[str, Array], outputs: tuple[Wanted, ...]
) -> Request:
    """The request, once every input that the model takes is there."""
    if len(arrays) != len(signature.inputs):
        missing = [one for one in signature.by_name if one not in arrays]
        raise BadRequest(
            "missing_input",
            f"The model also needs {listed(missing)}.",
            field=f"inputs.{missing[0]}",
            expected=list(signature.by_name),
            got=list(arrays),
        )
    identity = said.get("id")
    if identity is not None and type(identity) is not str:
        raise malformed("id", "a text", identity)
    sizes = {len(arrays[one.name]) for one in signature.inputs if one.batched}
    return Request(
        kind=kind, id=identity, arrays=arrays, outputs=outputs, rows=sizes.pop() if len(sizes) == 1 else None
    )


def parsed(text: Buffer) -> Any:
    """JSON, or the reason why it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest("malformed_json", f"The body is not JSON: {error}.") from error


def malformed(field: str, expected: str, got: object) -> BadRequest:
    """A member of the request that is of another kind than it must be."""
    return BadRequest(
        "invalid_field",
        f"{field} must be {expected}, not {brief(got)}.",
        field=field,
        expected=expected,
        got=brief(got),
    )


def unknown_input(signature: Signature, name: str) -> BadRequest:
    return BadRequest(
        "unknown_input",
        f"The model has no input {brief(name)}; it takes {listed(list(signature.by_name))}.",
        field=f"inputs.{brief(name)}",
        expected=list(signature.by_name),
        got=brief(name),
    )


def unknown_output(signature: Signature, name: str) -> BadRequest:
    return BadRequest(
        "unknown_output",
        f"The model has no output {brief(name)}; it gives {listed(signature.output_names)}.",
        field=f"outputs.{brief(name)}",
        expected=list(signature.output_names),
        got=brief(name),
    )


def distinct(names: Sequence[str], side: str) -> None:
    if len(set(names)) != len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise BadRequest(f"duplicate_{side}", f"{side.capitalize()} {twice} is there twice.", field=f"{side}s.{twice}")
