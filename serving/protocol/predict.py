"""The simple form: named inputs in JSON, a picture or a form with pictures; predictions and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.protocol import images, tensors
from serving.protocol.answers import answered
from serving.protocol.refusals import BadRequest, Buffer, Reply, brief, listed
from serving.protocol.request import (
    Request,
    Wanted,
    distinct,
    malformed,
    parsed,
    understood,
    unknown_input,
    unknown_output,
)
from serving.protocol.signature import Image, Port, Signature
from serving.protocol.tensors import Array

_JSON = ("", "application/json", "text/json", "text/plain", "application/x-www-form-urlencoded")
"""What clients say of a JSON body: nothing, the truth, or whatever their default is (curl's is the last)."""

_FORM = "multipart/form-data"
_IMAGE, _INPUTS = "image", "inputs"
_MEMBERS = frozenset({_INPUTS, "outputs", "id"})
_TENSOR = frozenset({"data", "shape"})
_FILES = ("file", "image")
_MOST_FILES = 1000


def decode(signature: Signature, headers: Mapping[str, str], body: Buffer) -> Request:
    """A request in JSON, or of pictures where the model takes some."""
    said = headers.get("content-type", "")
    media = said.partition(";")[0].strip().lower()
    if media in _JSON or media.endswith("+json"):
        return _from_json(signature, parsed(body))
    if signature.image is not None and media in images.MEDIA:
        return _from_files(signature, signature.image, [body])
    if signature.image is not None and media == _FORM:
        return _from_files(signature, signature.image, _form(said, body))
    takes = ["application/json", *((*images.MEDIA, _FORM) if signature.image else ())]
    raise BadRequest(
        "unsupported_media_type",
        f"This model takes {listed(takes)}, not {brief(said)}.",
        status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        field="Content-Type",
        expected=takes,
        got=brief(said),
    )


def encode(
    signature: Signature,
    request: Request,
    outputs: Mapping[str, Array],
    *,
    model: str,
    version: str,
    seconds: float,
) -> Reply:
    """The answer in JSON. NaN and infinities are null."""
    said = answered(signature, request, outputs)
    told = {
        "model": model,
        "version": version,
        "predictions": _json(said.predictions),
        "confidence": None if said.confidence is None else _json(said.confidence()),
        "classes": signature.classes or None,
        "outputs": {one.name: _json(outputs[one.name]) for one in request.outputs},
        "processing_time": round(seconds, 6),
    }
    if request.id is not None:
        told["id"] = request.id
    body = orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(headers={"content-type": "application/json"}, body=body)


def _from_json(signature: Signature, said: Any) -> Request:
    members: Mapping[str, Any] = {}
    if type(said) is dict and _INPUTS in said:
        unknown = said.keys() - _MEMBERS
        if unknown:
            raise malformed(
                "The request", f"an object of {listed(sorted(_MEMBERS))}", {min(unknown): said[min(unknown)]}
            )
        members, given = said, said[_INPUTS]
    else:
        given = said
    arrays = {port.name: _array(signature, port, value) for port, value in _named(signature, given)}
    return understood(signature, "predict", members, arrays, _outputs(signature, members.get("outputs")))


def _named(signature: Signature, given: Any) -> list[tuple[Port, Any]]:
    """Each value beside the input that it is for. A value without a name is that of the only input."""
    ports = signature.by_name
    if type(given) is not dict or (given.keys() <= _TENSOR and "data" in given and not given.keys() & ports.keys()):
        if len(ports) != 1:
            raise BadRequest(
                "missing_input",
                f"The model has {len(ports)} inputs, so name them: {listed(list(ports))}.",
                field="inputs",
                expected=list(ports),
                got=brief(given),
            )
        return [(signature.inputs[0], given)]
    image = signature.image
    found: list[tuple[Port, Any]] = []
    for name, value in given.items():
        port = ports.get(image.input if image and name == _IMAGE and name not in ports else name)
        if port is None:
            raise unknown_input(signature, name)
        found.append((port, value))
    distinct([port.name for port, _ in found], "input")
    return found


def _array(signature: Signature, port: Port, value: Any) -> Array:
    """A value as an array: nested lists, `{"data", "shape"}`, or pictures as texts. A missing batch axis is added."""
    image = signature.image
    if image is not None and image.input == port.name and (texts := _texts(value)):
        files = [images.from_text(f"inputs.{port.name}", one) for one in texts]
        return _shaped(port, images.prepared(image, port, files))
    shape: Any = None
    if type(value) is dict:
        if "data" not in value or value.keys() - _TENSOR:
            raise malformed(f"inputs.{port.name}", "a list, or an object of data and shape", value)
        value, shape = value["data"], value.get("shape")
    values, nesting = tensors.flatten(port, value)
    if shape is not None:
        if type(shape) is not list or not set(map(type, shape)) <= {int}:
            raise malformed(f"inputs.{port.name}.shape", "a list of sizes", shape)
        if len(nesting) > 1 and list(nesting) != shape:
            raise malformed(f"inputs.{port.name}.shape", f"that of its data, {list(nesting)}", shape)
        nesting = tuple(shape)
    return tensors.from_values(port, values, _fitting(port, nesting))


def _fitting(port: Port, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as the model takes it: with the batch axis that it lacks, or as a column where each row is one value."""
    wanted = port.shape
    candidates = [shape, (1, *shape), (*shape, 1)]
    if wanted is not None and not shape:
        candidates.append((1,) * len(wanted))
    fitting = next((one for one in candidates if tensors.fits(wanted, one)), None)
    if fitting is None:
        raise tensors.wrong_shape(port, shape)
    return fitting


def _texts(value: Any) -> list[str]:
    """The texts that stand for pictures, none where these are numbers."""
    if type(value) is str:
        return [value]
    return value if type(value) is list and value and set(map(type, value)) == {str} else []


def _from_files(signature: Signature, image: Image, files: list[Buffer]) -> Request:
    port = signature.by_name[image.input]
    arrays = {port.name: _shaped(port, images.prepared(image, port, files))}
    return understood(signature, "predict", {}, arrays, _outputs(signature, None))


def _shaped(port: Port, array: Array) -> Array:
    if not tensors.fits(port.shape, array.shape):
        raise tensors.wrong_shape(port, array.shape)
    return array


def _outputs(signature: Signature, asked: Any) -> tuple[Wanted, ...]:
    if asked is None:
        return tuple([Wanted(name=one) for one in signature.output_names])
    if type(asked) is not list or not set(map(type, asked)) <= {str}:
        raise malformed("outputs", "a list of names", asked)
    for one in asked:
        if one not in signature.output_names:
            raise unknown_output(signature, one)
    distinct(asked, "output")
    return tuple(Wanted(name=one) for one in asked)


def _json(value: Any) -> Any:
    """What orjson can write: texts and single values of numpy as Python's own, arrays in one piece."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "S":
        value = np.char.decode(value, "utf-8", "replace")
    return value.tolist() if value.dtype.kind in "OU" or not value.ndim else np.ascontiguousarray(value)


def _form(content_type: str, body: Buffer) -> list[Buffer]:
    """The files in the form's fields `file` or `image`."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _bad_form("its boundary is missing from the Content-Type")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError as error:
        raise _bad_form(str(error)) from error
    if not form.ended:
        raise _bad_form("it ends too early")
    if not form.files:
        raise BadRequest("missing_file", "The form has no file; send the picture in the field file.", field="file")
    return form.files


def _bad_form(why: str) -> BadRequest:
    return BadRequest("malformed_multipart", f"The body is not multipart/form-data: {why}.", field="Content-Type")


class _Form:
    """What the parser calls while it reads a form."""

    def __init__(self) -> None:
        self.files: list[Buffer] = []
        self.ended = False
        self._label = self._value = b""
        self._disposition = b""
        self._parts: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._done,
        }

    def _begin(self) -> None:
        self._disposition, self._parts = b"", []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._label += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._label.lower() == b"content-disposition":
            self._disposition = self._value
        self._label = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._parts.append(data[start:end])

    def _end(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode("utf-8", "replace")
        if name not in _FILES:
            raise malformed("The form", f"of fields {listed(_FILES)}", name)
        if len(self.files) == _MOST_FILES:
            raise malformed("The form", f"of at most {_MOST_FILES} files", f"{_MOST_FILES + 1} files")
        self.files.append(b"".join(self._parts))

    def _done(self) -> None:
        self.ended = True
