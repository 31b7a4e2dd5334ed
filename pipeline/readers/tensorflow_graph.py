"""TensorFlow graphs: a walk over the protobuf that must know every field and every operator, function libraries too.

The operators come from a list taken from TensorFlow, without those that touch files, run Python or call out. Saving
and restoring is left to the functions that a SavedModel brings for its loader, and to nobody else.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cache

from pipeline.readers import keras_config, lists
from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.protobuf import Field, Seen, Walk, taken
from pipeline.readers.source import Source
from pipeline.readers.words import words

_KEPT = words(
    "op name input dtype tensor_shape dim size tensor_content string_val variant_val resource_handle_val signature metadata "
    "shape shard_id offset num_shards endianness slices"
)
_SAVERS = words(
    "SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename SaveSlices RestoreSlice Save Restore ShardedFilespec"
)
_SAVER_FUNCTION = re.compile(r"__inference__traced_(?:save|restore)_\d+")
_SAVER_NODE = re.compile(r"save(?:_\d+)?/")
_SAVER_INPUT = re.compile(r"\^?save(?:_\d+)?/")
_SAVER_PLACE = "saver_filename"
_SAVER_FEED = re.compile(r"\^?saver_filename(?::0)?")
_SAVER_TENSOR = re.compile(r"saver_filename|save(?:_\d+)?/")
_REACHING_OUT = re.compile(
    r"File|Python|PyFunc|PyCall|Record|Reader|ReadAll|Matching|Checkpoint|Rpc|RPC|Remote|Socket|Library|Debug|Dump|Print|"
    r"Summary|Save|Restore|Snapshot|Service|ImmutableConst|VocabRemapping|Proto|LoadAndRemap|Sql|Bigtable|Custom|Download"
)
_PATH = re.compile(r"[/~\\]|.*\.\.[/\\]|[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]*://", re.DOTALL)
_WIDTH = {
    1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 8: 8, 9: 8, 10: 1, 11: 1, 12: 1, 13: 4, 14: 2, 15: 2, 16: 2, 17: 2, 18: 16,
    19: 2, 22: 4, 23: 8, **dict.fromkeys(range(24, 36), 1),
}  # fmt: skip
TEXT_TENSOR = 7
_TABLE_FROM_FILE = words("InitializeTableFromTextFile InitializeTableFromTextFileV2")
_INITIALIZER = re.compile(r"__inference__initializer_\d+")
_TABLES = words("HashTable HashTableV2 MutableHashTable MutableHashTableV2")
_FLOW = _TABLES | words("ReadVariableOp AssignVariableOp")
_MADE_UP = 256 << 20
_MOST_NODES = 2_000_000


@cache
def schema() -> dict[str, dict[int, Field]]:
    messages: dict[str, dict[int, Field]] = {}
    for line in lists.read("tensorflow_schema"):
        owner, number, name, kind, many = line.split(" ")
        messages.setdefault(owner, {})[int(number)] = (name, kind, many == "many")
        if "." in kind:
            messages.setdefault(kind, {})
    return messages


def width_of(dtype: int) -> int | None:
    """Bytes of one element, where it has a fixed number."""
    return _WIDTH.get(dtype)


def elements_of(shape: Seen | None) -> int:
    sides = [dim.number("size") or 0 for dim in shape.children.get("dim", [])] if shape else []
    return math.prod(sides) if len(sides) < 255 and all(side >= 0 for side in sides) else -1


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A node that saves, restores, calls functions or holds a text; `texts` are its constants.

    It runs after those it `follows`.
    """

    at: int
    name: str
    op: str
    inputs: tuple[str, ...]
    follows: tuple[str, ...]
    calls: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(kw_only=True)
class Graphs:
    """What the walk gathers of all graphs and functions of one file."""

    source: Source
    path: str
    inspection: Inspection
    unlisted: dict[str, int] = field(default_factory=dict)
    functions: dict[str, list[_Node]] = field(default_factory=dict)
    nodes: list[_Node] = field(default_factory=list)
    calls: list[tuple[int, str]] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    tensors: list[tuple[int, str]] = field(default_factory=list)
    names: list[tuple[int, str]] = field(default_factory=list)
    assets: set[str] = field(default_factory=set)

    def walk(self, kind: str) -> Seen:
        walk = Walk(
            format="tensorflow",
            schema=schema(),
            keep=_KEPT,
            judge=self.judge,
            path=self.path,
            inspection=self.inspection,
        )
        return walk.message(self.source, 0, kind)

    def judge(  # noqa: C901 - one line for each kind of message
        self, kind: str, seen: Seen, at: int
    ) -> None:
        match kind:
            case "tensorflow.NodeDef":
                self.node(seen, at)
            case "tensorflow.NameAttrList":
                self.calls.append((at, seen.text("name")))
            case "tensorflow.TensorProto":
                self.tensor(seen, at)
            case "tensorflow.TensorInfo":
                self.tensors.append((at, seen.text("name")))
            case "tensorflow.AssetFileDef":
                self.assets |= {name.removesuffix(":0") for _, name in taken(self.tensors, at)}
            case "tensorflow.OpDef":
                self.names.append((at, seen.text("name")))
            case "tensorflow.SignatureDef":
                for where, name in taken(self.tensors, at):
                    if _SAVER_TENSOR.match(name):
                        self.inspection.malicious(
                            "tensorflow.saver",
                            self.path,
                            where,
                            "A signature lets its caller name files to be read or written.",
                        )
            case "tensorflow.FunctionDef":
                name = next((name for _, name in taken(self.names, at)), "")
                self.function(name, at)
            case "tensorflow.SavedUserObject" | "third_party.py.tf_keras.protobuf.SavedObject":
                self.metadata(seen)
            case _:
                pass

    def node(self, seen: Seen, at: int) -> None:
        operator, name = seen.text("op"), seen.text("name")
        calls = tuple(called for _, called in taken(self.calls, at))
        texts = tuple(text for _, text in taken(self.texts, at))
        if operator not in lists.read("tensorflow_ops"):
            self.unlisted.setdefault(operator, at)
        named = seen.texts.get("input", [])
        saving = _SAVER_NODE.match(name) or any(_SAVER_INPUT.match(one) for one in named) or name == _SAVER_PLACE
        if operator in _SAVERS | _FLOW or calls or texts or saving or operator not in lists.read("tensorflow_ops"):
            if len(self.nodes) >= _MOST_NODES:
                raise Malformed("limit.fields", "The graph has more nodes than any real one.", at)
            inputs = tuple(one for one in named if not one.startswith("^"))
            follows = tuple(one[1:] for one in named if one.startswith("^"))
            self.nodes.append(
                _Node(at=at, name=name, op=operator, inputs=inputs, follows=follows, calls=calls, texts=texts)
            )

    def function(self, name: str, at: int) -> None:
        if name in self.functions:
            raise Malformed("tensorflow.function", f"The function {name[:80]!r} is defined twice.", at)
        if name in lists.read("tensorflow_ops") or name in _SAVERS:
            raise Malformed("tensorflow.function", f"A function calls itself like the operator {name!r}.", at)
        inside = []
        while self.nodes and self.nodes[-1].at >= at:
            inside.append(self.nodes.pop())
        self.functions[name] = inside[::-1]

    def tensor(self, seen: Seen, at: int) -> None:
        dtype = seen.number("dtype") or 0
        elements = elements_of(seen.child("tensor_shape"))
        width = _WIDTH.get(dtype)
        stored = sum(length for _, length in seen.spans.get("tensor_content", []))
        if elements < 0 or "variant_val" in seen.counts or "resource_handle_val" in seen.counts:
            self.inspection.unknown("tensorflow.tensor", self.path, at, "A constant is no plain array.")
        elif stored and (width is None or stored != elements * width):
            self.inspection.unknown("tensorflow.tensor", self.path, at, "A constant is not as long as its shape says.")
        elif not stored and elements * (width or 16) > _MADE_UP:
            self.inspection.unknown(
                "tensorflow.bomb", self.path, at, f"A constant claims {elements:,} elements and stores hardly any."
            )
        for start, length in seen.spans.get("string_val", []):
            text = self.source.read(start, min(length, 300)).decode("latin-1")
            self.texts.append((at, text))

    def metadata(self, seen: Seen) -> None:
        """Keras leaves the configuration of every layer here, and Keras 2 builds the layers from it again."""
        for start, length in seen.spans.get("metadata", []):
            content = self.source.read(start, length)
            if content.strip():
                keras_config.check(keras_config.parse(content), self.path, self.inspection, described=True)

    def finish(self) -> None:
        if _TABLE_FROM_FILE & self.unlisted.keys() and self.reads_assets_only():
            for operator in _TABLE_FROM_FILE:
                self.unlisted.pop(operator, None)
        for operator, at in self.unlisted.items():
            if operator in self.functions or operator in _SAVERS:
                continue
            if _REACHING_OUT.search(operator):
                self.inspection.malicious(
                    "tensorflow.operator",
                    self.path,
                    at,
                    f"The operator {operator[:80]!r} reads, writes or runs something else.",
                )
            else:
                self.inspection.unknown(
                    "tensorflow.operator",
                    self.path,
                    at,
                    f"The operator {operator[:80]!r} is not one that only computes.",
                    "Export the model for inference, with TensorFlow's own operators only.",
                )
        savers = {name for name, inside in self.functions.items() if any(node.op in _SAVERS for node in inside)}
        for name, inside in self.functions.items():
            self.graph(inside, savers, name)
        self.graph(self.nodes, savers, None)
        for node in self.nodes:
            if node.name == _SAVER_PLACE and node.op != "Placeholder":
                self.saver(node, "The path of a file to be read or written is built in.")
        if any(node.op in _SAVERS for node in self.nodes):
            self.old_saver()

    def reads_assets_only(self) -> bool:
        """Whether tables are filled from the model's own assets, the way `tf.lookup.TextFileInitializer` is saved.

        The file's name then comes from a variable that only ever gets the path of an asset from the loader.
        """
        filling = {
            name for name, inside in self.functions.items() if any(node.op in _TABLE_FROM_FILE for node in inside)
        }
        plain = all(
            _INITIALIZER.fullmatch(name) and not any(node.texts for node in self.functions[name]) for name in filling
        )
        callers = [node for node in self.nodes if filling & {*node.calls, node.op}]
        inner = any(filling & {*node.calls, node.op} for inside in self.functions.values() for node in inside)
        main = {node.name: node for node in self.nodes}
        stored = {
            node.inputs[0]: node.inputs[1]
            for node in self.nodes
            if node.op == "AssignVariableOp" and len(node.inputs) == 2
        }

        def harmless(name: str) -> bool:
            source = main.get(name.removesuffix(":0"))
            if source is None or source.op in _TABLES:
                return source is not None or name.removesuffix(":0") in self.assets
            return source.op == "ReadVariableOp" and stored.get(source.inputs[0], "").removesuffix(":0") in self.assets

        at_top = any(node.op in _TABLE_FROM_FILE for node in self.nodes)
        return plain and not inner and not at_top and all(harmless(name) for node in callers for name in node.inputs)

    def saver(self, node: _Node, message: str) -> None:
        self.inspection.malicious("tensorflow.saver", self.path, node.at, message)

    def old_saver(self) -> None:
        """TensorFlow 1 saves in the main graph, under `save/`: nothing else may lead in there, or wait for it."""
        for node in self.nodes:
            if _SAVER_NODE.match(node.name) is None:
                if any(_SAVER_NODE.match(name) for name in (*node.inputs, *node.follows)):
                    self.saver(node, "The model depends on a file that is read or written.")
                continue
            if node.op.startswith("Assign"):
                continue
            leading = node.inputs[:3] if node.op in ("SaveV2", "SaveSlices", "Save") else node.inputs
            if not all(_SAVER_NODE.match(name) for name in leading):
                self.saver(node, "The model says itself which file is read or written.")

    def graph(self, nodes: list[_Node], savers: set[str], function: str | None) -> None:
        saving = function is not None and _SAVER_FUNCTION.fullmatch(function) is not None
        for node in nodes:
            called = {*node.calls, node.op} & savers
            ours = saving if function is not None else _SAVER_NODE.match(node.name) is not None
            if node.op in _SAVERS and not ours:
                self.saver(node, f"{node.op} reads or writes files while the model runs.")
            elif called and not (function is None and node.inputs and _SAVER_FEED.fullmatch(node.inputs[0])):
                self.saver(node, f"{min(called)[:80]!r} reads or writes files and is called by the model.")
            elif ours and any(_PATH.match(text) for text in node.texts):
                self.saver(node, "The path of a file to be read or written is built in.")
