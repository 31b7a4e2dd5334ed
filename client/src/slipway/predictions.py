"""Predictions: a served model asked, by the Open Inference Protocol with arrays, or in the simple form with JSON and images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from slipway import refs, tensors
from slipway.config import checked_url
from slipway.errors import InvalidRequest
from slipway.records import Json
from slipway.tensors import HEADER_LENGTH, Port
from slipway.transport import Wire, as_object

RECEIPT = "Slipway-Prediction"
IMAGES: Mapping[str, str] = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model answered. `receipt` is what feedback on it refers to, `seconds` how long the answer took to come.

    `outputs` by name: numpy arrays where numpy is there and bytes came, else nested lists. `predictions` (class names where
    they are known), `confidence` and `classes` are there in answers of the simple form.
    """

    outputs: Mapping[str, Any]
    model: str = ""
    version: str = ""
    receipt: str | None = None
    seconds: float = 0.0
    predictions: tuple[Any, ...] = ()
    confidence: tuple[Any, ...] | None = None
    classes: tuple[str, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a served version takes and gives, and a request that it would take, in both forms."""

    model: str
    version: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    examples: Json


class Predictions:
    """`client.predict(NAME, inputs)` asks a model; the serving process is found by itself."""

    def __init__(self, wire: Wire, serving: str | None) -> None:
        self._wire = wire
        self._serving = serving
        self._there: Wire | None = None
        self._ports: dict[str, tuple[Port, ...]] = {}

    def __call__(self, ref: str, inputs: Any) -> Prediction:
        """Ask the version that `NAME[@REF]` means, without REF what is live.

        `inputs` is an array of numpy, or nested lists, for the only input, an object of these by name, or the path of an
        image. An array without its batch axis is a batch of one. Raises InvalidRequest for what the model does not take.
        """
        if isinstance(inputs, str | Path):
            return self.image(ref, inputs)
        address = _address(ref)
        try:
            headers, body = tensors.encode(inputs, self._inputs(address))
            answer, seconds = self._post(f"{address}/infer", headers, body)
        except InvalidRequest:
            self._ports.pop(address, None)  # what is live may be another version by now
            raise
        said, outputs = tensors.decode(answer.content, answer.headers.get(HEADER_LENGTH))
        return Prediction(
            outputs=outputs,
            model=str(said.get("model_name") or ""),
            version=str(said.get("model_version") or ""),
            receipt=answer.headers.get(RECEIPT),
            seconds=seconds,
            raw=said,
        )

    def simple(self, ref: str, inputs: Any) -> Prediction:
        """Ask with named inputs as JSON, `{name: nested lists}`, or those of the only input; classes come by name."""
        return self._simple(ref, json=inputs if _named(inputs) else {"inputs": inputs})

    def image(self, ref: str, path: str | Path) -> Prediction:
        """Ask about an image (PNG, JPEG, WebP): it is decoded, resized and normalised where the model is."""
        file = Path(path)
        kind = IMAGES.get(file.suffix.lower())
        if kind is None:
            known = ", ".join(sorted(IMAGES))
            raise InvalidRequest("not_an_image", f"{file.name} is no image by its name.", hint=f"It ends in {known}.")
        return self._simple(ref, content=file.read_bytes(), headers={"Content-Type": kind})

    def describe(self, ref: str) -> Described:
        """Return what the version that `NAME[@REF]` means takes and gives."""
        address = _address(ref)
        metadata, schema = (self._server().json("GET", f"{address}{part}") for part in ("", "/schema"))
        return Described(
            model=str(schema["model"]),
            version=str(schema["version"]),
            inputs=tuple(Port.read(one) for one in metadata["inputs"]),
            outputs=tuple(Port.read(one) for one in metadata["outputs"]),
            examples=schema["examples"],
        )

    @property
    def url(self) -> str:
        """Where predictions are asked for: `SLIPWAY_SERVING_URL`, else what the server tells."""
        return self._server().url

    def close(self) -> None:
        """Close every connection to the serving process."""
        if self._there is not None:
            self._there.close()

    def _server(self) -> Wire:
        if self._there is None:
            url = self._serving or str(self._wire.json("GET", "/api/v1/me")["serving_url"])
            self._there = self._wire.to(checked_url(url))
        self._there.token = self._wire.token  # somebody may have signed in since
        return self._there

    def _inputs(self, address: str) -> tuple[Port, ...]:
        if address not in self._ports:
            said = self._server().json("GET", address)
            self._ports[address] = tuple(Port.read(one) for one in said["inputs"])
        return self._ports[address]

    def _simple(self, ref: str, **parts: Any) -> Prediction:
        answer, seconds = self._post(f"{_address(ref, '/api/v1/models')}/predict", **parts)
        said = as_object(answer)
        confidence = said.get("confidence")
        return Prediction(
            outputs=said.get("outputs") or {},
            model=str(said.get("model") or ""),
            version=str(said.get("version") or ""),
            receipt=answer.headers.get(RECEIPT),
            seconds=seconds,
            predictions=tuple(said.get("predictions") or ()),
            confidence=None if confidence is None else tuple(confidence),
            classes=tuple(said.get("classes") or ()),
            raw=said,
        )

    def _post(
        self, path: str, headers: Mapping[str, str] | None = None, content: bytes | None = None, **parts: Any
    ) -> tuple[httpx2.Response, float]:
        """Ask, again where the model is not ready yet: an answer changes nothing, so a second one does no harm."""
        begun = time.monotonic()
        server = self._server()
        ask = partial(server.once, "POST", path, headers=headers, content=content, **parts)
        return server.persist(ask), time.monotonic() - begun


def _address(ref: str, below: str = "/v2/models") -> str:
    """Where a model is served: what is live where no version is named."""
    name, version = refs.parse(ref)
    path = f"{below}/{'/'.join(quote(part, safe='') for part in name.split('/'))}"
    return f"{path}/versions/{quote(version, safe='')}" if "@" in ref else path


def _named(inputs: Any) -> bool:
    return isinstance(inputs, Mapping) and "inputs" in inputs
