"""What a pickle does that no framework does is not clean: names, arguments, states, and tricks on the machine."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.readers.allowed import frameworks
from pipeline.readers.gadgets import is_gadget
from pipeline.readers.words import words
from tests.readers.hostile_pickles import (
    COMMAND,
    DTYPE,
    EMPTY,
    Payload,
    dtype,
    judged,
    rules,
    shell,
    text,
)
from tests.readers.pickle_files import named, short

ROOT = Path(__file__).parent.parent.parent


# Hostile: names


GADGETS = words("""
    os.system posix.system nt.system os.popen os.execv os.spawnl os.remove subprocess.run subprocess.Popen
    subprocess.check_output builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr
    builtins.__import__ builtins.map builtins.breakpoint __builtin__.eval __builtin__.apply importlib.import_module
    pkgutil.resolve_name pydoc.locate pydoc.pipepager timeit.timeit timeit.main runpy.run_path runpy._run_code
    code.InteractiveInterpreter code.interact codeop.compile_command bdb.Bdb pdb.run cProfile.run profile.run
    trace.Trace pty.spawn socket.create_connection shutil.rmtree ctypes.CDLL ctypes.util.find_library
    numpy.testing._private.utils.runstring numpy.f2py.crackfortran.myeval numpy.load numpy.memmap numpy.fromfile
    torch.load torch.hub.load torch.utils._config_module.load_config torch._dynamo.guards.GuardBuilder.get
    torch.jit.unsupported_tensor_ops.execWrapper torch.fx.graph_module.reduce_graph_module torch.package.PackageImporter
    torch._inductor.codecache.compile_file torch.utils.collect_env.run torch.utils.bottleneck.__main__.run_cprofile
    torch.distributed.rpc.rpc_sync torch.serialization.load torch.ops.load_library idlelib.pyshell.ModifiedInterpreter
    idlelib.autocomplete.AutoComplete.get_entity lib2to3.pgen2.grammar.Grammar.loads lib2to3.pgen2.pgen.ParserGenerator
    asyncio.unix_events._UnixSubprocessTransport._start types.CodeType types.FunctionType functools.reduce
    functools.partialmethod operator.methodcaller operator.attrgetter operator.itemgetter _operator.methodcaller
    itertools.starmap itertools.accumulate multiprocessing.util.spawnv_passfds ensurepip._run_pip pip.main
    doctest.debug_script inspect.getattr_static logging.config.dictConfig webbrowser.open antigravity.geohash
    pickle.loads _pickle.loads marshal.loads dill.loads cloudpickle.loads joblib.load pandas.read_pickle pandas.eval
    pandas.io.common.urlopen sys.exit sys.modules gc.get_objects signal.raise_signal atexit.register urllib.request.urlopen
    http.client.HTTPConnection tempfile.mktemp zipimport.zipimporter sympy.sympify keras.models.load_model
    sklearn.externals.joblib.load distutils.spawn.spawn setuptools.sandbox.run_setup cgitb.lookup ast.literal_eval
    io.open _io.FileIO linecache.getlines fileinput.input mmap.mmap tracemalloc.Snapshot.load
    some.package.os.system other.subprocess.Popen third._private.builtins.eval
""")


@pytest.mark.parametrize("name", sorted(GADGETS))
def test_known_gadget_is_malicious_however_it_is_written(name: str) -> None:
    module, function = name.rsplit(".", 1)
    for content in (
        b"\x80\x04" + named(module, function) + short("x") + b"\x85R.",
        b"c" + f"{module}\n{function}\n".encode() + b"(S'x'\ntR.",
        b"\x80\x02(X\x01\x00\x00\x00xi" + f"{module}\n{function}\n".encode() + b".",
        b"\x80\x02c" + f"{module}\n{function}\n".encode() + b")\x81}b.",
    ):
        answer = judged(content)
        if name == "builtins.getattr":
            assert answer["verdict"] != "clean"
        else:
            assert answer["verdict"] == "malicious", (content, answer["findings"])


UNVETTED = words("""
    somewhere.Model sklearn.datasets._base.load_files sklearn.utils.Memory scipy.stats._continuous_distns.norm_gen
    scipy.sparse.linalg._interface.LinearOperator xgboost.core.DMatrix lightgbm.basic.Dataset torch.cuda.Stream
    torch.utils.data.dataset.Dataset ultralytics.utils.downloads.safe_download models.yolo.Model numpy.vectorize
    transformers.modeling_utils.PreTrainedModel joblib.numpy_pickle.NDArrayWrapper joblib.memory.Memory
    sklearn.externals.joblib.numpy_pickle.ZNDArrayWrapper my.code.Model sql.functools_like.Thing
""")


@pytest.mark.parametrize("name", sorted(UNVETTED))
def test_unlisted_name_is_unknown_and_called_by_its_name(name: str) -> None:
    module, function = name.rsplit(".", 1)
    content = b"\x80\x04" + named(module, function) + b")\x81."
    [finding] = judged(content)["findings"]
    assert finding["severity"] == "unknown"
    assert name in finding["message"]
    assert finding["offset"] == content.index(b"\x93")


def test_lists_let_no_gadget_through() -> None:
    allowed = frameworks()
    reviewed = {("functools", "partial"), ("torch.storage", "_load_from_bytes"), ("torch.serialization", "_get_layout")}
    listed = {*allowed.calls, *allowed.names, *allowed.classes, *allowed.members}
    outside = {pair for pair in listed if is_gadget(*pair) and pair[0] not in ("builtins", "__builtin__")}
    assert len(listed) > 3000
    assert outside <= reviewed
    assert not {name for module, name in listed if module in ("builtins", "__builtin__")} & {
        "eval", "exec", "compile", "open", "__import__", "map", "filter", "apply", "input", "globals", "vars", "setattr",
    }  # fmt: skip
    assert not {pair for pair in listed if "." in pair[1]}


# Hostile: what vetted names are called with


CROOKED = {
    "getattr of something": named("builtins", "getattr") + named("torch", "Tensor") + short("save") + b"\x86R",
    "getattr of a file mapping": named("builtins", "getattr") + named("torch._C", "_VariableFunctionsClass") + short("from_file") + b"\x86R",
    "partial of a function": named("functools", "partial") + named("torch.nn.functional", "relu") + b"\x85R",
    "partial with another function": named("functools", "partial") + named("torch.nn.modules.normalization", "LayerNorm")
    + b"\x85R(" + named("sklearn.svm._classes", "SVC") + b")}Ntb",
    "default of a class": named("collections", "defaultdict") + named("sklearn.svm._classes", "SVC") + b"\x85R",
    "default of a function": named("collections", "defaultdict") + named("numpy", "log") + b"\x85R",
    "array with a size": named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"J\xff\xff\xff\x7f\x85C\x01b\x87R",
    "array of a class": named("numpy.core.multiarray", "_reconstruct") + named("sklearn.svm._classes", "SVC") + b"K\x00\x85C\x01b\x87R",
    "array shorter than its shape": EMPTY + b"(K\x01K\x09\x85" + dtype("f8", 0) + b"\x89C\x08" + bytes(8) + b"tb",
    "objects from bytes": EMPTY + b"(K\x01K\x01\x85" + dtype("O8", 63) + b"\x89C\x08" + bytes(8) + b"tb",
    "objects without their flags": EMPTY + b"(K\x01K\x01\x85" + dtype("O8", 0) + b"\x89C\x08" + bytes(8) + b"tb",
    "objects in a field, flags denied": dtype("V8", 0, b"N" + short("a") + b"\x85}" + short("a") + dtype("O8", 63) + b"K\x00\x86s"),
    "field beyond its structure": dtype("V8", 16, b"N" + short("a") + b"\x85}" + short("a") + dtype("f8", 0) + b"K\x04\x86s"),
    "dtype changed after its use": dtype("f8", 0) + b"\x94" + EMPTY + b"(K\x01K\x01\x85h\x00\x89C\x08" + bytes(8)
    + b"tb0h\x00(K\x03" + short("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
    "numpy's own dtype": DTYPE + short("f8") + b"\x85R(K\x03" + short(">") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
    "scalar of objects": named("numpy.core.multiarray", "scalar") + dtype("O8", 63) + b"C\x08" + bytes(8) + b"\x86R",
    "generator that calls": named("numpy.random._pickle", "__generator_ctor") + short("x") + named("numpy", "log") + b"\x86R",
    "bit generator of a class": named("numpy.random._pickle", "__bit_generator_ctor") + named("sklearn.svm._classes", "SVC") + b"\x85R",
    "reconstructor of a name": named("copyreg", "_reconstructor") + named("numpy", "log") + named("builtins", "object") + b"N\x87R",
    "reconstructor with a base": named("copyreg", "_reconstructor") + named("sklearn.svm._classes", "SVC") + named("sklearn.svm._classes", "SVC") + b"N\x87R",
    "constructor that is called": named("sklearn.svm._classes", "SVC") + short("x") + b"\x85R",
    "class made with arguments": named("sklearn.svm._classes", "SVC") + short("x") + b"\x85\x81",
    "class made with options": named("sklearn.svm._classes", "SVC") + b")}" + short("a") + short("b") + b"s\x92",
    "booster that opens a file": named("xgboost.core", "Booster") + b"N)" + short("/etc/passwd") + b"\x87R",
    "function that is called": named("numpy", "log") + b"K\x01\x85R",
    "tensor of another function": named("torch._tensor", "_rebuild_from_type_v2") + named("numpy", "log") + named("torch", "Tensor") + b")Nt",
    "type with a base": named("builtins", "type") + short("X") + b")}\x87R",
    "endless fraction": named("fractions", "Fraction") + short("1e999999999") + b"\x85R",
    "endless bytes": named("builtins", "bytes") + b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85R",
    "filled after it was complete": named("sklearn.svm._classes", "SVC") + b")\x81}" + short("append") + named("numpy", "log") + b"sbK\x01a",
    "complete twice": named("sklearn.svm._classes", "SVC") + b")\x81}b}b",
    "items for an estimator": named("sklearn.svm._classes", "SVC") + b")\x81" + short("a") + b"K\x01s",
    "key that is computed": named("sklearn.svm._classes", "SVC") + b")\x81}" + named("_codecs", "encode") + short("x") + short("latin1") + b"\x86RK\x01sb",
    "state that is no dict": named("sklearn.svm._classes", "SVC") + b")\x81K\x05b",
    "state of a number": b"K\x05}b",
    "other encoding": named("_codecs", "encode") + short("x") + short("hex") + b"\x86R",
    "iterates over an instance": named("builtins", "set") + named("torch.nn.modules.container", "Sequential") + b")\x81\x85R",
    "enum that is made": named("sklearn.ensemble._hist_gradient_boosting.common", "MonotonicConstraint") + named("numpy", "log") + b"\x85R",
    "getattr of an enum's own": named("builtins", "getattr") + named("torchvision.transforms.functional", "InterpolationMode") + short("__init__") + b"\x86R",
    "index of another class": named("pandas.core.indexes.base", "_new_Index") + named("sklearn.svm._classes", "SVC") + b"}\x86R",
    "cython helper of another class": named("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked") + named("numpy", "log") + b"K\x01N\x87R",
    "torch inside that is none": named("torch.storage", "_load_from_bytes") + b"C\x05hello\x85R",
}  # fmt: skip


@pytest.mark.parametrize("name", CROOKED)
def test_vetted_name_used_as_nobody_uses_it_is_stopped(name: str) -> None:
    answer = judged(b"\x80\x04" + CROOKED[name] + b".")
    assert answer["verdict"] != "clean"
    assert rules(answer) <= {"pickle.arguments", "pickle.state", "pickle.fill", "pickle.unvetted_call", "content.unrecognised", "text.binary", "pickle.special_attribute", "pickle.broken"}, answer["findings"]  # fmt: skip


@pytest.mark.parametrize("attribute", ["__class__", "__setstate__", "__reduce_ex__", "__dict__", "__call__", "__del__"])
def test_state_that_would_change_what_an_object_is_is_malicious(attribute: str) -> None:
    made = b"\x80\x04" + named("sklearn.svm._classes", "SVC") + b")\x81"
    many = b"".join(short(f"a{number}") + b"K\x01s" for number in range(70_000))
    for state in (
        b"}" + short(attribute) + b"Ns",
        b"N}" + short(attribute) + b"Ns\x86",
        b"}" + text(attribute) + named("numpy", "log") + b"s",
    ):
        assert judged(made + state + b"b.")["verdict"] == "malicious"
    assert judged(made + b"}" + many + short(attribute) + b"Nsb.")["verdict"] != "clean"


# Hostile: the machine


STRUCTURES = {
    "payload after the end": pickle.dumps([1]) + b"cos\nsystem\n(S'true'\ntR.",
    "payload between two pickles": pickle.dumps([1]) + shell() + pickle.dumps([2]),
    "nested in bytes": pickle.dumps({"a": shell()}),
    "nested in bytes, cut": pickle.dumps({"a": shell(2)[:-1]}),
    "nested in bytes that are a text": pickle.dumps({"a": shell(2)}, 2),
    "nested in long bytes that are a text": pickle.dumps({"a": shell(2) + b"\x80\x02." * 500}, 2),
    "nested in letters": pickle.dumps({"a": shell(0)}),
    "nested in a text": pickle.dumps({"a": shell(0).decode()}),
    "nested in a text, protocol 0": pickle.dumps({"a": shell(0).decode()}, 0),
    "nested twice": pickle.dumps([pickle.dumps([shell()])]),
    "nested behind another": pickle.dumps({"a": pickle.dumps([1]) + shell()}),
    "in the second frame": pickle.dumps(["x" * 70_000, Payload(os.system, COMMAND)]),
    "memo overwritten": b"\x80\x04" + short("math") + b"q\x00" + short("os") + b"q\x000h\x00" + short("system") + b"\x93" + short("true") + b"\x85R.",
    "memo far away": b"\x80\x02X\x02\x00\x00\x00osr\xff\xff\xff\x7f0j\xff\xff\xff\x7fX\x06\x00\x00\x00system\x93.",
    "duplicated and dropped": b"\x80\x02cos\nsystem\n20.",
    "called and dropped": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R0N.",
    "mark dropped": b"\x80\x02(cos\nsystem\n1N.",
    "computed function": b"\x80\x02]]\x85R.",
    "name from a list": b"\x80\x04](" + short("os") + b"e" + short("system") + b"\x93.",
    "name from bytes": b"\x80\x04C\x02os" + short("system") + b"\x93.",
    "unknown opcode after the payload": shell()[:-1] + b"\xff",
    "cut in the middle of a name": b"\x80\x02cos\nsystem\n(S'true'\ntR(X\xff",
    "protocol announced twice": b"\x80\x02\x80\x04" + named("os", "system") + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_payload_is_found_wherever_it_hides(name: str) -> None:
    answer = judged(STRUCTURES[name])
    assert answer["verdict"] == "malicious", answer["findings"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + named("collections", "OrderedDict") + b")R.",  # opcodes of protocol 4
        b"\x80\x04N\x80\x04.",
        b"\x80\x02X\x01\x00\x00\x00aP0\nQ.",
        b"\x80\x02\x83\x01\x00.",
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00N\x95\x02\x00\x00\x00\x00\x00\x00\x00" + b"N0" * 10 + b".",
        b"\x80\x04NN.",
        b"\x80\x04(.",
        b"\x80\x04K\x01K\x02K\x03s.",
    ],
)
def test_pickle_that_no_pickler_writes_is_unknown(content: bytes) -> None:
    assert judged(content)["verdict"] == "unknown"


def test_deep_tuples_do_not_exhaust_anything() -> None:
    deep = b"\x80\x04)" + b"\x85" * 500_000
    wide = b"\x80\x04)" + b"\x94h\x00\x86"[:1] + b"".join(b"2\x86" for _ in range(200_000))
    called = b"\x80\x04" + named("collections", "Counter") + b")" + b"2\x86" * 100 + b"\x85R."
    for content in (deep + b".", wide + b".", called, deep + b"0" + deep[2:] + b"\x86."):
        answer = judged(content, seconds=20)
        assert answer["verdict"] in ("clean", "unknown")


def test_padding_does_not_tire_the_reader_out() -> None:
    """Text that goes on as opcodes for ever is no text."""
    padding = b"N0" * 200_000
    for content in (padding, b"S'x'\n0" * 150_000):
        assert judged(content + shell(0))["verdict"] == "malicious"
        assert judged(pickle.dumps({"a": b"\x80\x02" + content + shell(2)}))["verdict"] == "malicious"


def test_memory_does_not_follow_the_number_of_items(tmp_path: Path) -> None:
    """In a process of its own, in which nothing was given back before that could be used again unseen."""
    (tmp_path / "few").write_bytes(pickle.dumps([list(range(1000))]))
    (tmp_path / "many").write_bytes(pickle.dumps([list(range(i, i + 1000)) for i in range(1500)]))
    program = (
        "import re, sys; from pathlib import Path; from pipeline.readers import examine\n"
        "def memory(which): return int(re.search(which + r':\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "examine(sys.argv[1], 'rows.pkl'); before = memory('VmRSS')\n"
        "print(examine(sys.argv[2], 'rows.pkl')['verdict'], memory('VmHWM') - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "few"), str(tmp_path / "many")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "clean"
    assert int(said[1]) << 10 < 64 << 20
