"""skops files: a zip archive with a tree of nodes as JSON, and the arrays that the nodes name.

Every node names a class that its loader looks up, so the names are held against the same lists as those of pickles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.readers import strict_json
from pipeline.readers.allowed import frameworks
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.gadgets import is_gadget
from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.symbols import is_special
from pipeline.readers.words import words

_SCHEMA = "schema.json"
_MEMBER = re.compile(r"[\w-]{1,60}\.(?:npy|npz|bin)")
_LOADERS = words(
    "BytearrayNode BytesNode DTypeNode DefaultDictNode DictNode FunctionNode JsonNode ListNode LossNode MaskedArrayNode "
    "NdArrayNode ObjectNode RandomGeneratorNode RandomStateNode SetNode SliceNode SparseMatrixNode TreeNode TupleNode "
    "TypeNode"
)
_NAMED_ONLY = words("FunctionNode TypeNode")
_DESCRIBING = words("BytearrayNode BytesNode JsonNode")  # `builtins.str` and the like: said, never looked up
_ARRAY_KINDS = words("numpy scipy json")


def examine(archive: Archive, inspection: Inspection) -> None:
    path = archive.path_of(_SCHEMA)
    source = archive.open(_SCHEMA)
    if source.size > inspection.limits.document:
        raise Malformed("skops.schema", "The schema is longer than any real one.")
    named: set[str] = set()

    def work() -> None:
        schema = strict_json.parse(source.read(0, source.size))
        if not isinstance(schema, dict) or "_skops_version" not in schema or "__loader__" not in schema:
            raise Malformed("skops.schema", "The schema is no tree of nodes.")
        for node in _nodes(schema):
            _check_node(node, path, inspection)
            if "file" in node:
                named.add(str(node["file"]))
            inspection.tick()
        inspection.credit("skops", source.size)

    inspection.guarded(path, work)
    for name in sorted(set(archive.members) - {_SCHEMA}):
        if name not in named or _MEMBER.fullmatch(name) is None:
            inspection.unknown("skops.orphan", archive.path_of(name), None, f"No node names the member {name[:80]!r}.")
        elif name.endswith(".bin"):
            inspection.credit("skops", archive.members[name].size)
        else:
            inspection.examine(archive.open(name), archive.path_of(name))
    for name in sorted(named - set(archive.members)):
        inspection.unknown("skops.missing", path, None, f"A node names {name[:80]!r}, which is not there.")


def _nodes(schema: object) -> Iterator[Mapping[str, Any]]:
    """Everything that a loader could take for a node."""
    queue = [schema]
    while queue:
        one = queue.pop()
        if isinstance(one, dict):
            if not {"__loader__", "__class__", "__module__"}.isdisjoint(one):
                yield one
            queue.extend(one.values())
        elif isinstance(one, list):
            queue.extend(one)


def _check_node(node: Mapping[str, Any], path: str, inspection: Inspection) -> None:
    loader, module, name = node.get("__loader__"), node.get("__module__"), node.get("__class__")
    if not isinstance(loader, str) or not isinstance(module, str) or not isinstance(name, str):
        raise Malformed("skops.node", "A node does not say what it is.")
    if loader not in _LOADERS:
        inspection.unknown("skops.loader", path, None, f"Nobody has vetted nodes of the kind {loader[:60]!r}.")
    _check_name(loader, module, name, path, inspection)
    if node.get("type", "numpy") not in _ARRAY_KINDS:
        inspection.unknown("skops.array", path, None, f"An array is stored as {str(node['type'])[:60]!r}.")
    content = node.get("content")
    state = content.get("content") if isinstance(content, dict) else None
    for key in [*(content if isinstance(content, dict) else ()), *(state if isinstance(state, dict) else ())]:
        if is_special(key) and key not in ("__class__", "__module__", "__loader__", "__id__", "__reduce__"):
            inspection.malicious(
                "skops.special_attribute", path, None, f"A node sets {key[:60]!r} of a {module}.{name}."
            )


def _check_name(loader: str, module: str, name: str, path: str, inspection: Inspection) -> None:
    allowed = frameworks()
    pair = (module, name)
    known = allowed.knows(pair) if loader in _NAMED_ONLY else pair in allowed.classes or pair in allowed.calls
    if loader == "FunctionNode":
        known = pair in allowed.names
    elif loader in _DESCRIBING or module == "builtins":
        known = known or allowed.knows(pair)
    elif module.split(".", 1)[0] in ("numpy", "scipy") and loader != "ObjectNode":
        known = known or pair in allowed.names
    if known and pair not in allowed.tools:
        return
    if is_gadget(module, name):
        inspection.malicious(
            "skops.gadget", path, None, f"A node names {module}.{name}, which runs code or reaches out."
        )
    else:
        inspection.unknown("skops.unknown_type", path, None, f"A node names {module}.{name}, which nobody has vetted.")


def _recognises(names: frozenset[str]) -> bool:
    return _SCHEMA in names and not any("/" in name for name in names)


LAYOUTS = (Layout(name="skops", recognises=_recognises, examine=examine),)
