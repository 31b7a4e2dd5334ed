"""What frameworks write passes, what attackers write does not: the readers against real and hostile files.

Hostile payloads would create a canary file if anything executed them; nothing may.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.readers import examine
from pipeline.readers.symbolic import is_expression, is_guard

CANARY = Path("/tmp/slipway-canary")
COMMAND = f"touch {CANARY}"


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def judge(content: bytes, name: str = "model.bin", **limits: float) -> dict[str, Any]:
        path = tmp_path / "upload"
        path.write_bytes(content)
        answer = examine(str(path), name, limits)
        json.dumps(answer, allow_nan=False)
        assert not CANARY.exists()
        return answer

    return judge


def rules(answer: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in answer["findings"]}


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(content: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def changed(path: Path, change: Callable[[dict[str, bytes]], object]) -> bytes:
    content = members(path)
    change(content)
    return packed(content)


# Benign


def test_whatever_the_frameworks_write_is_clean_and_every_byte_of_it_understood(benign: dict[str, Path]) -> None:
    verdicts = {name: examine(str(path), name) for name, path in benign.items()}
    assert {name: answer["findings"] for name, answer in verdicts.items() if answer["verdict"] != "clean"} == {}
    assert len(verdicts) >= 25
    for name, answer in verdicts.items():
        if name.endswith((".onnx", ".safetensors", ".txt", ".md")):
            assert sum(answer["bytes"].values()) == benign[name].stat().st_size, name
        else:
            assert sum(answer["bytes"].values()) > 0, name


def test_rewriting_an_archive_without_changing_it_keeps_it_clean(benign: dict[str, Path], judge: Any) -> None:
    for name in ("rich.pt", "dynamic.pt2"):  # so that what the hostile tests change is what is found
        assert judge(packed(members(benign[name])), name)["verdict"] == "clean"
        assert judge(packed(members(benign[name]), zipfile.ZIP_DEFLATED), name)["verdict"] == "clean"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_clean_in_every_pickle_protocol(judge: Any, protocol: int) -> None:
    data = {
        "numbers": [1, -1, 2**70, 1.5, True, None],
        "text": "naïve",
        "bytes": b"\x00\xff" * 300,
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "ordered": OrderedDict(a=(1, (2, 3)), b=complex(1, 2)),
        "long": "x" * 5000,
        "buffer": bytearray(b"abc"),
        "same": [[]] * 3,
    }
    answer = judge(pickle.dumps(data, protocol) + (pickle.dumps([1], protocol) if protocol >= 2 else b""))
    assert answer["verdict"] == "clean", answer["findings"]


# Pickles


class Payload:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


MALICIOUS_PICKLES = {
    **{f"reduce, protocol {n}": pickle.dumps(Payload(os.system, COMMAND), n) for n in range(6)},
    "eval": pickle.dumps(Payload(eval, "1")),
    "subprocess": pickle.dumps(Payload(subprocess.run, ["true"])),
    "inst": b"(S'" + COMMAND.encode() + b"'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'" + COMMAND.encode() + b"'\no.",
    "names from the memo": b"\x80\x04" + short("os") + b"\x94" + short("system") + b"\x940h\x00h\x01\x93" + short(COMMAND) + b"\x85R.",
    "computed name": b"\x80\x04cbuiltins\ngetattr\n(cos\nlinesep\n" + short("x") + b"tR" + short("system") + b"\x93)R.",
    "name from a byte string": b"\x80\x04U\x02osS'system'\n\x93(U\x04truetR.",
    "dotted name": b"\x80\x04" + short("torch") + short("os.system") + b"\x93" + short(COMMAND) + b"\x85R.",
    "broken after the payload": b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR\xff\xff",
    "cut off after the payload": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R",
    "second pickle": pickle.dumps([1]) + pickle.dumps(Payload(os.system, COMMAND)),
    "nested": pickle.dumps({"weights": pickle.dumps(Payload(os.system, COMMAND))}),
    "resolve_name": pickle.dumps(Payload(__import__("pkgutil").resolve_name, "os:system")),
    "patches a class": b"\x80\x02ccollections\nOrderedDict\n}X\x03\x00\x00\x00popX\x01\x00\x00\x00xsb.",
    "calls what it computed": b"\x80\x04ccollections\nOrderedDict\n)R)R.",
    "in letters, inside text": b"cposix\nsystem\n(Vtouch x\ntR.\n# a harmless configuration\n",
}  # fmt: skip


@pytest.mark.parametrize("name", MALICIOUS_PICKLES)
def test_pickle_that_would_act_is_malicious(judge: Any, name: str) -> None:
    answer = judge(MALICIOUS_PICKLES[name], "model.pkl")
    assert answer["verdict"] == "malicious", answer["findings"]


UNKNOWN_PICKLES = {
    "unvetted class": b"\x80\x04" + short("somewhere.models") + short("Net") + b"\x93)\x81.",
    "unvetted call": b"\x80\x04" + short("somewhere") + short("build") + b"\x93)R.",
    "extension registry": b"\x80\x02\x82\x01)R.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "memo written twice": b"\x80\x02]q\x00}q\x000.",
    "memo read before it is written": b"\x80\x02h\x07.",
    "bytes behind it": pickle.dumps([1]) + b"junk",
    "cut": pickle.dumps(list(range(1000)))[:-7],
    "protocol of the future": b"\x80\x09N.",
    "memory bomb": b"\x80\x04" + short("builtins") + short("bytearray") + b"\x93\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    "globals as arguments": b"\x80\x04ccollections\nOrderedDict\nccollections\nOrderedDict\n\x85R.",
    "announces more than there is": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc",
    "endless nesting of bytes": None,
}


@pytest.mark.parametrize("name", UNKNOWN_PICKLES)
def test_pickle_that_nobody_vetted_is_unknown(judge: Any, name: str) -> None:
    content = UNKNOWN_PICKLES[name]
    if content is None:
        content = pickle.dumps(OrderedDict())
        for _ in range(8):
            content = b"\x80\x05ccollections\nOrderedDict\n)R0\x8e" + struct.pack("<Q", len(content)) + content + b"."
    answer = judge(content, "model.pkl")
    assert answer["verdict"] == "unknown", answer["findings"]


def test_finding_says_which_global_and_where(judge: Any) -> None:
    content = b"\x80\x04]" + short("somewhere.models") + short("Net") + b"\x93)\x81a."
    [finding] = judge(content, "model.pkl")["findings"]
    assert finding["rule"] == "pickle.unknown_global"
    assert "somewhere.models.Net" in finding["message"]
    assert finding["offset"] == content.index(b"\x93")
    assert finding["path"] == "model.pkl"
    assert finding["advice"]


def test_foreign_text_in_a_finding_can_be_stored_and_shown(judge: Any) -> None:
    """A database refuses NUL and half characters: a name made of them must not stop the verdict from being stored."""
    name = "N\x00\ud800\x1b[31m" + "e" * 3000
    raw = name.encode("utf-8", "surrogatepass")
    content = b"\x80\x04" + short("somewhere") + b"X" + struct.pack("<L", 9) + raw[:9] + b"\x93)\x81."
    answer = judge(content, "model.pkl\x00" + "x" * 3000)
    for finding in answer["findings"]:
        for text in (finding["path"], finding["message"]):
            assert text.isprintable()
            assert len(text) <= 500


def test_many_harmless_findings_do_not_hide_the_bad_one(judge: Any) -> None:
    names = b"".join(short(f"m{number}") + short("f") + b"\x930" for number in range(300))
    answer = judge(b"\x80\x04" + names + b"cos\nsystem\n.", "model.pkl", findings=4)
    assert answer["verdict"] == "malicious"
    assert answer["findings"][0]["rule"] == "pickle.gadget"
    assert answer["left_out"] > 290
    crowd = packed({f"m{number:03}.bin": b"\x93\x01\x02" for number in range(20)} | {"z.pkl": b"cos\nsystem\n)R."})
    answer = judge(crowd, findings=4)
    assert answer["findings"][0]["rule"] == "pickle.gadget"
    assert len(answer["findings"]) == 4


def test_bytes_that_only_look_like_a_pickle_are_data(judge: Any) -> None:
    assert judge(pickle.dumps({"weights": b"\x80\x03 random bytes ."}))["verdict"] == "clean"


def test_walk_agrees_with_the_standard_library_about_every_opcode() -> None:
    from pipeline.readers.opcodes import STEPS

    assert {ord(opcode.code) for opcode in pickletools.opcodes} - {ord(".")} == set(STEPS)


# Archives


def flipped(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def twice(benign: dict[str, Path]) -> bytes:
    content = members(benign["traced.pt"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("traced/data.pkl", pickle.dumps(Payload(os.system, COMMAND)))
    return buffer.getvalue()


def renamed_locally(content: bytes) -> bytes:
    return flipped(content, content.index(b"traced/data.pkl"), b"traced/DATA.pkl")


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("model/data")
        entry.create_system, entry.external_attr = 3, 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def gapped() -> bytes:
    """Two members with four bytes between them, all offsets put right."""
    content = packed({"a": b"1", "b": b"2"})
    second, directory = content.index(b"PK\x03\x04", 1), content.index(b"PK\x01\x02")
    entry = content.index(b"PK\x01\x02", directory + 1)
    content = flipped(content, entry + 42, struct.pack("<L", second + 4))
    content = flipped(content, len(content) - 6, struct.pack("<L", directory + 4))
    return content[:second] + b"junk" + content[second:]


def overlapping() -> bytes:
    """Two central entries that share one local one: the quine-like bombs are made of these."""
    one = packed({"a": b"x" * 100})
    start = one.index(b"PK\x01\x02")
    entry = one[start : one.index(b"PK\x05\x06")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), start, 0)
    return one[:start] + entry + entry.replace(b"a", b"b") + end


HOSTILE_ARCHIVES: dict[str, tuple[Callable[[dict[str, Path]], bytes], str]] = {
    "second data.pkl": (twice, "zip.duplicate"),
    "second data.pkl in capitals": (
        lambda b: changed(b["traced.pt"], lambda m: m.update({"traced/DATA.pkl": b"N."})),
        "zip.duplicate",
    ),
    "local name differs": (lambda b: renamed_locally(packed(members(b["traced.pt"]))), "zip.mismatch"),
    "local flags differ": (lambda b: flipped(packed(members(b["traced.pt"])), 6, b"\x00\x08"), "zip.mismatch"),
    "encrypted": (
        lambda b: packed({"a": b"1"}).replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "zip.encrypted",
    ),
    "checksum lies": (lambda b: packed({"a": b"one two"}).replace(b"one two", b"one 2wo", 1), "zip.checksum"),
    "bytes before it": (lambda b: b"PK\x03\x04" + b["traced.pt"].read_bytes(), "zip.end64"),
    "script before it": (lambda b: b"#!/bin/sh\nid\n" + packed({"a": b"1"}), "content.code"),
    "bytes behind it": (lambda b: b["traced.pt"].read_bytes() + b"\x80\x04N.", "zip.suffix"),
    "comment": (lambda b: packed({"a": b"1"})[:-2] + b"\x02\x00hi", "zip.suffix"),
    "gap between members": (lambda b: gapped(), "zip.gap"),
    "overlapping members": (lambda b: overlapping(), "zip.overlap"),
    "path that climbs out": (lambda b: packed({"../../etc/cron.d/x": b"1"}), "zip.traversal"),
    "absolute path": (lambda b: packed({"/etc/cron.d/x": b"1"}), "zip.traversal"),
    "link": (lambda b: linked(), "zip.link"),
    "bomb": (lambda b: packed({"a": b"\0" * (64 << 20)}, zipfile.ZIP_DEFLATED), "limit.ratio"),
    "unknown compression": (lambda b: packed({"a": b"1" * 100}, zipfile.ZIP_LZMA), "zip.method"),
    "native code": (lambda b: packed({"a/lib.so": b"\x7fELF" + bytes(60)}), "content.native_code"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_archive_that_lies_is_stopped(benign: dict[str, Path], judge: Any, name: str) -> None:
    build, rule = HOSTILE_ARCHIVES[name]
    answer = judge(build(benign), "model.pt")
    assert answer["verdict"] != "clean"
    assert rule in rules(answer), answer["findings"]


def test_limits_end_the_reading(judge: Any) -> None:
    many = packed({f"m{number}.txt": b"text" for number in range(50)})
    assert rules(judge(many, members=49)) == {"limit.members"}
    assert "limit.inflated" in rules(judge(packed({"a": b"abc " * 1000}, zipfile.ZIP_DEFLATED), inflated=3000))
    nested = b"text"
    for _ in range(6):
        nested = packed({"inner": nested})
    assert rules(judge(nested)) == {"limit.depth"}
    assert rules(judge(pickle.dumps(list(range(1000))), opcodes=100)) == {"limit.opcodes"}
    assert rules(judge(many, seconds=0.0)) == {"limit.time"}


def test_members_of_a_plain_archive_are_judged_one_by_one(judge: Any) -> None:
    answer = judge(packed({"a.txt": b"hello", "deep/b.pkl": pickle.dumps(Payload(os.system, COMMAND))}), "set.zip")
    assert answer["verdict"] == "malicious"
    assert {finding["path"] for finding in answer["findings"]} == {"set.zip!deep/b.pkl"}


# TorchScript


def with_code(benign: dict[str, Path], line: str) -> bytes:
    def change(content: dict[str, bytes]) -> None:
        name = next(name for name in content if name.endswith("container.py"))
        content[name] = content[name].replace(b"    return ", f"    {line}\n    return ".encode(), 1)

    return changed(benign["rich.pt"], change)


@pytest.mark.parametrize(
    "line",
    [
        'torch.save(input, "/tmp/slipway-canary")',
        'ops.aten.save(input, "/tmp/slipway-canary")',
        'x = torch.from_file("/etc/passwd", False, 10)',
        '(input).save("/tmp/slipway-canary")',
        '0..save("/tmp/slipway-canary")',
        'torch . save(input, "f")',
        'x = getattr(input, "save")',
        'x = getattr(input, "s\\141ve")',
        "x = ops.prim.PythonOp(input)",
        'x = ops.prim.rpc_sync("other", "f", ())',
        'x = ops.image.read_file("/etc/passwd")',
        "x = __torch__.torch.classes._nnapi.Compilation()",
        "t = torch",
        "import os",
        "x = 'a' # type: int",
        'x = ""\'"" + torch.save(input, "f") + ""\'""',
    ],
)
def test_script_that_could_reach_files_is_stopped(benign: dict[str, Path], judge: Any, line: str) -> None:
    answer = judge(with_code(benign, line), "rich.pt")
    assert answer["verdict"] != "clean", line
    assert all(finding["rule"].startswith("torchscript.") for finding in answer["findings"])


def test_script_with_a_harmless_line_more_is_clean(benign: dict[str, Path], judge: Any) -> None:
    """Else the test above would pass for a reader that refuses every change."""
    line = 'x = torch.add(input, 1.5e-3) if torch.eq(torch.dim(input), 2) else ops.aten.relu(input) # "save"'
    assert judge(with_code(benign, line), "rich.pt")["verdict"] == "clean"


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl", "code/__torch__.py.debug_pkl"])
def test_every_pickle_of_a_script_archive_is_read(benign: dict[str, Path], judge: Any, name: str) -> None:
    payload = pickle.dumps(Payload(os.system, COMMAND), 2)
    content = changed(benign["rich.pt"], lambda m: m.update({f"rich/{name}": payload}))
    assert "pickle.gadget" in rules(judge(content, "rich.pt"))


def test_script_archive_holds_nothing_that_torch_does_not_write(benign: dict[str, Path], judge: Any) -> None:
    extra = {"rich/bytecode.pkl": b"N.", "rich/data/999": b"1234", "rich/model.json": b"{}", "rich/run.sh": b"id"}
    for name, data in extra.items():
        answer = judge(changed(benign["rich.pt"], lambda m, n=name, d=data: m.update({n: d})), "rich.pt")
        assert rules(answer) & {"torch.member", "torch.orphan"}, name
    shorter = changed(benign["rich.pt"], lambda m: m.update({"rich/data/0": m["rich/data/0"][:-1]}))
    assert "torch.record" in rules(judge(shorter, "rich.pt"))


# torch.export


def with_program(benign: dict[str, Path], change: Callable[[dict[str, Any]], object], name: str = "dynamic") -> bytes:
    def rewrite(content: dict[str, bytes]) -> None:
        path = f"{name}/models/model.json"
        program = json.loads(content[path])
        change(program)
        content[path] = json.dumps(program).encode()

    return changed(benign[f"{name}.pt2"], rewrite)


def set_expression(program: dict[str, Any], text: str) -> None:
    values = program["graph_module"]["graph"]["tensor_values"].values()
    next(side for meta in values for side in meta["sizes"] if "as_expr" in side)["as_expr"]["expr_str"] = text


@pytest.mark.parametrize(
    "text",
    [
        f"__import__('os').system('{COMMAND}')",
        "Symbol('s0').__class__",
        "Symbol('s0', positive=__import__('os'))",
        "[x for x in ().__class__.__bases__]",
        "lambda: 1",
        "sympify('1')",
        "9**9**9**9",
        "Pow(Integer(10), Integer(1000000000))",
        "Integer(1).__add__",
        "exec",
        "S('os')",
        "1 if True else 2",
        "f'{1}'",
        "Symbol('s0') ; 1",
        "(" * 3000 + ")" * 3000,
    ],
)
def test_symbolic_size_that_is_more_than_arithmetic_is_malicious(
    benign: dict[str, Path], judge: Any, text: str
) -> None:
    answer = judge(with_program(benign, lambda program: set_expression(program, text)), "dynamic.pt2")
    assert answer["verdict"] == "malicious"
    assert rules(answer) == {"pt2.expression"}


def test_symbolic_arithmetic_is_understood() -> None:
    for text in (
        "s17", "u0", "2*s0 + 1", "s0//2", "Max(1, s0)", "oo", "-int_oo", "True", "s0**2",
        "Symbol('s17', positive=True, integer=True)", "Eq(Mod(Symbol('s1', integer=True), Integer(8)), Integer(0))",
        "Add(Mul(Integer(4), Symbol('s17', positive=True, integer=True)), Integer(-2))", "Float('1.5', precision=53)",
        "Pow(Symbol('s0', integer=True), Integer(-1))", "And(StrictLessThan(s0, Integer(4)), Ne(s0, s1))",
    ):  # fmt: skip
        assert is_expression(text), text
    assert is_guard("L['y'].size()[0] == L['x'].size()[0]")
    assert is_guard("2 <= L['args'][0]['k'].size()[1] and 3*L['x'].stride()[0] != 5")
    for text in ("__import__('os')", "L['x'].__class__", "L.x", "exec('1')", "L['x'](1)", "1" * 500 + "@"):
        assert not is_guard(text), text


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda p: p["graph_module"]["graph"]["nodes"][0].update(target="torch.ops.aten.from_file.default"), "pt2.operator"),
        (lambda p: p["graph_module"]["graph"]["nodes"][0].update(target="torch.hub.load"), "pt2.operator"),
        (lambda p: p["graph_module"]["graph"]["nodes"][0].update(target="_operator.attrgetter"), "pt2.operator"),
        (lambda p: p["graph_module"]["graph"]["nodes"][0].update(target="torch.ops.load_library.x"), "pt2.operator"),
        (lambda p: p["graph_module"]["graph"]["nodes"][0].update(target="#mine:f"), "pt2.operator"),
        (lambda p: p.update(guards_code=["__import__('os').system('id')"]), "pt2.guard"),
        (lambda p: p["range_constraints"].update({"__import__('os')": {"min_val": 0, "max_val": 1}}), "pt2.expression"),
        (lambda p: p.update(surprise=1), "pt2.schema"),
        (lambda p: p.pop("schema_version"), "pt2.schema"),
        (lambda p: p.update(torch_version=["2.13"]), "pt2.schema"),
        (
            lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
                in_spec='[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'
            ),
            "pt2.tree",
        ),
    ],
)  # fmt: skip
def test_program_that_differs_from_the_schema_is_stopped(
    benign: dict[str, Path], judge: Any, change: Callable[[dict[str, Any]], object], rule: str
) -> None:
    answer = judge(with_program(benign, change), "dynamic.pt2")
    assert answer["verdict"] != "clean"
    assert rule in rules(answer)


def test_exported_archive_holds_no_native_code_and_no_pickles(benign: dict[str, Path], judge: Any) -> None:
    payload = pickle.dumps(Payload(os.system, COMMAND))
    samples = packed({"archive/data.pkl": payload, "archive/version": b"3\n"})
    cases = {
        "data/aotinductor/model/x.so": (b"\x7fELF" + bytes(60), "pt2.native_code"),
        "extra/x.txt": (b"\x7fELF" + bytes(60), "pt2.native_code"),
        "data/constants/opaque_obj_0": (payload, "pt2.pickled_payload"),
        "data/weights/model.pt": (payload, "pt2.pickled_payload"),
        "data/sample_inputs/model.pt": (samples, "pickle.gadget"),
        "data/weights/weight_99": (b"1234", "pt2.orphan"),
        "hook.py": (b"import os", "pt2.member"),
    }
    for name, (data, rule) in cases.items():
        answer = judge(changed(benign["dynamic.pt2"], lambda m, n=name, d=data: m.update({f"dynamic/{n}": d})))
        assert answer["verdict"] != "clean"
        assert rule in rules(answer), name


def test_weights_that_claim_to_be_pickled_or_longer_than_they_are_are_stopped(
    benign: dict[str, Path], judge: Any
) -> None:
    path = "dynamic/data/weights/model_weights_config.json"

    def edit(change: Callable[[dict[str, Any]], object]) -> bytes:
        def rewrite(content: dict[str, bytes]) -> None:
            config = json.loads(content[path])
            change(config["config"]["0.weight"])
            content[path] = json.dumps(config).encode()

        return changed(benign["dynamic.pt2"], rewrite)

    assert "pt2.pickled_payload" in rules(judge(edit(lambda entry: entry.update(use_pickle=True))))
    longer = edit(lambda entry: entry["tensor_meta"]["sizes"][0].update(as_int=999))
    assert rules(judge(longer)) == {"pt2.record"}
    elsewhere = edit(lambda entry: entry.update(path_name="../../models/model.json"))
    assert "pt2.record" in rules(judge(elsewhere))


# ONNX, safetensors, arrays


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
    return model.SerializeToString()


def external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = 1
        tensor.external_data.add(key="location", value=location)

    return change


def nest(model: Any) -> None:
    from onnx import helper

    graph = model.graph
    for _ in range(30):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    model.graph.CopyFrom(graph)


HOSTILE_ONNX = {
    "external data outside": (onnx_model(external("/etc/passwd")), "onnx.external_path"),
    "external data above": (onnx_model(external("../../secret")), "onnx.external_path"),
    "external data in memory": (onnx_model(external("*/_ORT_MEM_ADDR_/*")), "onnx.external_path"),
    "external data beside": (onnx_model(external("weights.bin")), "onnx.external_data"),
    "custom operator": (onnx_model(lambda m: m.graph.node[0].MergeFromString(b"\x3a\x04evil")), "onnx.custom_operator"),
    "operator that loads native code": (
        onnx_model(lambda m: (setattr(m.graph.node[0], "op_type", "EPContext"), setattr(m.graph.node[0], "domain", "com.microsoft"))),
        "onnx.operator",
    ),
    "tensor shorter than its shape": (onnx_model(lambda m: m.graph.initializer[0].dims.append(1 << 40)), "onnx.tensor_size"),
    "negative size": (onnx_model(lambda m: m.graph.initializer[0].dims.append(-1)), "onnx.tensor"),
    "data twice": (onnx_model(lambda m: setattr(m.graph.initializer[0], "raw_data", bytes(8))), "onnx.tensor"),
    "bytes behind it": (onnx_model() + b"\x00junk", "onnx.unknown_field"),
    "unknown field": (onnx_model() + b"\xfa\x07\x03abc", "onnx.unknown_field"),
    "second graph": (onnx_model() + b"\x3a\x00", "onnx.repeated_field"),
    "cut": (onnx_model()[:-5], "content.truncated"),
    "endless number": (onnx_model() + b"\x28" + b"\xff" * 11, "onnx.varint"),
    "session options": (
        onnx_model(lambda m: m.metadata_props.add(key="ort_config", value="{}")),
        "onnx.session_options",
    ),
    "deep graphs": (onnx_model(nest), "limit.nesting"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_ONNX)
def test_onnx_that_reaches_out_or_hides_bytes_is_stopped(judge: Any, name: str) -> None:
    content, rule = HOSTILE_ONNX[name]
    assert judge(onnx_model(), "model.onnx")["verdict"] == "clean"
    answer = judge(content, "model.onnx")
    assert answer["verdict"] != "clean"
    assert rule in rules(answer), answer["findings"]


def safetensors(header: Any, data: bytes = bytes(16)) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def f32(begin: int, end: int, count: int | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4 if count is None else count], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (safetensors({"a": f32(0, 12), "b": f32(8, 16)}), "safetensors.overlap"),
        (safetensors({"a": f32(0, 4), "b": f32(8, 16)}), "safetensors.hole"),
        (safetensors({"a": f32(0, 8)}), "safetensors.length"),
        (safetensors({"a": f32(0, 32)}), "safetensors.length"),
        (safetensors({"a": f32(0, 16, 5)}), "safetensors.size"),
        (safetensors({"a": {**f32(0, 16), "dtype": "F99"}}), "safetensors.size"),
        (safetensors({"a": {**f32(0, 16), "more": 1}}), "safetensors.tensor"),
        (safetensors({"a": {**f32(0, 16), "shape": [4.0]}}), "safetensors.tensor"),
        (safetensors({"a": f32(0, 16), "__metadata__": {"a": 1}}), "safetensors.metadata"),
        (safetensors(b'{"a": 1, "a": 2}'), "json.duplicate"),
        (safetensors(b'{"a": NaN}'), "json.invalid"),
        (safetensors(b'{"a"'), "json.invalid"),
        (safetensors(b"{" + b"[" * 100_000), "json.invalid"),
        (struct.pack("<Q", 1 << 36) + b"{" + bytes(100), "safetensors.header"),
    ],
)
def test_safetensors_that_does_not_add_up_is_stopped(judge: Any, content: bytes, rule: str) -> None:
    assert judge(safetensors({"a": f32(0, 8), "b": f32(8, 16)}))["verdict"] == "clean"
    answer = judge(content, "model.safetensors")
    assert answer["verdict"] == "unknown"
    assert rules(answer) == {rule}


def test_arrays_of_objects_are_stopped(judge: Any) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Payload(os.system, COMMAND)], dtype=object))
    answer = judge(buffer.getvalue(), "calibration.npz")
    assert rules(answer) == {"numpy.objects", "pickle.gadget"}
    assert answer["verdict"] == "malicious"


# Text


SECRETS = {
    "aws": "key = AKIA" + "ABCDEFGHIJKLMNOP",
    "github": "token: ghp_" + "a1B2" * 9,
    "hugging face": "HF=hf_" + "AbCd" * 9,
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "url": "postgres://admin:" + "correct-horse@db.internal/x",
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_found_and_not_repeated(judge: Any, name: str) -> None:
    answer = judge(f"# settings\n{SECRETS[name]}\n".encode(), "config.txt")
    [finding] = answer["findings"]
    assert answer["verdict"] == "unknown"
    assert finding["rule"] == "secret"
    assert finding["offset"] >= len("# settings\n")
    assert SECRETS[name].split("=")[-1].split(":")[-1].strip()[4:] not in finding["message"]


@pytest.mark.parametrize(
    ("name", "text", "verdict"),
    [
        ("config.yaml", "a: !!python/object/apply:os.system ['id']", "malicious"),
        ("config.txt", "a: !<tag:yaml.org,2002:python/object/new:os.system> x", "malicious"),
        ("config.yaml", "a: !Custom {b: 1}", "unknown"),
        ("config.yaml", "%TAG ! tag:example.org,2000:\n---\na: 1", "unknown"),
        ("config.yaml", "- ! text", "unknown"),
        ("requirements.txt", "--extra-index-url https://example.org/simple", "unknown"),
        ("requirements.txt", "-e .", "unknown"),
        ("requirements.txt", "torch @ git+https://example.org/torch.git", "unknown"),
        ("requirements.txt", "https://example.org/x.whl", "unknown"),
        ("requirements.txt", "./local.whl", "unknown"),
        ("requirements.txt", "-r other.txt", "unknown"),
        ("requirements.txt", "a" + "!" * 5000, "unknown"),
        ("config.json", '{"a": 1, "a": 2}', "unknown"),
        ("config.json", "[" * 100_000, "unknown"),
        ("config.txt", "text\x00with\x01controls", "unknown"),
    ],
)
def test_side_file_that_does_more_than_configure_is_stopped(judge: Any, name: str, text: str, verdict: str) -> None:
    answer = judge(text.encode(), name)
    assert answer["verdict"] == verdict, answer["findings"]


def test_oversized_documents_are_stopped(judge: Any) -> None:
    assert rules(judge(b"[" + b"1," * 600 + b"1]", "config.json", text=1000)) == {"text.oversized"}


# What the lists were made from


def test_lists_copied_from_the_frameworks_still_agree_with_them() -> None:
    import onnx
    import torch
    import yaml
    from onnx import onnx_ml_pb2

    from pipeline.readers.export_schema import ENUMS, STRUCTS, UNIONS
    from pipeline.readers.onnx_schema import MESSAGES
    from pipeline.readers.torch_ops import FORBIDDEN, OPERATORS

    wire = {1: "double", 2: "float", 9: "text", 12: "bytes"}

    def described(message: Any) -> dict[str, Any]:
        fields = {
            one.number: (
                one.name,
                one.message_type.full_name.removeprefix("onnx.") if one.message_type else wire.get(one.type, "int"),
                bool(one.is_repeated),
            )
            for one in message.fields
        }
        return {message.full_name.removeprefix("onnx."): fields} | {
            name: inner for nested in message.nested_types for name, inner in described(nested).items()
        }

    messages = onnx_ml_pb2.DESCRIPTOR.message_types_by_name.values()
    assert {name: fields for one in messages for name, fields in described(one).items()} == MESSAGES, onnx.__version__

    available: dict[str, set[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        namespace, name = schema.name.split("::")
        available.setdefault(namespace, set()).add(name)
    unvetted = {f"aten::{name}" for name in available["aten"] - OPERATORS["aten"]}
    assert unvetted == {one for one in FORBIDDEN if one.startswith("aten::")}
    takes_paths = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        for argument in schema.arguments
        if any(word in argument.name for word in ("file", "path", "uri", "url")) and str(argument.type) == "str"
    }
    assert {one for one in takes_paths if one.split("::")[1] in OPERATORS.get(one.split("::")[0], ())} == set()

    folder = Path(torch.__file__).parent
    table = yaml.safe_load((folder / "_export/serde/schema.yaml").read_text())
    for kind, copied in (("struct", STRUCTS), ("union", UNIONS)):
        for name, fields in copied.items():
            original = table[name]["fields"]
            assert table[name]["kind"] == kind
            assert {key: value.removesuffix(" =") for key, value in fields.items()} == {
                key: value["type"] for key, value in original.items()
            }
    for name, numbers in ENUMS.items():
        assert numbers == set(table[name]["fields"].values())


def test_readers_need_the_standard_library_only() -> None:
    """They run in a child that should load nothing it does not need."""
    code = (
        "import sys; import pipeline.readers as r; r.discover();"
        "heavy = {'torch', 'onnx', 'numpy', 'yaml', 'pydantic', 'sqlalchemy'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_large_files_are_read_with_flat_memory(tmp_path: Path) -> None:
    """A sparse gigabyte of weights: peak memory must not follow the size of the file."""
    path, size = tmp_path / "large.safetensors", 1 << 30
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    archive = tmp_path / "large.zip"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    with zipfile.ZipFile(archive, "w") as packed_file, packed_file.open("a/w.safetensors", "w") as member:
        member.write(struct.pack("<Q", len(header[:-1].replace(b"1073741824", b"0268435456"))))
        for _ in range(256):
            member.write(bytes(1 << 20))
    # Not ru_maxrss: that begins with what the parent had when it forked.
    code = (
        "import re, sys; from pathlib import Path; from pipeline.readers import examine;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "before = peak();"
        "[examine(path, 'm') for path in sys.argv[1:]];"
        "print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(archive)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert int(done.stdout) < 32 << 10  # KiB
