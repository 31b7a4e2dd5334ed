"""Formats that wrap pickles or stand in for them: joblib, torch in its three layouts, numpy, skops."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.readers import pickle_files as files
from tests.readers.hostile_pickles import (
    COMMAND,
    Payload,
    joblib_frames,
    judged,
    not_clean,
    rules,
    shell,
)
from tests.readers.pickle_files import named, short

# Hostile: joblib


def test_joblib_array_is_exactly_as_long_as_its_description() -> None:
    assert judged(joblib_frames())["verdict"] == "clean"
    assert judged(joblib_frames(data=bytes(8)))["verdict"] == "unknown"
    assert judged(joblib_frames(data=bytes(24)))["verdict"] == "unknown"
    padded = joblib_frames(numpy_array_alignment_bytes=b"K\x10", data=b"\x02\xff\xff" + bytes(16))
    assert judged(padded)["verdict"] == "clean"
    assert "joblib.padding" in rules(judged(padded.replace(b"\x02\xff\xff", b"\x02\xffX")))


def test_opcodes_between_description_and_numbers_are_malicious() -> None:
    """joblib reads the numbers behind the frame and goes on with the rest of the frame."""
    hidden = b"0" + named("os", "system") + short("true") + b"\x85R"
    assert "joblib.frame" in rules(judged(joblib_frames(hidden)))
    assert judged(joblib_frames(hidden))["verdict"] == "malicious"


def test_numbers_that_are_opcodes_for_who_does_not_know_joblib_are_malicious() -> None:
    numbers = b"cos\nsystem\n(S't'\n"
    answer = judged(joblib_frames(data=(numbers + b"tR." + bytes(16))[:16]))
    assert answer["verdict"] == "malicious"
    assert rules(answer) == {"joblib.polyglot"}


@pytest.mark.parametrize(
    "changes",
    [
        {"subclass": named("numpy.ma", "MaskedArray")},
        {"shape": b"J\xff\xff\xff\xff\x85"},
        {"order": short("K")},
        {"dtype": short("f8")},
        {"more": b"N"},
        {"__class__": b"N"},
    ],
)  # fmt: skip
def test_joblib_array_described_otherwise_is_stopped(changes: dict[str, bytes]) -> None:
    assert judged(joblib_frames(**changes))["verdict"] != "clean"


def test_objects_in_a_joblib_array_are_judged() -> None:
    import numpy as np

    hostile = files.joblib_dump({"a": np.arange(3), "b": np.array([Payload(os.system, COMMAND)], dtype=object)})
    assert "pickle.gadget" in rules(judged(hostile))
    assert judged(files.joblib_dump([np.arange(9.0), Payload(os.system, COMMAND)]))["verdict"] == "malicious"


# Hostile: torch


def legacy() -> bytes:
    import torch

    return files.torch_save(OrderedDict(w=torch.ones(4), b=torch.zeros(2)), _use_new_zipfile_serialization=False)


def test_legacy_torch_file_that_does_not_add_up_is_stopped() -> None:
    content = legacy()
    assert judged(content)["verdict"] == "clean"
    longer = content.replace(struct.pack("<q", 4) + struct.pack("<4f", 1, 1, 1, 1), struct.pack("<q", 5) + bytes(20))
    magic = pickletools.optimize(content[: content.index(b".") + 1])
    cases = {
        "cut": content[:-3],
        "bytes behind it": content + b"more",
        "pickle behind it": content + shell(),
        "zip behind it": content + files.torch_save([1]),
        "another length": longer,
        "payload as data": magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + shell(2) + pickle.dumps([], 2),
        "payload as machine": magic + pickle.dumps(1001, 2) + shell(2) + pickle.dumps({}, 2) + pickle.dumps([], 2),
        "storage that nobody names": magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickle.dumps([], 2) + pickle.dumps(["0"], 2) + bytes(8),
    }  # fmt: skip
    verdicts = {name: judged(case)["verdict"] for name, case in cases.items()}
    assert "clean" not in verdicts.values()
    assert verdicts["payload as data"] == verdicts["payload as machine"] == "malicious"


def test_torch_reads_on_where_joblib_would_read_numbers() -> None:
    content = files.torch_save(OrderedDict())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, joblib_frames() if name.endswith("data.pkl") else data)
    assert judged(buffer.getvalue())["verdict"] == "unknown"


@pytest.mark.filterwarnings("ignore")
def test_oldest_torch_files_are_clean_unless_they_do_not_add_up(tmp_path: Path) -> None:
    import torch

    value = OrderedDict(w=files.TarTensor(1), b=files.TarTensor(2))
    content = files.tar_checkpoint(value, {1: [1.0, 2.0, 3.0], 2: [4.0]})
    (tmp_path / "model.pt").write_bytes(content)  # a loader as old as that reads files only
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert loaded["w"].tolist() == [1.0, 2.0, 3.0]
    answer = judged(content)
    assert answer["verdict"] == "clean", answer["findings"]
    assert judged(files.tar_checkpoint(value, {1: [1.0]}))["verdict"] == "unknown"
    assert judged(files.tar_checkpoint([Payload(os.system, COMMAND)], {}))["verdict"] == "malicious"


def test_torch_file_inside_of_a_pickle_is_judged_as_one() -> None:
    load = b"\x80\x04" + named("torch.storage", "_load_from_bytes")
    inside = files.torch_save([Payload(os.system, COMMAND)])
    long = b"B" + struct.pack("<L", len(inside)) + inside
    assert judged(load + long + b"\x85R.")["verdict"] == "malicious"


def test_whole_module_with_a_class_of_somebody_else_is_unknown() -> None:
    import torch

    content = files.torch_save(torch.nn.Sequential(torch.nn.ReLU()))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(
                name, data.replace(b"torch.nn.modules.activation\nReLU", b"torch.nn.modules.activation\nReLV")
            )
    [finding] = judged(buffer.getvalue())["findings"]
    assert finding["rule"] == "pickle.unknown_global"


# numpy's files and skops


def npy(value: Any) -> bytes:
    import numpy as np

    return files.dumped(lambda buffer: np.save(buffer, value))


def test_arrays_in_files_are_clean_unless_they_hold_objects() -> None:
    import numpy as np

    structured = np.zeros(3, dtype=[("a", "i4"), ("b", [("c", "f8", (2,))])])
    assert (
        not_clean({"numbers": npy(np.eye(3)), "structured": npy(structured), "texts": npy(np.array(["a", "bc"]))}) == {}
    )
    harmless = judged(npy(np.array(["a", None], dtype=object)))
    assert (harmless["verdict"], rules(harmless)) == ("unknown", {"numpy.objects"})
    hostile = judged(npy(np.array([Payload(os.system, COMMAND)], dtype=object)))
    assert hostile["verdict"] == "malicious"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"'descr': '<f8'", b"'descr': '<f4'"),
        (b"'descr': '<f8'", b"'descr': 'f8,'"),
        (b"(3, 3)", b"(3,-3)"),
        (b"(3, 3)", b"[3, 3]"),
        (b"False", b"0    "),
        (b"'shape'", b"'shapE'"),
        (b"False", b"f()  "),
    ],
)
def test_array_whose_header_lies_is_unknown(old: bytes, new: bytes) -> None:
    import numpy as np

    content = npy(np.eye(3))
    assert old in content
    assert judged(content.replace(old, new))["verdict"] == "unknown"


def node(loader: str, module: str, name: str, content: Any = None, **more: Any) -> dict[str, Any]:
    return {"__class__": name, "__module__": module, "__loader__": loader, "content": content, "__id__": 1, **more}


def skops(change: Callable[[dict[str, Any]], object] = lambda schema: None, **members: bytes) -> bytes:
    import numpy as np

    array = {
        "__class__": "ndarray",
        "__module__": "numpy",
        "__loader__": "NdArrayNode",
        "type": "numpy",
        "file": "7.npy",
    }
    attributes = {"coef_": array, "C": node("JsonNode", "builtins", "str", "1.0", is_json=True)}
    state = node("DictNode", "builtins", "dict", attributes, key_types=node("ListNode", "builtins", "list", []))
    schema = node("ObjectNode", "sklearn.svm._classes", "SVC", state, protocol=2, _skops_version="0.16")
    change(schema)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"schema.json": json.dumps(schema).encode(), "7.npy": npy(np.eye(2)), **members}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_skops_file_of_listed_classes_is_clean() -> None:
    answer = judged(skops())
    assert answer["verdict"] == "clean", answer["findings"]
    assert {"skops", "numpy"} <= set(answer["bytes"])


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda s: s.update(__module__="os", __class__="system"), "malicious"),
        (lambda s: s.update(__loader__="FunctionNode", __module__="builtins", __class__="eval"), "malicious"),
        (lambda s: s["content"]["content"].update(x=node("FunctionNode", "subprocess", "run")), "malicious"),
        (lambda s: s["content"]["content"].update(__class__=node("TypeNode", "builtins", "int")), "unknown"),
        (lambda s: s["content"]["content"].update(__setstate__=node("TypeNode", "builtins", "int")), "malicious"),
        (lambda s: s.update(__module__="somewhere", __class__="Model"), "unknown"),
        (lambda s: s.update(__loader__="OperatorFuncNode"), "unknown"),
        (lambda s: s.update(__loader__="MethodNode"), "unknown"),
        (lambda s: s.pop("__module__"), "unknown"),
        (lambda s: s.update(extra={"__class__": "system", "__module__": "os"}), "unknown"),
        (lambda s: s["content"]["content"]["coef_"].update(file="8.npy"), "unknown"),
        (lambda s: s["content"]["content"]["coef_"].update(type="pickle"), "unknown"),
        (lambda s: s.update(x=node("TypeNode", "builtins", "getattr")), "malicious"),
    ],
)
def test_skops_file_that_names_anything_else_is_stopped(change: Any, verdict: str) -> None:
    answer = judged(skops(change))
    assert answer["verdict"] == verdict, answer["findings"]


def test_skops_members_that_no_node_names_are_unknown() -> None:
    assert rules(judged(skops(**{"9.npy": npy(1.0)}))) == {"skops.orphan"}
    assert judged(skops(**{"7.npy": shell()}))["verdict"] == "malicious"
