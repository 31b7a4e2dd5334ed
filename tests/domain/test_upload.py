"""Forms as people and machines write them: what is taken, what is refused, and that chunks make no difference."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.landing import part_size
from api.multipart import Closed, MalformedError, Opened, boundary_of, events
from pipeline import upload
from pipeline.errors import Rejected

BOUNDARY = b"a-boundary"
OTHER = b"\r\n--a-boundar"
"""Almost one: the longest thing that a parser may mistake for it."""


def body(*parts: tuple[bytes, bytes]) -> bytes:
    written = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, head, content) for head, content in parts)
    return written + b"--%b--\r\n" % BOUNDARY


def field(name: str, content: bytes) -> tuple[bytes, bytes]:
    return f'Content-Disposition: form-data; name="{name}"'.encode(), content


def file(name: str, filename: str, content: bytes) -> tuple[bytes, bytes]:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: application/zip'
    return head.encode(), content


def parse(chunks: list[bytes]) -> list[tuple[str, str | None, bytes]]:
    """The parts that the chunks hold together."""

    async def feed() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[tuple[str, str | None, bytes]]:
        parts: list[tuple[str, str | None, bytes]] = []
        is_open = False
        async for event in events(feed(), BOUNDARY):
            match event:
                case Opened(name=name, filename=filename):
                    assert not is_open
                    parts.append((name, filename, b""))
                case Closed():
                    assert is_open
                case _:
                    name, filename, content = parts[-1]
                    parts[-1] = (name, filename, content + event)
            is_open = not isinstance(event, Closed)
        assert not is_open
        return parts

    return asyncio.run(collect())


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[start:end] for start, end in itertools.pairwise(edges)]


near_boundaries = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\r", b"\n", b"\r\n", b"--", OTHER, OTHER + b"z", b"\r\n--"]))
).map(b"".join)


@given(contents=st.lists(near_boundaries, max_size=4), places=st.lists(st.integers(0, 4000), max_size=60))
def test_however_a_body_is_cut_the_same_parts_come_out(contents: list[bytes], places: list[int]) -> None:
    contents = [content for content in contents if b"\r\n--" + BOUNDARY not in b"\r\n" + content + b"\r\n"]
    whole = body(*(file(f"f{i}", f"f{i}.onnx", content) for i, content in enumerate(contents)), field("name", b"x"))
    expected = [(f"f{i}", f"f{i}.onnx", content) for i, content in enumerate(contents)] + [("name", None, b"x")]
    assert parse(cut(whole, places)) == expected
    assert parse([whole[i : i + 1] for i in range(len(whole))]) == expected


@given(garbage=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=9))
@example(garbage=b"--a-boundary\r\n\r\n\r\n--a-boundary--", places=[])
def test_garbage_is_malformed_and_nothing_worse(garbage: bytes, places: list[int]) -> None:
    with pytest.raises(MalformedError):
        parse(cut(b"--" + garbage, places))


@given(end=st.integers(0, 200))
def test_a_body_that_stops_early_is_malformed(end: int) -> None:
    whole = body(field("name", b"x" * 40), file("model_file", "m.onnx", b"y" * 40))
    complete = len(whole) - len(b"\r\n")
    if end < complete:
        with pytest.raises(MalformedError):
            parse([whole[:end]])


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/plain",
        b'Content-Disposition: attachment; name="name"',
        b"Content-Disposition: form-data",
        b'Content-Disposition: form-data; name=""',
        b'Content-Disposition: form-data; name="\xff"',
        b'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"',
        b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64',
        b'Content-Disposition: form-data; name="a"\r\n' + b"\r\n".join(b"X-%d: 1" % i for i in range(8)),
        b'Content-Disposition: form-data; name="' + b"a" * 5000 + b'"',
    ],
)
def test_a_part_must_say_what_it_is_and_not_at_length(head: bytes) -> None:
    with pytest.raises(MalformedError):
        parse([body((head, b""))])


def test_there_may_not_be_endlessly_many_parts() -> None:
    assert len(parse([body(*(field(f"f{i}", b"") for i in range(64)))])) == 64
    with pytest.raises(MalformedError, match="more than 64 parts"):
        parse([body(*(field(f"f{i}", b"") for i in range(65)))])


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
    ],
)
def test_a_content_type_must_name_a_form_and_its_boundary(content_type: str) -> None:
    with pytest.raises(MalformedError):
        boundary_of(content_type)


def test_boundaries_may_be_quoted() -> None:
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b"') == b"a b"


GOOD: dict[str, tuple[str, Any]] = {
    "version": ("v1.2", "1.2.0"),
    "model_type": ("Detection", "detection"),
    "framework": ("pytorch", "pytorch"),
    "description": ("one\ntwo", "one\ntwo"),
    "licence": ("mit or apache-2.0", "MIT OR Apache-2.0"),
    "tags": ('["a", " a", "b c"]', ["a", "b c"]),
    "classes": ('["car", "car"]', ["car", "car"]),
    "input_shape": ("[null, 3, -1, 640]", [None, 3, -1, 640]),
    "config": ('{"a": {"b": [1.5, true, null]}}', {"a": {"b": [1.5, True, None]}}),
    "training_config": ("{}", {}),
    "parent": ("ada/digits@1.0.0", "ada/digits@1.0.0"),
    "model_url": (" https://hub.example/base", "https://hub.example/base"),
    "dataset_url": ("https://hub.example/data", "https://hub.example/data"),
    "code_url": ("http://git.example/code", "http://git.example/code"),
    "benchmark_dataset": ("COCO 2017", "COCO 2017"),
    "bump": ("major", "major"),
    "output_shape": ("[1, 1000]", [1, 1000]),
    "format": ("TensorFlow_saved_model", "tensorflow_saved_model"),
    "accuracy": ("0.95", 0.95),
    "precision": ("1", 1.0),
    "recall": ("0", 0.0),
    "f1_score": ("9e-1", 0.9),
    "mAP": (".5", 0.5),
    "release_notes": ("one\n\n- two", "one\n\n- two"),
    "confirm_name": ("True", True),
    "sha256": ("SHA256:" + "AB" * 32, "ab" * 32),
}


def texts(**given: str) -> dict[str, bytes]:
    return {name: value.encode() for name, value in given.items()}


def test_every_field_is_read_and_normalised() -> None:
    assert GOOD.keys() | {"name"} == upload.FIELDS.keys()
    values, faults = upload.judge(texts(**{name: text for name, (text, _) in GOOD.items()}))
    assert not faults
    assert values == {name: value for name, (_, value) in GOOD.items()}


def test_the_examples_of_the_reference_are_right() -> None:
    _, faults = upload.judge(texts(**{name: field.example for name, field in upload.FIELDS.items()}))
    assert not faults


def test_what_is_kept_is_what_was_given() -> None:
    said = upload.declare(texts(name=" digits ", version="2", framework="onnx", tags="", description="   "))
    assert (said.name, said.version, said.bump, said.sha256) == ("digits", "2.0.0", "minor", None)
    assert said.declared == {"framework": "onnx"}


DEEP = "[" * 70 + "]" * 70

BAD = [
    ("name", "x" * 129),
    ("name", "a/b"),
    ("name", "a\\b"),
    ("name", ".."),
    ("name", "a\x00b"),
    ("name", "a\u202eb"),
    ("name", "0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2"),
    ("version", "one"),
    ("version", "1.0.0.0"),
    ("bump", "huge"),
    ("model_type", "two words"),
    ("framework", "x" * 65),
    ("licence", "<script>"),
    ("licence", "Apache"),
    ("description", "x" * 10_001),
    ("description", "bell\x07"),
    ("tags", '{"a": 1}'),
    ("tags", "traffic"),
    ("tags", json.dumps([str(i) for i in range(51)])),
    ("tags", '["\\u0007"]'),
    ("classes", '["a", 1]'),
    ("classes", '["\\u0000"]'),
    ("classes", '["\\ud800"]'),
    ("accuracy", "95 %"),
    ("accuracy", "1.01"),
    ("mAP", "nan"),
    ("format", "two words"),
    ("input_shape", "[1, 0]"),
    ("input_shape", "[true]"),
    ("input_shape", "[1.5]"),
    ("input_shape", "{}"),
    ("input_shape", '{"x": 3}'),
    ("input_shape", json.dumps([1] * 17)),
    ("config", "[]"),
    ("config", '{"a": NaN}'),
    ("config", '{"a": 1e999}'),
    ("config", '{"a": 1, "a": 2}'),
    ("config", f'{{"a": {DEEP}}}'),
    ("config", '{"a":' + "[" * 100_000),
    ("config", '{"a":' + "9" * 5000 + "}"),
    ("training_config", '{"\\u0000": 1}'),
    ("benchmark_dataset", "x" * 513),
    ("sha256", "abc"),
    ("confirm_name", "maybe"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_nonsense_is_refused_by_name_of_its_field(name: str, text: str) -> None:
    values, faults = upload.judge(texts(**{name: text}))
    assert not values
    assert faults.keys() == {name}


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(upload.InvalidFields) as caught:
        upload.declare({"version": b"one", "tags": b"\xff", "classes": b'["fine"]'})
    assert caught.value.faults.keys() == {"name", "version", "tags"}


@given(name=st.sampled_from(sorted(upload.FIELDS)), raw=st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_no_field_crashes_on_anything(name: str, raw: bytes) -> None:
    values, faults = upload.judge({name: raw})
    assert len(values) + len(faults) <= 1
    json.dumps(values, allow_nan=False).encode()


def test_a_typing_error_in_a_fields_name_is_pointed_out() -> None:
    assert "did you mean licence?" in upload.misnamed("license_")
    assert "model_file" in upload.misnamed("completely different")


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("a.onnx", "a.onnx"),
        ("C:\\models\\a.onnx", "a.onnx"),
        ("../../etc/a.onnx", "a.onnx"),
        ("Modèle 1.onnx", "Modèle 1.onnx"),
    ],
)
def test_only_the_last_component_of_a_file_name_counts(given_name: str, kept: str) -> None:
    assert upload.file_name(given_name) == kept


@pytest.mark.parametrize("name", ["", ".", "..", "a/", "x" * 252 + ".onnx", "a\nb.onnx", "a\u202eb.onnx"])
def test_file_names_that_hide_something_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        upload.file_name(name)


@given(name=st.text(min_size=1, max_size=300))
def test_keys_are_made_of_plain_letters(name: str) -> None:
    key = upload.key_name(name)
    assert key
    assert key.isascii()
    assert len(key) <= 100
    assert not set(key) & set("/\\ \"'?#%&\n")
    assert key.strip(".")


def test_keys_keep_the_extension() -> None:
    assert upload.key_name("Modèle 1.onnx") == "Modele_1.onnx"
    assert upload.key_name("模型.onnx") == "file.onnx"
    assert upload.key_name("x" * 250 + ".safetensors").endswith("x.safetensors")


def test_side_files_are_told_by_their_extension() -> None:
    assert upload.check_side_file("config_file", "a.YAML").role == "config"
    with pytest.raises(Rejected, match=r"must end in \.npz"):
        upload.check_side_file("calibration_file", "a.npy")


def test_contradictions_and_gaps_are_warned_of() -> None:
    said = upload.declare(texts(name="m", framework="tensorflow"))
    first, second = upload.warnings(said, found="torchscript", title="TorchScript", unservable=None)
    assert "tensorflow" in first
    assert "input_shape" in second
    calm = upload.declare(texts(name="m", framework="pytorch", input_shape="[1]"))
    assert upload.warnings(calm, found="torchscript", title="TorchScript", unservable=None) == []
    assert upload.warnings(calm, found="safetensors", title="safetensors", unservable="Weights only.") == [
        "Weights only."
    ]


@given(length=st.integers(0, 5 << 40))
def test_parts_grow_so_that_ten_thousand_are_enough(length: int) -> None:
    size = part_size(length)
    assert size >= 8 << 20
    assert size * 10_000 >= length
    assert size == 8 << 20 or (size - (1 << 20)) * 10_000 < length


def test_the_digest_of_a_cut_body_is_that_of_the_whole() -> None:
    content = hashlib.sha512(b"seed").digest() * 500
    whole = body(file("model_file", "m.onnx", content))
    for step in (1, 7, 64, 4096):
        [(_, _, got)] = parse([whole[i : i + step] for i in range(0, len(whole), step)])
        assert got == content


@pytest.mark.parametrize(
    ("declared", "found"),
    [("tensorflow_saved_model", "saved_model"), ("onnx", "onnx"), (".h5", "keras"), ("pytorch", "torchscript")],
)
def test_a_format_may_be_called_what_others_call_it(declared: str, found: str) -> None:
    assert upload.format_fits(declared, found)


def test_a_format_that_is_declared_wrongly_is_warned_of() -> None:
    said = upload.declare(texts(name="digits", format="tensorrt"))
    [warning] = upload.warnings(said, found="onnx", title="ONNX", unservable=None)
    assert warning == "format is declared as tensorrt, but the file is ONNX."
