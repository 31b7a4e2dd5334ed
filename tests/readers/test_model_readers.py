"""Readers of formats whose frameworks are not installed here, against real files that those frameworks wrote: Keras, HDF5."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.readers.foreign import FILES, judged, members, packed, rules

BENIGN = sorted(name for name in FILES if name.startswith("benign/"))
HOSTILE = sorted(name for name in FILES if name.startswith("hostile/"))


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def judge(content: bytes, name: str = "model.bin", **limits: float) -> dict[str, Any]:
        return judged(tmp_path, content, name, **limits)

    return judge


# What frameworks write


@pytest.mark.parametrize("name", BENIGN)
def test_whatever_the_frameworks_write_is_clean_and_every_byte_of_it_understood(judge: Any, name: str) -> None:
    answer = judge(FILES[name], name)
    assert (answer["verdict"], answer["findings"]) == ("clean", [])
    understood = sum(answer["bytes"].values())
    if name.endswith((".zip", ".keras")):
        with zipfile.ZipFile(io.BytesIO(FILES[name])) as archive:
            content = sum(entry.file_size for entry in archive.infolist())
        assert understood - answer["bytes"]["zip"] == content
    else:
        assert understood == len(FILES[name])


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_frameworks_write_on_demand_of_an_attacker_is_stopped(judge: Any, name: str) -> None:
    assert judge(FILES[name], name)["verdict"] in ("malicious", "unknown")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("external_link.h5", "hdf5.external_link"),
        ("external_storage.h5", "hdf5.external_storage"),
        ("virtual.h5", "hdf5.virtual"),
        ("soft_link.h5", "hdf5.link"),
        ("bomb.h5", "hdf5.bomb"),
        ("bomb_chunked.h5", "hdf5.bomb"),
        ("bomb_packed.h5", "hdf5.bomb"),
        ("plugin_filter.h5", "hdf5.filter"),
        ("committed_type.h5", "hdf5.committed_type"),
        ("pickle_attribute.h5", "hdf5.pickle"),
        ("pickle_dataset.h5", "hdf5.pickle"),
        ("zip_inside.h5", "hdf5.polyglot"),
        ("many_ordered.h5", "hdf5.dense"),
        ("lambda.keras", "keras.lambda"),
        ("keras2_lambda.h5", "keras.lambda"),
        ("keras2_lambda_saved.zip", "keras.lambda"),
        ("op_read_file.zip", "tensorflow.operator"),
        ("op_write_file.pb", "tensorflow.operator"),
        ("op_python.zip", "tensorflow.operator"),
        ("op_save.pb", "tensorflow.saver"),
        ("op_restore.zip", "tensorflow.saver"),
        ("flex.tflite", "tflite.custom_operator"),
    ],
)
def test_finding_says_what_is_wrong(judge: Any, name: str, rule: str) -> None:
    assert rule in rules(judge(FILES[f"hostile/{name}"], name))


# Broken files


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Like the file, with bytes flipped, numbers made extreme, pieces moved or the end gone."""
    broken = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, width = chance.randrange(len(broken)), chance.choice((1, 2, 4, 8))
        match chance.randrange(5):
            case 0:
                broken[at] ^= 1 << chance.randrange(8)
            case 1:
                number = chance.choice((0, 1, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, (1 << 64) - 1)) & ((1 << 8 * width) - 1)
                broken[at : at + width] = number.to_bytes(width, "little")
            case 2:
                del broken[at : at + width * 4]
            case 3:
                broken[at:at] = chance.randbytes(width * 4)
            case _:
                del broken[max(1, at) :]
    return bytes(broken) or b"\0"


@pytest.mark.parametrize(
    "name",
    [
        "plain.h5",
        "chunked.h5",
        "edited.h5",
        "ordered.h5",
        "joined.h5",
        "words.keras",
        "lstm.tflite",
        "frozen_v1.pb",
        "v1_saved.zip",
        "module_saved.zip",
    ],
)
def test_no_broken_file_breaks_a_reader(judge: Any, name: str) -> None:
    chance = random.Random(name)
    for _ in range(60):
        answer = judge(mutated(FILES[f"benign/{name}"], chance), name, seconds=20)
        assert "limit.time" not in rules(answer)


# Keras


def keras_model(change: Callable[[dict[str, Any]], object] = lambda config: None, **more: bytes) -> bytes:
    content = members(FILES["benign/joined.keras"])
    config = json.loads(content["config.json"])
    change(config)
    return packed({**content, "config.json": json.dumps(config).encode(), **more})


def layer(module: str | None, name: str, config: Any = None, **more: Any) -> Callable[[dict[str, Any]], None]:
    """Put one more layer into the configuration."""
    entry = {"module": module, "class_name": name, "config": config or {}, "registered_name": None, **more}
    return lambda document: document["config"]["layers"].append(entry)


def function(module: str, name: str) -> Callable[[dict[str, Any]], None]:
    named = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    return layer("keras.layers", "Activation", {"activation": named})


CODE = "4wEAAAAAAAAAAAAAAAEAAAACAAAAQwAAAHMIAAAAfABkARQAUwApAk7pAgAAAKkA"
HOSTILE_KERAS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "CVE-2024-3660: a Lambda layer": (
        layer("keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": {"code": CODE}}}),
        "malicious",
    ),
    "Lambda by a name of Keras 2": (layer(None, "Lambda", {"function": [CODE, None, None], "function_type": "lambda"}), "malicious"),
    "Lambda under a registered name": (layer("keras.layers", "Dense", registered_name="keras>Lambda"), "unknown"),
    "Lambda of a named function": (layer("keras.layers", "Lambda", {"function": "relu"}), "unknown"),
    "compiled code anywhere": (layer("keras.layers", "Dense", {"anything": CODE}), "malicious"),
    "CVE-2025-1550: any function of any module": (function("os", "system"), "malicious"),
    "any class of any module": (layer("subprocess", "Popen", {"args": ["true"]}), "malicious"),
    "a builtin": (function("builtins", "eval"), "malicious"),
    "somebody's own function": (function("builtins", "my_loss"), "unknown"),
    "somebody's own layer": (layer("my_package.layers", "Mine", registered_name="Mine"), "unknown"),
    "a registered layer": (layer(None, "Custom>Mine"), "unknown"),
    "CVE-2025-8747: a helper that downloads": (function("keras.utils", "get_file"), "malicious"),
    "the same by its real name": (function("keras.src.utils.file_utils", "get_file"), "malicious"),
    "a switch of the safe mode": (function("keras.config", "enable_unsafe_deserialization"), "malicious"),
    "a model that loads a model": (function("keras.models", "load_model"), "malicious"),
    "the same under TensorFlow": (function("tensorflow.keras.models", "load_model"), "malicious"),
    "CVE-2025-12058: a vocabulary that is a file": (
        layer("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        "unknown",
    ),
    "a vocabulary that is an address": (layer("keras.layers", "TextVectorization", {"vocabulary": "http://169.254.169.254/"}), "unknown"),
    "a relative vocabulary": (layer("keras.layers", "IntegerLookup", {"vocabulary": "vocabulary.txt"}), "unknown"),
    "a pickled torch module": (layer("keras.layers", "TorchModuleWrapper", {"module": "gASV"}), "malicious"),
    "a SavedModel from somewhere": (layer("keras.layers", "TFSMLayer", {"filepath": "/tmp/x"}), "malicious"),
    "a function of TensorFlow that reads": (layer(None, "TFOpLambda", {"function": "io.read_file"}), "malicious"),
    "the same by the slicing layer": (layer(None, "SlicingOpLambda", {"function": "io.write_file"}), "malicious"),
    "an operator that calls what it is given": (layer("keras.src.ops.core", "Map"), "malicious"),
    "a loss of a stranger": (
        lambda config: config["compile_config"].update(
            loss={"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
        ),
        "malicious",
    ),
    "deep in a nested model": (
        layer("keras", "Sequential", {"layers": [{"class_name": "Sequential", "config": {"layers": [{"module": "os", "class_name": "system", "config": {}}]}}]}),
        "malicious",
    ),
    "in the shape it was built with": (
        lambda config: config.update(build_config={"class_name": "__lambda__", "config": {"code": CODE}}),
        "malicious",
    ),
    "a class that is a number": (lambda config: config["config"]["layers"].append({"class_name": 1}), "unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_KERAS)
def test_configuration_that_does_more_than_compute_is_stopped(judge: Any, name: str) -> None:
    change, verdict = HOSTILE_KERAS[name]
    assert judge(keras_model(), "model.keras")["verdict"] == "clean"
    answer = judge(keras_model(change), "model.keras")
    assert answer["verdict"] == verdict, answer["findings"]


@pytest.mark.parametrize("name", HOSTILE_KERAS)
def test_configuration_on_its_own_is_judged_alike(judge: Any, name: str) -> None:
    change, verdict = HOSTILE_KERAS[name]
    config = json.loads(members(FILES["benign/joined.keras"])["config.json"])
    assert judge(json.dumps(config).encode(), "model.json")["verdict"] == "clean"
    change(config)
    assert judge(json.dumps(config).encode(), "model.json")["verdict"] == verdict


@pytest.mark.parametrize("word", ["/a", "a//b", "~", "http://example.org", "..", "C:\\x"])
def test_words_of_a_vocabulary_may_look_like_paths(judge: Any, word: str) -> None:
    change = layer("keras.layers", "StringLookup", {"vocabulary": ["a", word]})
    assert judge(keras_model(change), "model.keras")["verdict"] == "clean"


def test_archive_holds_nothing_that_keras_does_not_write(judge: Any) -> None:
    assert "keras.member" in rules(judge(keras_model(**{"payload.py": b"import os"}), "model.keras"))
    assert judge(keras_model(**{"assets/layers/a/vocabulary.txt": b"a\nb\n"}), "model.keras")["verdict"] == "clean"
    assert (
        judge(keras_model(**{"assets/x.pkl": b"cos\nsystem\n(S'true'\ntR."}), "model.keras")["verdict"] == "malicious"
    )
    assert (
        judge(keras_model(**{"metadata.json": b'{"keras_version": "3.0.0", "x": 1}'}), "m.keras")["verdict"]
        == "unknown"
    )
    assert judge(keras_model(**{"model.weights.h5": b"PK\x03\x04"}), "model.keras")["verdict"] == "unknown"
    twice = json.dumps({"class_name": "Sequential", "config": {}}).replace("{", '{"class_name": "Dense",', 1)
    assert judge(keras_model(**{"config.json": twice.encode()}), "model.keras")["verdict"] == "unknown"


def test_json_that_merely_mentions_a_class_is_text(judge: Any) -> None:
    assert judge(b'[{"class_name": "cat"}]', "labels.json")["verdict"] == "clean"
    assert judge(b'{"class_name": "cat", "id": 1}', "labels.json")["verdict"] == "clean"
    assert judge(b'{"a": "\\u00e9"}', "config.json")["verdict"] == "clean"
    assert judge(b"{% for class_name in config %}", "template.txt")["verdict"] == "clean"


@pytest.mark.parametrize("key", ['"class_name"', '"class\\u005fname"'])
def test_configuration_is_found_wherever_its_class_is_named(judge: Any, key: str) -> None:
    padded = '{"config": {"x": "' + "x" * 9000 + '"}, "module": "os", ' + key + ': "system"}'
    assert judge(padded.encode(), "notes.txt")["verdict"] == "malicious"
    assert judge(b'{"class_name": "Dense", "config": {}, "class_name": "Lambda"}', "a.txt")["verdict"] == "unknown"


# HDF5


def changed(name: str, old: bytes, new: bytes) -> bytes:
    content = FILES[name]
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def test_hdf5_that_hides_bytes_is_stopped(judge: Any) -> None:
    plain = FILES["benign/plain.h5"]
    assert "hdf5.trailing" in rules(judge(plain + b"more", "model.h5"))
    longer = plain[:40] + struct.pack("<Q", len(plain) + 8) + plain[48:]
    assert "hdf5.gap" in rules(judge(longer + b"\x7fELF\x02\x01\x01\x00", "model.h5"))
    much = 70_000
    longer = plain[:40] + struct.pack("<Q", len(plain) + much) + plain[48:]
    assert judge(longer + bytes(much), "model.h5")["verdict"] == "clean"
    assert "hdf5.gap" in rules(judge(longer + b"\1" * much, "model.h5"))
    assert "content.truncated" in rules(judge(plain[:-8], "model.h5"))
    assert judge(bytes(512) + plain, "model.h5")["verdict"] == "unknown"


def test_hdf5_with_blocks_in_blocks_or_in_circles_is_stopped(judge: Any) -> None:
    plain = FILES["benign/plain.h5"]
    tree, heap = struct.unpack("<2Q", plain[80:96])
    for old, new in ((tree, 0), (heap, tree), (tree, len(plain)), (tree, 2**64 - 1)):
        content = plain.replace(struct.pack("<Q", old), struct.pack("<Q", new))
        assert judge(content, "model.h5")["verdict"] == "unknown"


def test_configuration_in_an_attribute_is_judged(judge: Any) -> None:
    name = "benign/joined.h5"
    assert judge(FILES[name], "m.h5")["bytes"]["keras"] > 1000
    stranger = changed(name, b'{"class_name": "Add", "config"', b'{"class_name": "Abc", "config"')
    assert "keras.class" in rules(judge(stranger, "m.h5"))
    code = changed(name, b'{"class_name": "Multiply", "config"', b'{"class_name": "Lambda"  , "config"')
    assert "keras.lambda" in rules(judge(code, "m.h5"))
