"""Write down the messages of TensorFlow's model files: `python tensorflow_schema.py > tensorflow_schema.txt`.

Run where the release of TensorFlow to be read is installed. One line is `message number name kind one|many`.
"""

from __future__ import annotations

import importlib
from typing import Any

_ROOTS = (
    "tensorflow.core.protobuf.saved_model_pb2:SavedModel",
    "tensorflow.core.framework.graph_pb2:GraphDef",
    "tensorflow.core.protobuf.fingerprint_pb2:FingerprintDef",
    "tensorflow.core.protobuf.tensor_bundle_pb2:BundleHeaderProto",
    "tensorflow.core.protobuf.tensor_bundle_pb2:BundleEntryProto",
    "tf_keras.protobuf.saved_metadata_pb2:SavedMetadata",
)
_NUMBERS = {1: "double", 2: "float", 6: "double", 7: "float", 9: "text", 12: "bytes", 15: "float", 16: "double"}


def describe(descriptor: Any, lines: set[str]) -> None:
    for one in descriptor.fields:
        kind = one.message_type.full_name if one.message_type else _NUMBERS.get(one.type, "int")
        repeated = getattr(one, "is_repeated", None)
        many = one.label == one.LABEL_REPEATED if repeated is None else repeated
        line = f"{descriptor.full_name} {one.number} {one.name} {kind} {'many' if many else 'one'}"
        if line not in lines:
            lines.add(line)
            if one.message_type:
                describe(one.message_type, lines)


def main() -> None:
    lines: set[str] = set()
    for root in _ROOTS:
        module, name = root.split(":")
        describe(getattr(importlib.import_module(module), name).DESCRIPTOR, lines)
    version: Any = importlib.import_module("tensorflow").__version__
    print(f"# Written by benchmarks/lists/tensorflow_schema.py from tensorflow {version}.")
    print(*sorted(lines), sep="\n")


if __name__ == "__main__":
    main()
