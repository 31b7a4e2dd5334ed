"""Pictures out of a request, decoded with Pillow and made into the input that `config["image"]` describes."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from serving.protocol.refusals import BadRequest, Buffer, brief
from serving.protocol.signature import Image, Port
from serving.protocol.tensors import NUMPY, Array

MEDIA = ("image/png", "image/jpeg", "image/webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_LARGEST = 50_000_000
"""Pixels of one picture, before it is decoded: a bomb says its size in its first bytes."""

_TOGETHER = 1 << 25
"""Pixels of all rows together that are made of the pictures of one request."""


def from_text(field: str, text: str) -> bytes:
    """The file that base64 or a `data:` URL holds."""
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(
            "unreadable_image",
            f"{field} must be a picture in base64 or a data: URL: {error}.",
            field=field,
            expected="base64",
            got=brief(text),
        ) from error


def prepared(image: Image, port: Port, files: Sequence[Buffer]) -> Array:
    """The pictures as one array, a row each, in the model's layout and datatype."""
    if len(files) * image.height * image.width > _TOGETHER:
        raise _too_large(port, f"{_TOGETHER // (image.height * image.width)} pictures", f"{len(files)} pictures")
    depth = len(image.mean)
    scaled = np.empty((len(files), image.height, image.width, depth), np.float32)
    deviation = np.array(image.std, np.float32)
    factor, offset = image.scale / deviation, np.array(image.mean, np.float32) / deviation
    for row, file in zip(scaled, files, strict=True):
        pixels = _pixels(image, port, file).reshape(image.height, image.width, depth)
        np.multiply(pixels[..., ::-1] if image.mode == "BGR" else pixels, factor, out=row)
        np.subtract(row, offset, out=row)
    dtype = NUMPY[port.datatype]
    if dtype.kind == "u":
        scaled = np.rint(scaled).clip(0, 255)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2) if image.layout == "NCHW" else scaled, dtype)


def _pixels(image: Image, port: Port, file: Buffer) -> Array:
    """The picture upright, in the model's channels and size."""
    try:
        with Pillow.open(io.BytesIO(file), formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > _LARGEST:
                raise _too_large(port, f"{_LARGEST} pixels", f"{width} × {height} pixels")
            upright = ImageOps.exif_transpose(opened).convert("L" if image.mode == "L" else "RGB")
            return np.asarray(_resized(image, upright))
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise _too_large(port, f"{_LARGEST} pixels", "more") from error
    except BadRequest:
        raise
    except Exception as error:  # a damaged file makes decoders raise whatever comes to their mind
        raise BadRequest(
            "unreadable_image",
            f"The picture for {port.name} cannot be read: {brief(str(error))}. Send a whole PNG, JPEG or WebP file.",
            field=f"inputs.{port.name}",
            expected="PNG, JPEG or WebP",
            got=f"{len(file)} bytes that begin with {bytes(file[:8]).hex(' ')}",
        ) from error


def _resized(image: Image, picture: Any) -> Any:
    """Cut before it is scaled, so that nothing grows larger than the model's input."""
    wide, high = picture.size
    sampling = Pillow.Resampling[image.interpolation.upper()]
    if image.resize == "pad":
        factor = min(image.width / wide, image.height / high)
        inner = max(1, round(wide * factor)), max(1, round(high * factor))
        canvas = Pillow.new(picture.mode, (image.width, image.height), (image.fill,) * len(picture.getbands()))
        canvas.paste(picture.resize(inner, sampling), ((image.width - inner[0]) // 2, (image.height - inner[1]) // 2))
        return canvas
    if image.resize == "stretch":
        return picture.resize((image.width, image.height), sampling)
    share = image.crop * min(wide / image.width, high / image.height)
    across, down = share * image.width, share * image.height
    left, top = (wide - across) / 2, (high - down) / 2
    return picture.resize((image.width, image.height), sampling, box=(left, top, left + across, top + down))


def _too_large(port: Port, expected: str, got: str) -> BadRequest:
    return BadRequest(
        "image_too_large",
        f"{port.name} takes at most {expected} at once, not {got}; send fewer or smaller ones.",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        field=f"inputs.{port.name}",
        expected=f"at most {expected}",
        got=got,
    )
