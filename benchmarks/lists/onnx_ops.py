"""Write down the operators an ONNX graph may use: `python onnx_ops.py > onnx_ops.txt`.

Run where the releases of onnx and ONNX Runtime to be allowed are installed. Every operator of every opset that onnx
defines is listed, and of ONNX Runtime's own ones all but those that hold a binary for a device, or run code.
"""

from __future__ import annotations

import importlib
import re

_NEVER = re.compile(
    r"EPContext|Snpe|PyOp|Custom|Send|Recv|Yield|HttpPost|Exec|Triton|AllReduce|AllGather|AllToAll|Record|Wait"
)

_RUNTIME = ("", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")


def main() -> None:
    defs = importlib.import_module("onnx.defs")
    runtime = importlib.import_module("onnxruntime.capi._pybind_state")
    found = {(schema.domain, schema.name) for schema in defs.get_all_schemas_with_history()}
    found |= {
        (schema.domain, schema.name)
        for schema in runtime.get_all_operator_schema()
        if schema.domain in _RUNTIME and not _NEVER.search(schema.name)
    }
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("onnx", "onnxruntime")]
    print(f"# Written by benchmarks/lists/onnx_ops.py from {' and '.join(versions)}.")
    for domain, name in sorted(found):
        print(f"{domain or 'ai.onnx'} {name}")


if __name__ == "__main__":
    main()
