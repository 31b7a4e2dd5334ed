"""Graphs – ONNX, TensorFlow, TFLite – that reach out, name foreign code, or lie about their sizes."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.corpus import COMMAND, Sample
from tests.corpus.assembler import PAYLOAD
from tests.corpus.containers import zipped
from tests.corpus.protobuf import field, node_def, saved_model


def samples() -> Iterator[Sample]:
    for attack, filename, rows in (
        ("onnx", "model.onnx", _onnx()),
        ("tensorflow", "model.pb", _tensorflow()),
        ("tflite", "model.tflite", _tflite()),
        ("engine", "model.engine", _engines()),
    ):
        for name, make, why in rows:
            suffix = "model.zip" if name.startswith("package") else filename
            yield Sample(name=f"{attack}: {name}", attack=attack, why=why, make=make, filename=suffix)


_Rows = Iterator[tuple[str, Callable[[], bytes], str]]


def onnx_model(change: Callable[[Any], object] = lambda model: None) -> bytes:
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    change(model)
    content: bytes = model.SerializeToString()
    return content


def outside(location: str, **more: str) -> bytes:
    def change(model: Any) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("float_data")
        weight.data_location = 1
        for key, value in {"location": location, **more}.items():
            weight.external_data.add(key=key, value=value)

    return onnx_model(change)


def _onnx() -> _Rows:
    from onnx import helper

    locations = (
        ("absolute", "/etc/passwd", "CVE-2022-25882: a file of the host as weights"),
        ("above", "../../../etc/passwd", "CVE-2024-27318: a path out of the folder"),
        ("above, written otherwise", "weights/../../../etc/passwd", "CVE-2025-51480: normalised too late"),
        ("above, back slashes", "..\\..\\secret", "CVE-2024-27318 on Windows"),
        ("drive", "C:\\Windows\\win.ini", "absolute on Windows"),
        ("share", "\\\\host\\share\\x", "a network path"),
        ("url", "file:///etc/passwd", "a URL"),
        ("proc", "/proc/self/environ", "the environment as weights"),
        ("empty", "", "no path"),
        ("dot", ".", "the folder itself"),
        ("NUL", "weights.bin\x00/../x", "a cut name"),
        ("device", "/dev/zero", "an endless file"),
        ("memory", "*/_ORT_MEM_ADDR_/*", "ONNX Runtime's marker for an address in memory"),
        ("beside", "weights.bin", "a file that did not come along"),
    )  # fmt: skip
    for name, location, why in locations:
        yield f"external data, {name}", lambda location=location: outside(location), why
    yield "external data, negative offset", lambda: outside("weights.bin", offset="-4", length="8"), "before the file"
    yield (
        "external data, huge length",
        lambda: outside("weights.bin", offset="0", length="9" * 30),
        "CVE-2026-34445 and kin: sizes that lie",
    )
    yield (
        "external data, key of choice",
        lambda: outside("weights.bin", __class__="x", basepath="/"),
        "CVE-2026-34445: keys become attributes",
    )

    def package(link: bytes | None, location: str = "weights.bin") -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("model.onnx")
            content = outside(location, offset="0", length="8")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            if link is not None:
                entry = tarfile.TarInfo("weights.bin")
                entry.type, entry.linkname = link, "/etc/passwd"
                archive.addfile(entry)
        return buffer.getvalue()

    yield (
        "package, symbolic link as weights",
        lambda: package(tarfile.SYMTYPE),
        "CVE-2026-27489: a link inside the package",
    )
    yield (
        "package, hard link as weights",
        lambda: package(tarfile.LNKTYPE),
        "CVE-2026-34446: a hard link inside the package",
    )
    yield "package, weights missing", lambda: package(None), "weights that did not come along"
    yield (
        "package, weights that are a pickle",
        lambda: zipped({"model.onnx": outside("weights.bin", offset="0", length="8"), "weights.bin": PAYLOAD}),
        "bytes of no tensor hold a pickle",
    )
    yield (
        "package, weights shorter than said",
        lambda: zipped({"model.onnx": outside("weights.bin", offset="0", length="8"), "weights.bin": b"1234"}),
        "reads outside the file",
    )
    yield (
        "package, weights outside of it",
        lambda: zipped({"a/model.onnx": outside("../../weights.bin"), "weights.bin": bytes(8)}),
        "a path out of the package",
    )

    def with_node(kind: str, domain: str = "", **attributes: Any) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            model.graph.node.append(helper.make_node(kind, ["y"], ["z"], domain=domain, **attributes))
            if domain:
                model.opset_import.append(helper.make_opsetid(domain, 1))

        return change

    yield "custom operator", lambda: onnx_model(with_node("Run", "evil.ops")), "an operator of a library to load"
    yield (
        "Python operator",
        lambda: onnx_model(with_node("PyOp", "ai.onnx.contrib", module="os", compute="system")),
        "onnxruntime-extensions calls Python",
    )
    yield (
        "context of an execution provider",
        lambda: onnx_model(with_node("EPContext", "com.microsoft", ep_cache_context="/etc/passwd", embed_mode=0)),
        "a binary for a device, by its path",
    )
    yield "operator nobody knows", lambda: onnx_model(with_node("Exec")), "in the standard domain, but unknown"
    yield (
        "ATen operator",
        lambda: onnx_model(with_node("ATen", "org.pytorch.aten", operator="from_file")),
        "any torch operator by its name",
    )
    yield "function of the standard domain", lambda: onnx_model(_shadow), "a function body that replaces Add"
    yield "function that calls itself", lambda: onnx_model(_recursive), "inlining never ends"
    yield "function with a custom operator", lambda: onnx_model(_inner), "the operator is inside a function body"
    yield "subgraph with a custom operator", lambda: onnx_model(_branch), "the operator is inside an If"
    yield "subgraphs nested deeply", lambda: onnx_model(_nested), "a parser that recurses"
    yield (
        "tensor longer than its bytes",
        lambda: onnx_model(lambda model: model.graph.initializer[0].dims.append(1 << 40)),
        "declared against real size",
    )
    yield (
        "tensor whose size overflows",
        lambda: onnx_model(lambda model: model.graph.initializer[0].dims.extend([1 << 62, 4])),
        "a product that is zero in 64 bits",
    )
    yield (
        "tensor of negative size",
        lambda: onnx_model(lambda model: model.graph.initializer[0].dims.append(-1)),
        "a negative size",
    )
    yield (
        "tensor of unknown type",
        lambda: onnx_model(lambda model: setattr(model.graph.initializer[0], "data_type", 99)),
        "a type nobody has",
    )
    yield (
        "tensor with data twice",
        lambda: onnx_model(lambda model: setattr(model.graph.initializer[0], "raw_data", bytes(8))),
        "which is read?",
    )
    yield (
        "session options inside",
        lambda: onnx_model(
            lambda model: model.metadata_props.add(
                key="ort_config", value='{"session_options": {"session.load_model_format": "ORT"}}'
            )
        ),
        "ONNX Runtime reads settings from the model",
    )
    yield "bytes behind it", lambda: onnx_model() + PAYLOAD, "a polyglot's tail"
    yield "bytes in front", lambda: PAYLOAD + onnx_model(), "a polyglot"
    yield "unknown field", lambda: onnx_model() + field(127, b"x" * 100), "room for anything"
    yield "second graph", lambda: onnx_model() + field(7, b""), "protobuf merges, readers replace"
    yield "cut", lambda: onnx_model()[:-5], "half a model"
    yield "length of a terabyte", lambda: onnx_model() + b"\x3a\xff\xff\xff\xff\xff\x7f", "a length that lies"
    yield "number without end", lambda: onnx_model() + b"\x28" + b"\xff" * 11, "a varint that never ends"


def _shadow(model: Any) -> None:
    from onnx import helper

    body = helper.make_function(
        "", "Add", ["a", "b"], ["c"], [helper.make_node("Identity", ["a"], ["c"])], [helper.make_opsetid("", 18)]
    )
    model.functions.append(body)


def _recursive(model: Any) -> None:
    from onnx import helper

    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    model.functions.append(
        helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="local")], opsets)
    )
    model.graph.node.append(helper.make_node("F", ["y"], ["z"], domain="local"))
    model.opset_import.append(opsets[1])


def _inner(model: Any) -> None:
    from onnx import helper

    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("evil", 1), helper.make_opsetid("local", 1)]
    model.functions.append(
        helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("Run", ["a"], ["b"], domain="evil")], opsets)
    )
    model.graph.node.append(helper.make_node("F", ["y"], ["z"], domain="local"))
    model.opset_import.append(opsets[2])


def _branch(model: Any) -> None:
    from onnx import helper

    inside = helper.make_graph([helper.make_node("Run", ["y"], ["b"], domain="evil")], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inside, else_branch=inside))


def _nested(model: Any) -> None:
    from onnx import helper

    graph = helper.make_graph([], "g", [], [])
    for _ in range(32):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    model.graph.CopyFrom(graph)


def _tensorflow() -> _Rows:
    graph = saved_model
    for operator, why in (
        ("ReadFile", "reads a file of the host"),
        ("WriteFile", "writes a file of the host"),
        ("MatchingFiles", "lists the host's files"),
        ("PyFunc", "calls Python"),
        ("EagerPyFunc", "calls Python"),
        ("PyFuncStateless", "calls Python"),
        ("LoadLibrary", "loads native code"),
        ("SaveV2", "writes files when the graph is run"),
        ("PrintV2", "writes to a file of choice"),
        ("DebugIdentityV3", "sends tensors to an address"),
        ("RemoteCall", "calls on others"),
        ("DataServiceDatasetV4", "the network"),
        ("TextLineDataset", "reads a file of the host"),
        ("FixedLengthRecordDatasetV2", "reads a file of the host"),
        ("XlaCustomCallV2", "native code by name"),
        ("TPUCompile", "an operator nobody vetted"),
        ("EvilCustomOp", "an operator of a library of the attacker's"),
        ("InitializeTableFromTextFileV2", "reads a file of the host"),
        ("GeneratorDataset", "calls functions"),
        ("ShellExecute", "unknown"),
    ):
        yield f"frozen graph with {operator}", lambda operator=operator: node_def("x", operator), why
        yield (
            f"SavedModel with {operator}",
            lambda operator=operator: zipped(
                {"m/saved_model.pb": graph([(operator, operator)]), "m/variables/variables.index": b""}
            ),
            why,
        )
    yield (
        "operator inside a function",
        lambda: zipped({"m/saved_model.pb": graph([("a", "Identity")], inside=[("r", "ReadFile")])}),
        "the operator is inside a function body",
    )
    yield (
        "pickle in the assets",
        lambda: zipped({"m/saved_model.pb": graph([("a", "Identity")]), "m/assets/x.txt": PAYLOAD}),
        "assets are files too",
    )
    yield (
        "assets that climb out",
        lambda: zipped({"m/saved_model.pb": graph([("a", "Identity")]), "m/assets/../../../x": b"x"}),
        "a path out of the archive",
    )
    yield (
        "native code in assets",
        lambda: zipped(
            {"m/saved_model.pb": graph([("a", "Identity")]), "m/assets.extra/op.so": b"\x7fELF\x02\x01\x01" + bytes(57)}
        ),
        "a library to load",
    )
    yield (
        "Keras metadata with a Lambda",
        lambda: zipped(
            {
                "m/saved_model.pb": graph([("a", "Identity")]),
                "m/keras_metadata.pb": field(
                    1,
                    field(2, 1)
                    + field(3, b"root")
                    + field(4, b"_tf_keras_layer")
                    + field(
                        5,
                        b'{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}}}',
                    ),
                ),
            }
        ),
        "CVE-2024-3660: code in the metadata",
    )
    yield "graph cut", lambda: node_def("x", "Identity")[:-3], "half a graph"
    yield "graph with bytes behind it", lambda: node_def("x", "Identity") + PAYLOAD, "a polyglot's tail"


def tflite(custom: str | None = None, *, builtin: int = 0, weights: tuple[int, int] = (1, 4)) -> bytes:
    """A TFLite model of one operator, written with the flatbuffers library as the converter does."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    name = builder.CreateString(custom) if custom else 0
    builder.StartObject(4)  # OperatorCode
    builder.PrependInt8Slot(0, 32 if custom else min(builtin, 127), 0)
    if custom:
        builder.PrependUOffsetTRelativeSlot(1, name, 0)
    builder.PrependInt32Slot(2, 1, 1)
    builder.PrependInt32Slot(3, 32 if custom else builtin, 0)
    code = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(code)
    codes = builder.EndVector()

    def ints(values: list[int]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependInt32(value)
        found: int = builder.EndVector()
        return found

    def tensor(label: str, buffer: int, sides: tuple[int, int] = (1, 4)) -> int:
        text, shape = builder.CreateString(label), ints(list(sides))
        builder.StartObject(10)
        builder.PrependUOffsetTRelativeSlot(0, shape, 0)
        builder.PrependUint32Slot(2, buffer, 0)
        builder.PrependUOffsetTRelativeSlot(3, text, 0)
        found: int = builder.EndObject()
        return found

    tensors = [tensor("x", 0), tensor("w", 1, weights), tensor("y", 0)]
    builder.StartVector(4, 3, 4)
    for one in reversed(tensors):
        builder.PrependUOffsetTRelative(one)
    all_tensors = builder.EndVector()
    inputs, outputs, graph_in, graph_out = ints([0, 1]), ints([2]), ints([0]), ints([2])
    builder.StartObject(9)  # Operator
    builder.PrependUOffsetTRelativeSlot(1, inputs, 0)
    builder.PrependUOffsetTRelativeSlot(2, outputs, 0)
    operator = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    builder.StartObject(5)  # SubGraph
    builder.PrependUOffsetTRelativeSlot(0, all_tensors, 0)
    builder.PrependUOffsetTRelativeSlot(1, graph_in, 0)
    builder.PrependUOffsetTRelativeSlot(2, graph_out, 0)
    builder.PrependUOffsetTRelativeSlot(3, operators, 0)
    subgraph = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    data = builder.CreateByteVector(struct.pack("<4f", 1, 2, 3, 4))
    builder.StartObject(3)
    empty = builder.EndObject()
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(0, data, 0)
    full = builder.EndObject()
    builder.StartVector(4, 2, 4)
    builder.PrependUOffsetTRelative(full)
    builder.PrependUOffsetTRelative(empty)
    buffers = builder.EndVector()
    description = builder.CreateString("MLIR Converted.")
    builder.StartObject(8)  # Model
    builder.PrependUint32Slot(0, 3, 0)
    builder.PrependUOffsetTRelativeSlot(1, codes, 0)
    builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    builder.PrependUOffsetTRelativeSlot(3, description, 0)
    builder.PrependUOffsetTRelativeSlot(4, buffers, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tflite() -> _Rows:
    def patched(find: bytes, value: bytes, *, last: bool = False) -> bytes:
        content = tflite()
        at = content.rindex(find) if last else content.index(find)
        return content[:at] + value + content[at + len(value) :]

    weights = struct.pack("<4f", 1, 2, 3, 4)
    yield "custom operator", lambda: tflite("EvilOp"), "native code that the interpreter must be given"
    yield "Flex operator", lambda: tflite("FlexReadFile"), "any TensorFlow operator, here one that reads files"
    yield "Flex operator that writes", lambda: tflite("FlexWriteFile"), "any TensorFlow operator"
    yield "Flex operator that calls Python", lambda: tflite("FlexPyFunc"), "any TensorFlow operator"
    yield (
        "operator out of range",
        lambda: tflite(builtin=9999),
        "CVE-class: an index into a table",
    )
    yield "root outside of the file", lambda: b"\xff\xff\xff\x7f" + tflite()[4:], "an offset that lies"
    yield (
        "vector longer than the file",
        lambda: patched(struct.pack("<L", 16) + weights, struct.pack("<L", 0x7FFFFFFF)),
        "a length that lies",
    )
    yield "tensor larger than its buffer", lambda: tflite(weights=(1, 1 << 20)), "sizes that lie"
    yield "tensor of negative size", lambda: tflite(weights=(1, -4)), "sizes that lie"
    yield "bytes behind it", lambda: tflite() + PAYLOAD, "a polyglot's tail"
    yield (
        "archive behind it",
        lambda: tflite() + zipped({"x.pkl": PAYLOAD}),
        "metadata is packed as a zip behind the model: this one holds a pickle",
    )
    yield "cut", lambda: tflite()[:-40], "half a model"
    yield "identifier only", lambda: b"\x1c\x00\x00\x00TFL3" + bytes(100), "no model"


def _engines() -> _Rows:
    yield (
        "plan of TensorRT",
        lambda: b"ptrt\x00\x00\x00\x01" + b"\x00" * 24 + b"\x7fELF\x02\x01\x01" + bytes(200),
        "native code: described, never opened",
    )
    yield "plan that is a pickle", lambda: PAYLOAD, "a name is not a type"
    yield "shared object", lambda: b"\x7fELF\x02\x01\x01" + bytes(200), "native code"
    yield (
        "Windows program",
        lambda: b"MZ\x90\x00" + bytes(56) + b"\x40\x00\x00\x00PE\x00\x00" + bytes(200),
        "native code",
    )
    yield "Mach-O", lambda: b"\xcf\xfa\xed\xfe\x07\x00\x00\x01" + bytes(200), "native code"
    yield "WebAssembly", lambda: b"\x00asm\x01\x00\x00\x00" + bytes(20), "code"
    yield (
        "byte code of Python",
        lambda: (
            __import__("importlib.util").util.MAGIC_NUMBER
            + bytes(12)
            + __import__("marshal").dumps(compile(f"import os; os.system({COMMAND!r})", "x", "exec"))
        ),
        "code",
    )
    yield (
        "Java archive",
        lambda: zipped(
            {
                "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n",
                "A.class": b"\xca\xfe\xba\xbe\x00\x00\x00\x34" + bytes(40),
            }
        ),
        "code",
    )
