"""TensorFlow models: SavedModel folders in an archive, and graphs frozen into one `.pb` file."""

from __future__ import annotations

import re
from functools import partial

from pipeline.readers import tensorflow_bundle
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Cursor, Source, Truncated, of_bytes
from pipeline.readers.tensorflow_graph import Graphs

_MODEL = re.compile(r"((?:[^/]+/)*)saved_model\.pb(?:txt)?")
_SHARD = re.compile(r"variables/variables\.data-\d{5}-of-\d{5}")
_INDEX = "variables/variables.index"
_MESSAGES = {
    "fingerprint.pb": "tensorflow.FingerprintDef",
    "keras_metadata.pb": "third_party.py.tf_keras.protobuf.SavedMetadata",
}
_SAVED_MODEL = re.compile(rb"\x08\x01\x12[\x80-\xff]{0,4}[\x00-\x7f][\x0a\x12]")
_WORD = re.compile(rb"[A-Za-z0-9_.][\w.\\/>-]*")


def examine(source: Source, path: str, inspection: Inspection) -> None:
    """A file on its own: a SavedModel's message or a frozen graph."""
    _graph(source, path, inspection, "tensorflow.SavedModel" if _is_saved_model(source) else "tensorflow.GraphDef")


def _graph(source: Source, path: str, inspection: Inspection, kind: str) -> None:
    graphs = Graphs(source=source, path=path, inspection=inspection)
    root = graphs.walk(kind)
    if kind == "tensorflow.GraphDef" and "node" not in root.counts:
        raise Malformed("tensorflow.structure", "The graph has no node.", 0)
    graphs.finish()
    inspection.credit("tensorflow", source.size)


def examine_archive(archive: Archive, inspection: Inspection) -> None:
    """Every folder with a SavedModel, and whatever else is packed beside it."""
    roots = sorted({match.group(1) for match in map(_MODEL.fullmatch, archive.members) if match})
    left = {name for name, member in archive.members.items() if not name.endswith("/") or member.size}
    for root in roots:
        mine = {name for name in left if name.startswith(root) and not _is_deeper(name, root, roots)}
        left -= _folder(archive, inspection, root, mine)
    for name in sorted(left):
        inspection.examine(archive.open(name), archive.path_of(name))


def _is_deeper(name: str, root: str, roots: list[str]) -> bool:
    return any(other != root and other.startswith(root) and name.startswith(other) for other in roots)


def _folder(archive: Archive, inspection: Inspection, root: str, names: set[str]) -> set[str]:
    """One SavedModel; returns the members that belong to it."""
    done: set[str] = set()
    for name in sorted(names):
        path, source = archive.path_of(name), archive.open(name)
        match name.removeprefix(root):
            case "saved_model.pb":
                inspection.guarded(path, partial(_graph, source, path, inspection, "tensorflow.SavedModel"))
            case "saved_model.pbtxt":
                inspection.unknown("tensorflow.text", path, None, "A SavedModel in text form: export it as `.pb`.")
            case "fingerprint.pb" | "keras_metadata.pb" as kind:
                inspection.guarded(path, partial(_message, source, path, inspection, _MESSAGES[kind]))
            case member if member.startswith("variables/"):
                if member != _INDEX and not _SHARD.fullmatch(member):
                    inspection.unknown("tensorflow.member", path, None, f"TensorFlow writes no file {member[:80]!r}.")
            case member if member.startswith(("assets/", "assets.extra/")):
                inspection.examine(source, path)
            case _:
                continue
        done.add(name)
    shards = {name: archive.open(name) for name in names if _SHARD.fullmatch(name.removeprefix(root))}
    index = root + _INDEX
    if index in names:
        where = archive.path_of(index)
        prefix = index.removesuffix(".index")
        work = partial(tensorflow_bundle.examine, archive.open(index), shards, prefix, where, inspection)
        inspection.guarded(where, work)
    elif shards:
        inspection.unknown("tensorflow.checkpoint", archive.path, None, "Variables without an index.")
    return done


def _message(source: Source, path: str, inspection: Inspection, kind: str) -> None:
    Graphs(source=source, path=path, inspection=inspection).walk(kind)
    inspection.credit("tensorflow", source.size)


def _is_saved_model(source: Source) -> bool:
    return _SAVED_MODEL.match(source.head(16)) is not None


def _is_archive(names: frozenset[str]) -> bool:
    return any(map(_MODEL.fullmatch, names))


def _recognises(glimpse: Glimpse) -> bool:
    if _SAVED_MODEL.match(glimpse.head):
        return True
    cursor = Cursor(of_bytes(glimpse.head))
    try:  # a graph begins with a node, which begins with its name and its operator
        if cursor.byte() != 0x0A:
            return False
        while cursor.byte() >= 0x80:
            pass
        for tag in (0x0A, 0x12):
            if cursor.byte() != tag or _WORD.fullmatch(cursor.take(cursor.byte())) is None:
                return False
    except Truncated:
        return False
    return True


READER = Reader(name="tensorflow", recognises=_recognises, examine=examine, rank=1)
LAYOUTS = (Layout(name="tensorflow", recognises=_is_archive, examine=examine_archive),)
