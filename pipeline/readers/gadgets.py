"""Known ways to run code, reach files or talk to somebody.

Only decides whether a refusal says "malicious" or "unknown": it lets nothing pass.
"""

from __future__ import annotations

from pipeline.readers.words import words

_MODULES = words(
    "os posix nt ntpath posixpath subprocess sys runpy importlib pty tty socket socketserver shutil ctypes _ctypes "
    "cffi code codeop pdb bdb trace tracemalloc cProfile profile pstats timeit inspect ast dis marshal pickle _pickle "
    "pickletools cPickle cloudpickle dill shelve dbm sqlite3 webbrowser platform asyncio concurrent multiprocessing "
    "_posixsubprocess _thread threading functools operator _operator itertools builtins __builtin__ commands popen2 "
    "pkgutil pydoc zipimport zipfile zipapp tarfile imp _imp _frozen_importlib _frozen_importlib_external http urllib "
    "urllib2 httplib ftplib smtplib poplib imaplib nntplib telnetlib xmlrpc requests httpx aiohttp urllib3 ssl "
    "tempfile glob fileinput io.open io.open_code io.FileIO _io.open _io.open_code _io.FileIO codecs.open linecache "
    "logging.config logging.handlers logging.FileHandler distutils setuptools pip ensurepip venv doctest unittest "
    "pytest _pytest idlelib lib2to3 turtledemo gc atexit signal sched cgi cgitb wsgiref nturl2path antigravity this "
    "sympy _pyrepl site sitecustomize usercustomize tkinter curses readline rlcompleter cmd getpass mailcap "
    "compileall py_compile modulefinder resource _testcapi faulthandler fcntl mmap select pwd fabric paramiko sh "
    "plumbum pexpect ptyprocess torch.hub torch.utils._config_module torch.utils.cpp_extension "
    "torch.utils.collect_env torch.utils.bottleneck torch.utils.benchmark torch.utils.model_zoo torch.utils.hipify "
    "torch.utils.tensorboard torch.jit torch.serialization torch._inductor torch._dynamo torch._export "
    "torch.distributed.rpc torch.distributed.run torch.distributed.launch torch.distributed.elastic "
    "torch.distributed.distributed_c10d torch.package torch.fx torch.testing torch.load torch.save torch.ops "
    "torch.classes torch.library torch.cuda.nvrtc torch.multiprocessing torch.onnx torch.compile torch.from_file "
    "numpy.testing numpy.f2py numpy.distutils numpy.load numpy.save numpy.fromfile numpy.memmap numpy.loadtxt "
    "numpy.genfromtxt numpy.savetxt numpy.lib.npyio numpy.ctypeslib numpy.core._internal "
    "numpy.core.multiarray.fromfile numpy.lib.utils numpy.compat numpy.core.records.fromfile scipy.io joblib.load "
    "joblib.numpy_pickle.load joblib.parallel joblib.externals sklearn.externals.joblib.load sklearn.utils._testing "
    "pandas.io pandas.eval pandas.core.computation pandas.read_pickle pandas._testing tensorflow.python keras.utils "
    "keras.models keras.saving keras.src.saving xgboost.testing lightgbm.dask numexpr cython pyximport IPython "
    "ipykernel jupyter_core jinja2 mako django.core.management flask celery yaml ruamel jsonpickle"
)
_EVERYWHERE = words(
    "os posix nt subprocess sys importlib runpy pty shutil socket ctypes builtins __builtin__ marshal pickle cPickle "
    "pdb bdb codeop webbrowser multiprocessing"
)
_FUNCTIONS = words(
    "system popen Popen eval exec execfile compile __import__ import_module runstring run_module run_path spawn "
    "spawnl spawnv spawnvp execv execve execvp check_output check_call getoutput getstatusoutput resolve_name "
    "__getattribute__ __subclasses__ __globals__ __builtins__ __reduce__ __reduce_ex__ load_module exec_module "
    "reduce_graph_module FunctionType CodeType LambdaType _load_from_bytes rm rmtree urlopen urlretrieve"
)


def is_gadget(module: str, name: str) -> bool:
    """Whether the name is a known way to do harm, a way through another module to one, or a path of attributes."""
    parts = f"{module}.{name}".split(".")
    return (
        any(".".join(parts[:count]) in _MODULES for count in range(1, len(parts) + 1))
        or not _EVERYWHERE.isdisjoint(parts)
        or not _FUNCTIONS.isdisjoint(parts[module.count(".") + 1 :])
    )
