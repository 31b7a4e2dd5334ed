"""The door of the codec: bytes to arrays that fit a model's signature, and its outputs to bytes, in either form."""

from __future__ import annotations

from collections.abc import Mapping

from serving.protocol import oip, predict
from serving.protocol.answers import decision, label
from serving.protocol.compression import packed, unpacked
from serving.protocol.refusals import BadRequest, Buffer, Kind, Reply, refusal
from serving.protocol.request import Request, Wanted
from serving.protocol.signature import Signature
from serving.protocol.tensors import Array

__all__ = ["BadRequest", "Reply", "Request", "Wanted", "decision", "decode", "encode", "label", "refusal"]


def decode(signature: Signature, kind: Kind, headers: Mapping[str, str], body: Buffer, largest: int) -> Request:
    """What a request asks. Raises `BadRequest`, and nothing else, whatever the bytes are.

    `headers` have lower-case names. The arrays may lie over `body` itself, which must not change under them.
    """
    plain = unpacked(body, headers.get("content-encoding", ""), largest)
    return oip.decode(signature, headers, plain) if kind == "v2" else predict.decode(signature, headers, plain)


def encode(
    signature: Signature,
    request: Request,
    outputs: Mapping[str, Array],
    *,
    model: str,
    version: str,
    seconds: float,
    accept: str = "",
) -> Reply:
    """The answer in the form of the request, from the outputs it asked for and perhaps others.

    `seconds` is the time the model took and `accept` the request's Accept-Encoding.
    """
    if request.kind == "v2":
        reply = oip.encode(signature, request, outputs, model=model, version=version)
    else:
        reply = predict.encode(signature, request, outputs, model=model, version=version, seconds=seconds)
    return packed(reply, accept) if accept else reply
