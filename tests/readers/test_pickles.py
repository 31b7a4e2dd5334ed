"""Pickles that frameworks write are clean, whatever is done to them is survived, and looking at them does nothing."""

from __future__ import annotations

import os
import pickle
import pickletools
import random
import sys
from collections import OrderedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.readers import pickle_files as files
from tests.readers.hostile_pickles import (
    COMMAND,
    Payload,
    dtype,
    judged,
    not_clean,
    shell,
)
from tests.readers.pickle_files import named, short

# Benign


@pytest.mark.filterwarnings("ignore")
def test_fitted_estimators_are_clean_in_every_protocol_and_in_joblibs_format() -> None:
    written = {
        f"{name}, {way}": content for name, value in files.estimators() for way, content in files.every_way(value)
    }
    assert len(written) > 250
    assert not_clean(written) == {}


def test_arrays_types_and_random_states_are_clean_in_every_protocol() -> None:
    written = {
        f"{name}, {way}": content for name, value in files.arrays().items() for way, content in files.every_way(value)
    }
    assert not_clean(written) == {}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_clean_in_every_protocol(protocol: int) -> None:
    assert not_clean({name: pickle.dumps(value, protocol) for name, value in files.plain_data().items()}) == {}


@pytest.mark.filterwarnings("ignore")
def test_whole_modules_and_checkpoints_of_torch_are_clean_in_every_format() -> None:
    values = dict(files.torch_modules()) | {"checkpoint": files.torch_checkpoint()}
    written = {
        f"{name}, {way}": content
        for name, value in values.items()
        for way, content in (
            ("zip", files.torch_save(value)),
            ("zip, protocol 4", files.torch_save(value, pickle_protocol=4)),
            ("legacy", files.torch_save(value, _use_new_zipfile_serialization=False)),
            ("plain pickle, protocol 2", pickle.dumps(value, 2)),
            ("plain pickle", pickle.dumps(value)),
            ("joblib", files.joblib_dump(value)),
        )
    }
    assert not_clean(written) == {}


@pytest.mark.parametrize("name", files.RECIPES)
def test_what_frameworks_write_that_are_not_installed_here_is_clean(name: str) -> None:
    answer = judged(files.RECIPES[name])
    assert answer["verdict"] == "clean", answer["findings"]


def test_every_byte_of_a_joblib_file_belongs_to_an_opcode_or_to_an_array() -> None:
    import numpy as np

    value = {"a": np.arange(1000.0), "b": np.asfortranarray(np.ones((3, 4), "f4")), "c": np.array(["x", None], object)}
    content = files.joblib_dump(value)
    understood = judged(content)["bytes"]
    assert sum(understood.values()) == len(content)
    assert 8048 <= understood["joblib"] <= 8048 + 2 * 17
    old = files.joblib_without_padding(value)
    assert judged(old)["verdict"] == "clean"
    assert judged(old)["bytes"]["joblib"] == 8048


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_compressed_joblib_files_are_judged_by_what_is_inside(compression: str) -> None:
    import numpy as np

    value = {"a": np.arange(500.0), "b": np.array(["x", None], object)}
    assert not_clean({"benign": files.joblib_dump(value, compress=(compression, 3))}) == {}
    hostile = files.joblib_dump([value, Payload(os.system, COMMAND)], compress=(compression, 3))
    assert judged(hostile)["verdict"] == "malicious"


def test_python_2_pickles_are_judged_by_what_their_strings_say() -> None:
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntb."
    )
    instance = b"(isklearn.preprocessing.data\nStandardScaler\n(dS'copy'\nI01\nsb."
    assert not_clean({"array": array, "instance": instance}) == {}
    hidden = b"\x80\x02(S'\\x6fs'\nS'sys\\x74em'\nl0S'\\x6fs'\nS'sys\\x74em'\n\x93."
    assert judged(hidden)["verdict"] == "malicious"


# Looking does nothing


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
PIECES = st.one_of(
    st.sampled_from(OPCODES),
    st.binary(max_size=6),
    st.sampled_from([
        named("collections", "OrderedDict"), named("numpy", "dtype"), named("sklearn.svm._classes", "SVC"),
        named("numpy.core.multiarray", "_reconstruct"), named("joblib.numpy_pickle", "NumpyArrayWrapper"),
        named("slipway_never_imported", "thing"), b"cos\nsystem\n", short("a"), b"K\x01", b"N)", b"(", b"t", b"R", b"b",
        b"\x81", b"}", b"]", b"\x85", b"\x86", b"h\x00", b"\x94", b"q\x00", b"I01\n", b"S'x'\n", b"Vtext\n", dtype("f8", 0),
    ]),
)  # fmt: skip
LIMITS = {"seconds": 5.0, "opcodes": 20_000, "stack": 10_000, "memo": 10_000}


def survives(content: bytes) -> None:
    before = set(sys.modules)
    answer = judged(content, **LIMITS)
    assert answer["verdict"] in ("clean", "unknown", "malicious")
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings.")} == set()


@settings(max_examples=120, deadline=2000)
@given(st.lists(PIECES, max_size=60), st.sampled_from([b"\x80\x02", b"\x80\x04", b"\x80\x05", b"(", b""]))
def test_random_opcodes_are_survived(pieces: list[bytes], start: bytes) -> None:
    survives(start + b"".join(pieces) + b".")


@pytest.fixture(scope="module")
def specimens() -> list[bytes]:
    import numpy as np
    import torch

    value = {"a": np.arange(5.0), "b": np.array(["x", None], object), "c": OrderedDict(d=[1, "text"])}
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    return [
        *(pickle.dumps(value, protocol) for protocol in range(6)),
        files.joblib_dump(value),
        files.torch_save(module, _use_new_zipfile_serialization=False),
        *files.RECIPES.values(),
    ]


@settings(
    max_examples=120, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_survived(specimens: list[bytes], seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(chance.choice(specimens))
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randrange(1, 9)]
            case 2:
                content[at:at] = chance.choice(OPCODES)
            case _:
                other = chance.choice(specimens)
                start = chance.randrange(len(other))
                content[at:at] = other[start : start + 40]
        if not content:
            return
    survives(bytes(content))


def test_damage_never_makes_a_payload_clean() -> None:
    """Whatever happens behind the call, the call has happened."""
    chance = random.Random(5)
    for payload in (shell(2), shell(3), b"\x80\x04" + named("os", "system") + short(COMMAND) + b"\x85R."):
        called = payload.index(b"R") + 1
        for _ in range(60):
            tail = bytes(chance.randrange(256) for _ in range(chance.randrange(20)))
            assert judged(payload[:called] + tail)["verdict"] == "malicious"
