"""TensorFlow, TensorFlow Lite, TensorRT and safetensors: what the real files of tests.readers.foreign do not show."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.readers.foreign import FILES, judged, members, packed, rules


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def judge(content: bytes, name: str = "model.bin", **limits: float) -> dict[str, Any]:
        return judged(tmp_path, content, name, **limits)

    return judge


# TensorFlow


def saved(change: Callable[[dict[str, bytes]], object], name: str = "v1_saved") -> bytes:
    content = members(FILES[f"benign/{name}.zip"])
    change(content)
    return packed(content)


def test_saved_model_whose_variables_do_not_add_up_is_stopped(judge: Any) -> None:
    data, index = "variables/variables.data-00000-of-00001", "variables/variables.index"
    assert judge(saved(lambda m: None))["verdict"] == "clean"
    for change in (
        lambda m: m.update({data: m[data] + b"more"}),
        lambda m: m.update({data: m[data][:-1]}),
        lambda m: m.pop(data),
        lambda m: m.pop(index),
        lambda m: m.update({index: m[index] + b"\0"}),
        lambda m: m.update({index: b"\0" + m[index]}),
        lambda m: m.update({"variables/payload.so": b"\x7fELF"}),
        lambda m: m.update({"saved_model.pbtxt": b"saved_model_schema_version: 1"}),
        lambda m: m.update({"assets/x.pkl": b"cos\nsystem\n(S'true'\ntR."}),
    ):
        assert judge(saved(change))["verdict"] != "clean"


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (b"ReadVariableOp", b"LoadPluginFile", "malicious"),
        (b"MatMul", b"MyOwnO", "unknown"),
        (b"DecodeJpeg", b"PyFuncXXXX", "malicious"),
        (b"__inference__traced_save_", b"__inference__serves_all_", "malicious"),
    ],
)
def test_graph_with_another_operator_is_stopped(judge: Any, old: bytes, new: bytes, verdict: str) -> None:
    def change(content: dict[str, bytes]) -> None:
        assert old in content["saved_model.pb"]
        content["saved_model.pb"] = content["saved_model.pb"].replace(old, new[: len(old)].ljust(len(old), b"_"))

    assert judge(saved(change, "module_saved"))["verdict"] == verdict


def test_layers_that_a_saved_model_only_describes_may_be_anybodys_but_not_bring_code(judge: Any) -> None:
    def renamed(new: bytes) -> Callable[[dict[str, bytes]], None]:
        def change(content: dict[str, bytes]) -> None:
            old = b'"class_name": "Dense"'
            assert old in content["keras_metadata.pb"]
            content["keras_metadata.pb"] = content["keras_metadata.pb"].replace(old, new.ljust(len(old)))

        return change

    answer = judge(saved(renamed(b'"class_name": "Mynet"'), "keras2_saved"))
    assert (answer["verdict"], rules(answer)) == ("clean", {"keras.class"})
    assert judge(saved(renamed(b'"class_name":"Lambda"'), "keras2_saved"))["verdict"] == "unknown"
    assert judge(saved(renamed(b'"class_name": "eval"'), "keras2_saved"))["verdict"] == "malicious"


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def node(name: str, operator: str, **attributes: bytes) -> bytes:
    entries = b"".join(field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items())
    return field(1, field(1, name.encode()) + field(2, operator.encode()) + entries)


def constant(shape: list[int], content: bytes) -> bytes:
    sides = b"".join(field(2, field(1, side)) for side in shape)
    return field(8, field(1, 1) + field(2, sides) + field(4, content))


def text_constant(text: bytes) -> bytes:
    return field(8, field(1, 7) + field(2, b"") + field(8, text))


def wired(name: str, operator: str, *inputs: str, **attributes: bytes) -> bytes:
    entries = b"".join(field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items())
    links = b"".join(field(3, one.encode()) for one in inputs)
    return field(1, field(1, name.encode()) + field(2, operator.encode()) + links + entries)


SAVER = (
    wired("save/Const", "Const", value=text_constant(b"model")),
    wired("save/names", "Const", value=text_constant(b"w")),
    wired("save/SaveV2", "SaveV2", "save/Const", "save/names", "save/names", "w"),
)
HOSTILE_SAVERS = {
    "a path built in": (wired("save/Const", "Const", value=text_constant(b"/etc/cron.d/x")), *SAVER[1:]),
    "a path from outside": (
        wired("p", "Const", value=text_constant(b"/etc/cron.d/x")),
        *SAVER[:2],
        wired("save/SaveV2", "SaveV2", "p", "save/names", "save/names", "w"),
    ),
    "a path from outside, by a detour": (
        *SAVER,
        wired("p", "Const", value=text_constant(b"/etc/cron.d/x")),
        wired("save/Identity", "Identity", "p"),
    ),
    "a model that waits for it": (*SAVER, wired("y", "Identity", "w", "^save/SaveV2")),
    "under another name": (*SAVER[:2], wired("y", "SaveV2", "save/Const", "save/names", "save/names", "w")),
    "a constant in the place of the loader's": (wired("saver_filename", "Const", value=text_constant(b"x")),),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_SAVERS)
def test_only_the_loader_says_which_file_is_written(judge: Any, name: str) -> None:
    assert judge(b"".join(SAVER), "graph.pb")["verdict"] == "clean"
    assert rules(judge(b"".join(HOSTILE_SAVERS[name]), "graph.pb")) == {"tensorflow.saver"}


def test_constants_are_as_long_as_they_say(judge: Any) -> None:
    assert judge(node("c", "Const", value=constant([2, 2], bytes(16))))["verdict"] == "clean"
    assert "tensorflow.tensor" in rules(judge(node("c", "Const", value=constant([2, 2], bytes(12)))))
    assert "tensorflow.bomb" in rules(judge(node("c", "Const", value=constant([1 << 40], b""))))
    assert judge(node("c", "NoOp") + b"\xfa\x07\x01a")["verdict"] == "unknown"
    assert judge(node("c", "NoOp") + b"\0")["verdict"] == "unknown"


# TensorFlow Lite, TensorRT


def test_tflite_that_leads_out_of_itself_is_stopped(judge: Any) -> None:
    model = FILES["benign/convolution_int8.tflite"]
    assert judge(model + b"PK\x03\x04more", "m.tflite")["verdict"] == "unknown"
    assert (
        judge(model + packed({"labels.txt": b"cat"}), "m.tflite")["verdict"] == "malicious"
    )  # offsets of another file
    assert judge(model + b"\1" * 100, "m.tflite")["verdict"] == "unknown"
    assert judge(model[:-100], "m.tflite")["verdict"] == "unknown"
    for root in (4, 8, len(model) - 2, 1 << 31):
        assert judge(struct.pack("<I", root) + model[4:], "m.tflite")["verdict"] == "unknown"


def test_label_files_behind_a_tflite_model_are_judged_one_by_one(judge: Any) -> None:
    def labelled(name: str, content: bytes) -> bytes:
        buffer = io.BytesIO(FILES["benign/convolution_int8.tflite"])
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(name, content)
        return buffer.getvalue()

    answer = judge(labelled("labels.txt", b"cat\ndog\n"), "m.tflite")
    assert (answer["verdict"], sorted(answer["bytes"])) == ("clean", ["text", "tflite", "zip"])
    assert judge(labelled("labels.txt", b"cos\nsystem\n(S'true'\ntR."), "m.tflite")["verdict"] == "malicious"


def engine(**more: Any) -> bytes:
    version = more.get("version", (10, 3, 0, 26))
    return (
        b"ftrt"
        + bytes(4)
        + struct.pack("<I", more.get("serialisation", 239))
        + bytes(12)
        + bytes(version)
        + bytes(4000)
    )


def test_engine_is_described_and_its_header_must_be_one(judge: Any) -> None:
    answer = judge(engine(), "model.engine")
    assert answer["verdict"] == "clean"
    assert [(finding["rule"], finding["severity"]) for finding in answer["findings"]] == [
        ("tensorrt.native_code", "warning")
    ]
    assert "TensorRT 10.3.0.26" in answer["findings"][0]["message"]
    text = b'{"task": "detect"}'
    assert judge(struct.pack("<I", len(text)) + text + engine(), "yolo.engine")["verdict"] == "clean"
    for bad in (engine(version=(0, 0, 0, 0)), engine(serialisation=0), engine()[:20], engine() + packed({"a": b"b"})):
        assert judge(bad, "model.engine")["verdict"] != "clean"


def test_safetensors_that_is_something_else_as_well_is_malicious(judge: Any) -> None:
    inner = packed({"a": b"b"})

    def tensors(data: bytes, *, pad: int = 0) -> bytes:
        header = json.dumps({"x": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
        header += b" " * pad
        return struct.pack("<Q", len(header)) + header + data

    assert judge(tensors(b"abc"), "m.safetensors")["verdict"] == "clean"
    assert "safetensors.polyglot" in rules(judge(tensors(inner), "m.safetensors"))
