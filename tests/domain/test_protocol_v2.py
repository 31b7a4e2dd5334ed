"""The Open Inference Protocol, spoken with tritonclient's own classes: what it sends is understood, what we say it reads."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from serving.protocol.codec import BadRequest, Reply, decode, encode, refusal
from serving.protocol.signature import Signature

LARGEST = 1 << 20
WHOLE = {"BOOL": "bool", "BYTES": "str"} | {
    f"{u}INT{n}": f"{u}int{n}".lower() for u in ("", "U") for n in (8, 16, 32, 64)
}
DTYPES = WHOLE | {"FP16": "float16", "FP32": "float32", "FP64": "float64"}


def tensor(name: str, dtype: str, shape: list[int | None] | None, **known: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, **known}


def signature(*inputs: dict[str, Any], outputs: tuple[Any, ...] = (), classes: tuple[str, ...] = ()) -> Signature:
    """As it comes out of the child's socket."""
    read = Signature.read(inputs, outputs, classes, {})
    assert Signature.of(json.loads(json.dumps(read.facts()))) == read
    return read


TABLE = signature(
    tensor("x", "float32", [None, 4]), outputs=(tensor("y", "float32", [None, 3]),), classes=("a", "b", "c")
)
ROW = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


def posted(inputs: list[InferInput], outputs: list[InferRequestedOutput] | None = None) -> tuple[dict[str, str], bytes]:
    """What the stock client would send."""
    body, length = InferenceServerClient.generate_request_body(inputs, outputs=outputs, request_id="7")
    return ({} if length is None else {"inference-header-content-length": str(length)}), body


def received(reply: Reply) -> InferResult:
    length = reply.headers.get("inference-header-content-length")
    return InferResult.from_response_body(
        reply.joined(),
        header_length=None if length is None else int(length),
        content_encoding=reply.headers.get("content-encoding"),
    )


def sent(name: str, datatype: str, array: Any, *, binary: bool) -> InferInput:
    one = InferInput(name, list(array.shape), datatype)
    return one.set_data_from_numpy(array, binary_data=binary)


def sample(datatype: str) -> Any:
    if datatype == "BYTES":
        return np.array([["a", "ø→"], ["", "\0x"]], object)
    return np.array([[0, 1], [1, 0]]).astype(DTYPES[datatype])


def refused(said: Any, model: Signature = TABLE, **headers: str) -> BadRequest:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    with pytest.raises(BadRequest) as caught:
        decode(model, "v2", headers, body, LARGEST)
    return caught.value


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_what_the_stock_client_sends_comes_back_to_it_the_same(datatype: str, binary: bool) -> None:
    model = signature(
        tensor("first", "float32", [1]),
        tensor("x", DTYPES[datatype], [None, 2]),
        outputs=(tensor("y", DTYPES[datatype], [None, 2]),),
    )
    wire = sample(datatype)
    inputs = [sent("first", "FP32", np.ones(1, np.float32), binary=False), sent("x", datatype, wire, binary=binary)]
    headers, body = posted(inputs, [InferRequestedOutput("y", binary_data=binary)])
    request = decode(model, "v2", headers, body, LARGEST)
    assert (request.id, request.rows) == ("7", 2)
    assert np.array_equal(request.arrays["x"], wire)
    assert request.arrays["x"].flags.aligned
    result = received(encode(model, request, {"y": request.arrays["x"]}, model="ada/m", version="1.0.0", seconds=0.1))
    told = result.as_numpy("y")
    if datatype == "BYTES":
        told = np.vectorize(lambda one: one.decode() if isinstance(one, bytes) else one, otypes=[object])(told)
    assert np.array_equal(told, wire)
    assert result.get_response()["model_version"] == "1.0.0"


def test_a_client_that_names_no_outputs_gets_all_of_them_in_binary() -> None:
    headers, body = posted([sent("x", "FP32", np.ones((2, 4), np.float32), binary=True)])
    request = decode(TABLE, "v2", headers, body, LARGEST)
    scores = np.array([[np.nan, np.inf, 1], [0, 0, 1]], np.float32)
    result = received(encode(TABLE, request, {"y": scores}, model="m", version="1", seconds=0.1))
    assert np.array_equal(result.as_numpy("y"), scores, equal_nan=True)


def test_bytes_alone_are_the_only_input_and_say_how_many_rows_they_are() -> None:
    body = InferenceServerClient.generate_request_body([sent("x", "FP32", np.ones((3, 4), np.float32), binary=True)])[0]
    raw = body[-48:]
    request = decode(TABLE, "v2", {"inference-header-content-length": "0"}, raw, LARGEST)
    assert request.arrays["x"].shape == (3, 4)
    assert request.outputs[0].binary
    with pytest.raises(BadRequest, match="64 bytes"):
        decode(TABLE, "v2", {"inference-header-content-length": "0"}, raw + bytes(17), LARGEST)


def test_what_json_cannot_say_is_null_and_nan_again_in_the_client() -> None:
    request = decode(TABLE, "v2", {}, json.dumps({"inputs": [ROW]}).encode(), LARGEST)
    reply = encode(
        TABLE, request, {"y": np.array([[np.nan, -np.inf, 0.1]], np.float32)}, model="m", version="1", seconds=0
    )
    assert json.loads(reply.joined())["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [None, None, 0.1]}
    ]
    assert np.isnan(received(reply).as_numpy("y")[0, 0])


def test_classification_answers_with_the_best_scores_and_their_names() -> None:
    wanted = InferRequestedOutput("y", binary_data=True, class_count=2)
    headers, body = posted([sent("x", "FP32", np.ones((2, 4), np.float32), binary=True)], [wanted])
    request = decode(TABLE, "v2", headers, body, LARGEST)
    scores = np.array([[0.25, 0.5, 0.125], [0, 0, 1]], np.float32)
    result = received(encode(TABLE, request, {"y": scores}, model="m", version="1", seconds=0.1))
    assert result.as_numpy("y").tolist() == [[b"0.500000:1:b", b"0.250000:0:a"], [b"1.000000:2:c", b"0.000000:0:a"]]


def test_data_may_be_nested_or_flat() -> None:
    nested = ROW | {"shape": [2, 4], "data": [[1, 2, 3, 4], [5, 6, 7, 8.5]]}
    request = decode(TABLE, "v2", {}, json.dumps({"inputs": [nested]}).encode(), LARGEST)
    assert request.arrays["x"].tolist() == nested["data"]
    assert refused({"inputs": [nested | {"data": [[1, 2], [3, 4], [5, 6], [7, 8]]}]}).code == "wrong_shape"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
def test_a_compressed_request_is_unpacked_and_never_beyond_the_limit(coding: str) -> None:
    def compressed(body: bytes) -> bytes:
        if coding == "gzip":
            return gzip.compress(body)
        return zlib.compress(body) if coding == "deflate" else zlib.compress(body)[2:-4]

    header = {"content-encoding": coding.removeprefix("raw ")}
    headers, body = posted([sent("x", "FP32", np.ones((2, 4), np.float32), binary=True)])
    assert decode(TABLE, "v2", headers | header, compressed(body), LARGEST).rows == 2
    with pytest.raises(BadRequest) as caught:
        decode(TABLE, "v2", header, compressed(bytes(LARGEST + 1)), LARGEST)
    assert (caught.value.status, caught.value.code) == (413, "too_large")
    with pytest.raises(BadRequest, match="too early"):
        decode(TABLE, "v2", headers | header, compressed(body)[:20], LARGEST)


def test_a_body_of_several_gzip_members_is_one_and_too_many_are_refused_at_once() -> None:
    """RFC 1952 §2.2; a million empty members are twenty megabytes that would unpack to nothing for an hour."""
    body = json.dumps({"inputs": [ROW]}).encode()
    headers = {"content-encoding": "gzip"}
    parts = b"".join(gzip.compress(body[at : at + 20]) for at in range(0, len(body), 20))
    assert decode(TABLE, "v2", headers, parts, LARGEST).arrays["x"].tolist() == [[1, 2, 3, 4]]
    with pytest.raises(BadRequest, match="members") as caught:
        decode(TABLE, "v2", headers, gzip.compress(b"") * 1_000_000, LARGEST)
    assert (caught.value.status, caught.value.code) == (400, "malformed_body")


@pytest.mark.parametrize("data", [[1, True, 3, 4], [0.5, False, 1.5, 0], [1, None, 3, 4], [1, "2", 3, 4]])
def test_what_is_no_number_is_none_among_numbers_either(data: list[Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(TABLE, "v2", {}, json.dumps({"inputs": [ROW | {"data": data}]}).encode(), LARGEST)
    assert caught.value.code == "wrong_datatype"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_is_compressed_only_where_the_client_takes_it_and_it_pays(coding: str) -> None:
    model = signature(tensor("x", "float32", [4]), outputs=(tensor("y", "float32", [None]),))
    body = json.dumps({"inputs": [ROW | {"shape": [4]}]}).encode()
    request = decode(model, "v2", {}, body, LARGEST)

    def answer(values: Any, accept: str) -> Reply:
        return encode(model, request, {"y": values}, model="m", version="1", seconds=0, accept=accept)

    values = np.random.default_rng(1).random(5000, np.float32)
    reply = answer(values, f"br, {coding};q=0.5")
    assert reply.headers["content-encoding"] == coding
    assert np.array_equal(received(reply).as_numpy("y"), values)
    assert "content-encoding" not in answer(values, f"{coding};q=0").headers
    assert "content-encoding" not in answer(values[:5], coding).headers


CATEGORIES = signature(
    tensor("colour", "str", [None, 1], values=["red", "blue"], closed=True),
    tensor("word", "int64", [None, None], below=100),
    tensor("small", "uint8", [1]),
)
GOOD = {
    "colour": {"name": "colour", "datatype": "BYTES", "shape": [1, 1], "data": ["red"]},
    "word": {"name": "word", "datatype": "INT64", "shape": [1, 2], "data": [0, 99]},
    "small": {"name": "small", "datatype": "UINT8", "shape": [1], "data": [255]},
}


@pytest.mark.parametrize(
    ("name", "change", "code", "field"),
    [
        ("colour", {"name": "color"}, "unknown_input", "inputs.color"),
        ("colour", {"datatype": "FP32"}, "wrong_datatype", "inputs.colour.datatype"),
        ("colour", {"shape": [1, 2]}, "wrong_shape", "inputs.colour.shape"),
        ("colour", {"data": ["green"]}, "unknown_value", "inputs.colour.data"),
        ("colour", {"data": [1]}, "wrong_datatype", "inputs.colour.data"),
        ("word", {"shape": [0, 2], "data": []}, "wrong_shape", "inputs.word.shape"),
        ("word", {"shape": [1, 3]}, "wrong_length", "inputs.word.data"),
        ("word", {"data": [0, 100]}, "out_of_range", "inputs.word.data"),
        ("word", {"data": [-1, 0]}, "out_of_range", "inputs.word.data"),
        ("word", {"data": [1.5, 0]}, "wrong_datatype", "inputs.word.data"),
        ("word", {"data": [True, 0]}, "wrong_datatype", "inputs.word.data"),
        ("word", {"data": [2**64, 0]}, "wrong_datatype", "inputs.word.data"),
        ("small", {"data": [256]}, "out_of_range", "inputs.small.data"),
        ("small", {"parameters": {"shared_memory_region": "r"}}, "unsupported_parameter", None),
        ("small", {"parameters": {"binary_data_size": 1}}, "invalid_field", "inputs.small"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(name: str, change: Any, code: str, field: str | None) -> None:
    fine = decode(CATEGORIES, "v2", {}, json.dumps({"inputs": list(GOOD.values())}).encode(), LARGEST)
    assert fine.rows == 1
    wrong = refused({"inputs": list((GOOD | {name: GOOD[name] | change}).values())}, CATEGORIES)
    assert wrong.code == code
    assert field is None or wrong.details["field"] == field
    told = json.loads(refusal("v2", wrong).joined())
    assert told["error"] == wrong.message
    assert told["code"] == code


def test_a_request_that_is_no_request_says_so() -> None:
    assert refused(b"{").code == "malformed_json"
    assert refused([]).code == "invalid_field"
    assert refused({"inputs": []}).code == "missing_input"
    assert refused({"inputs": [ROW, ROW]}).code == "duplicate_input"
    assert refused({"inputs": [ROW], "outputs": [{"name": "z"}]}).code == "unknown_output"
    assert refused({"inputs": [ROW | {"data": [1, 2, 3, 1e39]}]}).code == "not_finite"
    assert refused({"inputs": [ROW | {"data": [1, 2, 3, None]}]}).details["got"] == "null"
    assert refused({"inputs": [ROW]}, **{"inference-header-content-length": "1e9"}).code == "invalid_field"
    assert refused({"inputs": [ROW]}, **{"content-encoding": "br"}).status == 415


@pytest.mark.parametrize(
    ("datatype", "data", "code"),
    [
        ("BYTES", b"\x02\0\0\0a", "wrong_length"),
        ("BYTES", b"\xff\xff\xff\xffa", "wrong_length"),
        ("BYTES", b"\x01\0\0\0\xff", "not_utf8"),
        ("BYTES", b"\x01\0\0\0a\0", "wrong_length"),
        ("BOOL", b"\x02", "out_of_range"),
        ("FP32", b"\0\0\xc0\x7f", "not_finite"),
        ("FP64", bytes(7), "wrong_length"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused(datatype: str, data: bytes, code: str) -> None:
    model = signature(tensor("x", DTYPES[datatype], [1]))
    one = {"name": "x", "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [one]}).encode()
    length = {"inference-header-content-length": str(len(head))}
    assert refused(head + data, model, **length).code == code
    assert refused(head + data + b"more", model, **length).code in {code, "wrong_length"}


NAMES = st.sampled_from(["x", "colour", "word", "small", "y"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
TENSORS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "datatype": st.sampled_from(list(DTYPES)) | SCALARS,
        "shape": st.lists(st.integers(-1, 2**40), max_size=3) | JSON,
        "data": JSON | st.lists(st.integers(-2, 300), max_size=4),
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 20) | SCALARS}) | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS | st.sampled_from([ROW, *GOOD.values()]), max_size=4) | JSON},
    optional={"outputs": JSON, "parameters": JSON, "id": JSON},
)


@settings(max_examples=150)
@given(REQUESTS | JSON, st.binary(max_size=40), st.sampled_from(["", "gzip", "deflate"]), st.booleans())
def test_whatever_the_bytes_are_the_answer_is_a_request_or_a_refusal(
    said: Any, tail: bytes, coding: str, whole: bool
) -> None:
    head = json.dumps(said).encode("utf-8", "surrogatepass")
    headers = {"content-encoding": coding} | ({"inference-header-content-length": str(len(head))} if tail else {})
    body = head + tail
    if coding and whole:
        body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    for model in (TABLE, CATEGORIES):
        for kind in ("v2", "predict"):
            try:
                decode(model, kind, headers, body, LARGEST)
            except BadRequest as refused:
                json.loads(refusal(kind, refused).joined())


@settings(max_examples=50)
@given(arrays(np.float16, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.floats(-9, 9, width=16)))
def test_half_floats_survive_both_ways(array: Any) -> None:
    model = signature(tensor("x", "float16", [None, None]))
    headers, body = posted([sent("x", "FP16", array, binary=True)])
    flat = {"name": "x", "datatype": "FP16", "shape": array.shape, "data": array.ravel().tolist()}
    in_json = decode(model, "v2", {}, json.dumps({"inputs": [flat]}).encode(), LARGEST)
    assert np.array_equal(decode(model, "v2", headers, body, LARGEST).arrays["x"], in_json.arrays["x"])
