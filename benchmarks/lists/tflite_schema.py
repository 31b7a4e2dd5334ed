"""Write down the tables of TensorFlow Lite's files: `python tflite_schema.py > tflite_schema.txt`.

Read from the accessors that flatc generated for TensorFlow, without importing them. Lines are `table NAME SLOT FIELD KIND
ARGUMENT`, `union NAME VALUE TABLE` and `operator VALUE NAME`; the argument is a width in bytes or a table.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

_CLASS = re.compile(r"^class (\w+)\(object\):\n(.*?)(?=^class |^def |\Z)", re.MULTILINE | re.DOTALL)
_METHOD = re.compile(r"    def (\w+)\(self(, j)?\):\n(.*?)(?=\n\n|\Z)", re.DOTALL)
_CONSTANT = re.compile(r"^    (\w+) = (\d+)$", re.MULTILINE)
_WIDTH = {"Bool": 1, "Int8": 1, "Uint8": 1, "Int16": 2, "Uint16": 2, "Int32": 4, "Uint32": 4, "Float32": 4}
_UNIONS = {
    "BuiltinOptions": "BuiltinOptions", "BuiltinOptions2": "BuiltinOptions2", "Details": "QuantizationDetails",
    "ArraySegments": "SparseIndexVector", "ArrayIndices": "SparseIndexVector",
}  # fmt: skip


def kind_of(name: str, body: str, listed: bool) -> tuple[str, str]:
    number = re.search(r"self\._tab\.Get\(flatbuffers\.number_types\.(\w+)Flags", body)
    table = re.search(r"obj = (\w+)\(\)", body)
    if "self._tab.String(" in body:
        return ("texts" if listed else "text"), "0"
    if "self._tab.Union(" in body:
        return "union", _UNIONS[name]
    if table:
        return ("tables" if listed else "table"), table.group(1)
    if number:
        return ("numbers" if listed else "number"), str(_WIDTH.get(number.group(1), 8))
    raise ValueError(name)


def lines(text: str) -> Iterator[str]:
    for name, body in _CLASS.findall(text):
        if "_tab" not in body:
            constants = _CONSTANT.findall(body)
            if name in set(_UNIONS.values()):
                yield from (f"union {name} {value} {table}" for table, value in constants if value != "0")
            elif name == "BuiltinOperator":
                yield from (f"operator {value} {label}" for label, value in constants)
            continue
        for method, listed, inside in _METHOD.findall(body):
            slot = re.search(r"self\._tab\.Offset\((\d+)\)", inside)
            if slot and not method.endswith(("AsNumpy", "Length", "IsNone")):
                yield f"table {name} {(int(slot.group(1)) - 4) // 2} {method} {' '.join(kind_of(method, inside, bool(listed)))}"


def main() -> None:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise SystemExit("TensorFlow is not installed here.")
    text = Path(spec.origin).with_name("lite").joinpath("python/schema_py_generated.py").read_text(encoding="utf-8")
    version = importlib.metadata.version("tensorflow-cpu")
    print(f"# Written by benchmarks/lists/tflite_schema.py from tensorflow {version}.")
    print(*sorted(set(lines(text))), sep="\n")


if __name__ == "__main__":
    main()
