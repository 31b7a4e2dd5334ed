"""Keras models: the `.keras` archive, and configurations on their own as `to_json` writes them."""

from __future__ import annotations

import re
from functools import partial

from pipeline.readers import hdf5, keras_config, text
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Source

_WEIGHTS = re.compile(r"model(?:_\d{5})?\.weights\.h5")
_HIDDEN = re.compile(rb"\\u00[2-7]")  # plain letters written as escapes
_NAMES_CLASS = re.compile(rb'"class_name"\s*:|\\u00[2-7]')
_METADATA = {"keras_version", "date_saved"}
_VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+-]{0,20}")


def examine_archive(archive: Archive, inspection: Inspection) -> None:
    for name, member in archive.members.items():
        path = archive.path_of(name)
        if name == "config.json":
            inspection.guarded(path, partial(_configuration, archive.open(name), path, inspection))
        elif name == "metadata.json":
            inspection.guarded(path, partial(_metadata, archive.open(name), inspection))
        elif _WEIGHTS.fullmatch(name):
            inspection.guarded(path, partial(_weights, archive.open(name), path, inspection))
        elif name in ("model.weights.json", "model.weights.npz") or name.startswith("assets/"):
            if not name.endswith("/") or member.size:
                inspection.examine(archive.open(name), path)
        else:
            inspection.unknown("keras.member", path, None, f"Keras writes no member {name[:100]!r}.")


def _weights(source: Source, path: str, inspection: Inspection) -> None:
    if source.head(len(hdf5.MAGIC)) != hdf5.MAGIC:
        raise Malformed("keras.weights", "The weights are no HDF5 file.", 0)
    hdf5.examine(source, path, inspection)


def examine(source: Source, path: str, inspection: Inspection) -> None:
    """A configuration as `Model.to_json` writes it; other JSON that mentions classes is text like any other."""
    if _is_configuration(source, inspection):
        _configuration(source, path, inspection)
    else:
        text.examine(source, path, inspection)


def _is_configuration(source: Source, inspection: Inspection) -> bool:
    """What may be one is parsed to see; what names a class and is not strict JSON, nobody should read leniently."""
    if source.size > inspection.limits.text:
        return False
    content = source.read(0, source.size)
    if b"class_name" not in content and not _HIDDEN.search(content):
        return False
    try:
        document = keras_config.parse(content)
    except Malformed:
        if _NAMES_CLASS.search(content):
            raise
        return False
    return isinstance(document, dict) and {"class_name", "config"} <= document.keys()


def _configuration(source: Source, path: str, inspection: Inspection) -> None:
    document = keras_config.parse(_document(source, inspection))
    if not isinstance(document, dict) or "class_name" not in document:
        raise Malformed("keras.config", "The configuration is that of no model.", 0)
    text.look_for_secrets(source, path, inspection)
    keras_config.check(document, path, inspection)
    inspection.credit("keras", source.size)


def _metadata(source: Source, inspection: Inspection) -> None:
    document = keras_config.parse(_document(source, inspection))
    if (
        not isinstance(document, dict)
        or not set(document) <= _METADATA
        or not all(isinstance(value, str) and len(value) < 100 for value in document.values())
        or not _VERSION.fullmatch(document.get("keras_version", "0.0.0"))
    ):
        raise Malformed("keras.metadata", "The metadata are not what Keras writes.", 0)
    inspection.credit("keras", source.size)


def _document(source: Source, inspection: Inspection) -> bytes:
    if source.size > inspection.limits.text:
        raise Malformed("text.oversized", f"{source.size:,} bytes are more than any configuration needs.", 0)
    return source.read(0, source.size)


def _is_archive(names: frozenset[str]) -> bool:
    return "config.json" in names and ("metadata.json" in names or any(map(_WEIGHTS.fullmatch, names)))


def _recognises(glimpse: Glimpse) -> bool:
    """Text that begins like a JSON object. Where its class is named, is known only after reading it all."""
    return glimpse.head.lstrip()[:1] == b"{" and text.READER.recognises(glimpse)


READER = Reader(name="keras", recognises=_recognises, examine=examine, rank=8)
LAYOUTS = (Layout(name="keras", recognises=_is_archive, examine=examine_archive),)
