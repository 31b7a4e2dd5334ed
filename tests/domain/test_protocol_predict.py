"""The simple form: names and values in, predictions and how sure they are out; pictures; and the schema that says so."""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import Rejected
from serving.protocol.codec import BadRequest, Request, decision, decode, encode, label, refusal
from serving.protocol.schemas import example, json_schema
from serving.protocol.signature import Signature

LARGEST = 1 << 22
RNG = np.random.default_rng(5)


def tensor(name: str, dtype: str, shape: list[int | None] | None, **known: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, **known}


def model(*inputs: Any, outputs: Any = (), classes: Any = (), **config: Any) -> Signature:
    read = Signature.read(inputs, outputs or [tensor("y", "float32", [None, 3])], classes, config)
    assert Signature.of(json.loads(json.dumps(read.facts()))) == read
    return read


def asked(said: Any, of: Signature, media: str = "application/json") -> Request:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return decode(of, "predict", {"content-type": media}, body, LARGEST)


def refused(said: Any, of: Signature, media: str = "application/json") -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        asked(said, of, media)
    return caught.value


def told(of: Signature, outputs: Any, said: Any = None) -> Any:
    request = asked(said or {"inputs": [[0, 0, 0, 0]] * len(next(iter(outputs.values())))}, of)
    return json.loads(encode(of, request, outputs, model="ada/m", version="1.0.0", seconds=0.25).joined())


TABLE = model(tensor("x", "float32", [None, 4]), classes=["a", "b", "c"])
PEOPLE = model(
    tensor("age", "float32", [None, 1]), tensor("city", "str", [None, 1]), outputs=[tensor("y", "float32", [None, 1])]
)
PHOTO = model(tensor("pixels", "float32", [None, 3, 8, 6]))


@pytest.mark.parametrize(
    "said",
    [
        {"inputs": {"x": [[1, 2, 3, 4]]}},
        {"inputs": {"x": [1, 2, 3, 4]}},
        {"inputs": {"x": {"data": [1, 2, 3, 4], "shape": [1, 4]}}},
        {"inputs": [[1, 2, 3, 4]]},
        {"x": [1, 2, 3, 4]},
        {"data": [[1, 2, 3, 4]]},
        [1, 2, 3, 4],
    ],
)
@pytest.mark.parametrize("media", ["application/json", "", "application/x-www-form-urlencoded"])
def test_a_row_may_be_written_as_one_likes(said: Any, media: str) -> None:
    request = asked(said, TABLE, media)
    assert request.arrays["x"].tolist() == [[1, 2, 3, 4]]
    assert request.rows == 1


def test_columns_take_a_value_or_one_for_each_row() -> None:
    one, two = asked({"age": 41, "city": "Rome"}, PEOPLE), asked({"age": [41, 42], "city": ["Rome", "Oslo"]}, PEOPLE)
    assert (one.arrays["age"].tolist(), one.arrays["city"].tolist(), one.rows) == ([[41]], [["Rome"]], 1)
    assert (two.arrays["age"].tolist(), two.arrays["city"].tolist(), two.rows) == (
        [[41], [42]],
        [["Rome"], ["Oslo"]],
        2,
    )


@pytest.mark.parametrize(
    ("said", "code", "field"),
    [
        ({"inputs": {"age": 41}}, "missing_input", "inputs.city"),
        ({"inputs": {"age": 41, "town": "Rome"}}, "unknown_input", "inputs.town"),
        ({"inputs": {"age": "41", "city": "Rome"}}, "wrong_datatype", "inputs.age.data"),
        ({"inputs": {"age": [[41, 42]], "city": "Rome"}}, "wrong_shape", "inputs.age.shape"),
        ({"inputs": {"age": [[41], 42], "city": "Rome"}}, "wrong_shape", "inputs.age.data"),
        ({"inputs": {"age": None, "city": "Rome"}}, "wrong_datatype", "inputs.age.data"),
        ({"inputs": {"age": {"value": 41}, "city": "Rome"}}, "invalid_field", "inputs.age"),
        ({"inputs": {"age": 41, "city": "Rome"}, "outputs": ["z"]}, "unknown_output", "outputs.z"),
        ({"inputs": {"age": 41, "city": "Rome"}, "explain": True}, "invalid_field", None),
        ([41, "Rome"], "missing_input", "inputs"),
        (b"age=41", "malformed_json", None),
    ],
)
def test_what_is_wrong_is_a_problem_that_names_the_field(said: Any, code: str, field: str | None) -> None:
    reply = refusal("predict", refused(said, PEOPLE), trace_id="t")
    problem = json.loads(reply.joined())
    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status, problem["status"], problem["code"]) == (400, 400, code)
    assert problem["type"] == f"urn:problem-type:slipway:{code}"
    assert field is None or problem["details"]["field"] == field


def test_predictions_are_class_names_and_logits_become_probabilities() -> None:
    answer = told(TABLE, {"y": np.array([[0, 2, 0], [0, 0, np.log(2)]], np.float32)})
    assert answer["predictions"] == ["b", "c"]
    assert answer["confidence"] == pytest.approx([np.e**2 / (np.e**2 + 2), 0.5], abs=1e-6)
    assert answer["classes"] == ["a", "b", "c"]
    assert answer["outputs"]["y"][0] == [0, 2, 0]
    assert (answer["model"], answer["version"], answer["processing_time"]) == ("ada/m", "1.0.0", 0.25)


def test_probabilities_stay_as_they_are_and_the_config_may_say_what_scores_are() -> None:
    scores = {"y": np.array([[0.25, 0.5, 0.25]], np.float32)}
    assert told(TABLE, scores)["confidence"] == [0.5]
    logits = model(tensor("x", "float32", [None, 4]), classes=["a", "b", "c"], scores="logits")
    assert told(logits, scores)["confidence"][0] < 0.5
    assert told(TABLE, {"y": np.array([[0, np.nan, 0]], np.float32)})["confidence"] == [None]


def test_a_label_of_the_models_own_is_the_prediction() -> None:
    outputs = [tensor("label", "str", [None]), tensor("scores", "float32", [None, 2])]
    named = model(tensor("x", "float32", [None, 4]), outputs=outputs, classes=["no", "yes"])
    answer = told(named, {"label": np.array(["yes"], object), "scores": np.array([[0.25, 0.75]], np.float32)})
    assert (answer["predictions"], answer["confidence"]) == (["yes"], [0.75])
    places = model(tensor("x", "float32", [None, 4]), outputs=outputs, classes=["no", "yes"])
    assert told(places, {"label": np.array([1, 0], np.int64)}, {"inputs": [[0] * 4] * 2, "outputs": []})[
        "predictions"
    ] == ["yes", "no"]


def test_values_are_no_decision_and_yes_or_no_is_one() -> None:
    value = model(tensor("x", "float32", [None, 4]), task="regression")
    answer = told(value, {"y": np.array([[0.5, 1, 2]], np.float32)})
    assert (answer["predictions"], answer["confidence"]) == ([[0.5, 1, 2]], None)
    assert label(value, asked([0, 0, 0, 0], value), {"y": np.array([[0.5, 1, 2]], np.float32)}) is None
    yes = model(tensor("x", "float32", [None, 4]), classes=["no", "yes"])
    answer = told(yes, {"y": np.array([[0.75], [0.125]], np.float32)})
    assert (answer["predictions"], answer["confidence"]) == (["yes", "no"], [0.75, 0.875])
    several = model(tensor("x", "float32", [None, 4]), classes=["a", "b", "c"], task="multilabel")
    assert told(several, {"y": np.array([[0.75, 0.125, 0.9]], np.float32)})["predictions"] == [["a", "c"]]


def test_a_detector_answers_with_boxes() -> None:
    found = np.zeros((1, 7, 64), np.float32)
    found[0, :, 3] = [30, 40, 20, 10, 0, 0.9, 0]
    detector = model(tensor("x", "float32", [None, 4]), classes=["car", "dog", "tree"], task="detection")
    box = {"box": [20, 35, 40, 45], "class": "dog", "confidence": pytest.approx(0.9)}
    assert told(detector, {"y": found})["predictions"] == [[box]]
    request = asked([0, 0, 0, 0], detector)
    moved = found + np.array([1, 1, 0, 0, 0, 0, 0], np.float32).reshape(1, 7, 1) * 0.1
    assert decision(detector, request, {"y": found}) == decision(detector, request, {"y": moved})
    assert decision(detector, request, {"y": found}) != decision(detector, request, {"y": found * 0})


def test_two_variants_agree_where_they_decide_alike() -> None:
    request = asked([0, 0, 0, 0], TABLE)
    a, b, c = (np.array([one], np.float32) for one in ([0, 2, 1], [0.5, 1.5, 1], [0, 1, 2]))
    assert (
        decision(TABLE, request, {"y": a}) == decision(TABLE, request, {"y": b}) != decision(TABLE, request, {"y": c})
    )
    assert label(TABLE, request, {"y": a}) == "b"
    value = model(tensor("x", "float32", [None, 4]), task="regression")
    a, b, c = (np.array([one], np.float32) for one in ([1234, 0], [1234.1, -0.0], [1250, 0]))
    assert (
        decision(value, request, {"y": a}) == decision(value, request, {"y": b}) != decision(value, request, {"y": c})
    )


def picture(width: int = 12, height: int = 16, kind: str = "PNG", pixels: Any = None, **how: Any) -> bytes:
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8) if pixels is None else pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def form(*parts: tuple[str, bytes]) -> tuple[str, bytes]:
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in parts
    )
    return "multipart/form-data; boundary=b", body + b"--b--\r\n"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_comes_as_it_is_in_a_form_or_in_base64(kind: str) -> None:
    file = picture(kind=kind)
    text = base64.b64encode(file).decode()
    media, body = form(("file", file))
    ways = [
        asked(file, PHOTO, f"image/{kind.lower()}"),
        asked(body, PHOTO, media),
        asked({"image": text}, PHOTO),
        asked({"inputs": {"pixels": [f"data:image/{kind.lower()};base64,{text}"]}}, PHOTO),
    ]
    assert ways[0].arrays["pixels"].shape == (1, 3, 8, 6)
    assert ways[0].arrays["pixels"].dtype == np.float32
    assert all(np.array_equal(one.arrays["pixels"], ways[0].arrays["pixels"]) for one in ways)


def test_pixels_are_scaled_shifted_and_laid_out_as_the_config_says() -> None:
    pixels = RNG.integers(0, 256, (8, 6, 3), np.uint8)
    file = picture(pixels=pixels)
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.25, 0.5], np.float32)
    said = {"mean": mean.tolist(), "std": std.tolist()}
    normal = asked(file, model(tensor("x", "float32", [None, 3, 8, 6]), image=said), "image/png").arrays["x"]
    assert normal == pytest.approx(((pixels / 255 - mean) / std).transpose(2, 0, 1)[None], abs=1e-5)
    whole = model(tensor("x", "uint8", [None, None, None, 3]), image={"size": [8, 6], "mode": "BGR"})
    assert np.array_equal(asked(file, whole, "image/png").arrays["x"][0], pixels[..., ::-1])
    grey = asked(file, model(tensor("x", "float32", [1, 1, 8, 6])), "image/png").arrays["x"]
    assert grey[0, 0] == pytest.approx(np.asarray(Image.fromarray(pixels).convert("L")) / 255, abs=1e-6)


def test_a_picture_is_cut_padded_or_stretched_and_never_lies_on_its_side() -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 255  # the middle
    file = picture(pixels=pixels)

    def sized(**said: Any) -> Any:
        square = model(tensor("x", "uint8", [None, 8, 8, 3]), image=said)
        return asked(file, square, "image/png").arrays["x"][0, :, :, 0]

    assert (sized(resize="crop", crop=1.0) == 255).all()
    padded = sized(resize="pad", fill=7, interpolation="nearest")
    assert padded[:, 4].tolist() == [7, 7, 255, 255, 255, 255, 7, 7]
    assert sized(interpolation="nearest")[0].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright = model(tensor("x", "uint8", [None, 16, 8, 3]))
    turned = picture(pixels=pixels, exif=exif)
    assert (asked(turned, upright, "image/png").arrays["x"][0, 4:12] == 255).all()


def test_pictures_that_are_none_and_bombs_are_refused() -> None:
    head = picture(1, 1)
    size = b"IHDR" + (60_000).to_bytes(4) * 2 + head[24:29]
    bomb = head[:12] + size + zlib.crc32(size).to_bytes(4) + head[33:]
    wide = picture(pixels=np.zeros((1, 3000, 3), np.uint8))
    crop = model(tensor("x", "float32", [None, 3, 8, 6]), image={"resize": "crop"})
    assert asked(wide, crop, "image/png").arrays["x"].shape == (1, 3, 8, 6)
    assert refused(bomb, PHOTO, "image/png").status == 413
    assert refused(b"GIF89a", PHOTO, "image/png").code == "unreadable_image"
    assert refused({"image": "no base64!"}, PHOTO).code == "unreadable_image"
    large = model(tensor("x", "float32", [None, 3, 4096, 4096]))
    assert refused({"image": [base64.b64encode(head).decode()] * 3}, large).code == "image_too_large"
    assert (refused(b"GIF89a", PHOTO, "image/gif").status, refused(head, TABLE, "image/png").status) == (415, 415)
    media, body = form(("file", head))
    assert refused(body[:-9], PHOTO, media).code == "malformed_multipart"
    assert refused(body, PHOTO, "multipart/form-data").code == "malformed_multipart"
    assert refused(form(("text", b"hello"))[1], PHOTO, media).code == "invalid_field"
    assert refused(form()[1], PHOTO, media).code in {"missing_file", "malformed_multipart"}


FILES = {
    "image/png": picture(),
    "image/jpeg": picture(kind="JPEG"),
    "image/webp": picture(kind="WEBP"),
    form()[0]: form(("file", picture()))[1],
}


@settings(max_examples=200)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 2000), st.binary(max_size=8), st.integers(0, 2000))
def test_a_damaged_file_is_a_picture_or_a_refusal(media: str, at: int, patch: bytes, end: int) -> None:
    file = FILES[media]
    damaged = (file[:at] + patch + file[at + len(patch) :])[: len(file) if end % 2 else end]
    try:
        asked(damaged, PHOTO, media)
    except BadRequest as refused:
        json.loads(refusal("predict", refused).joined())


@pytest.mark.parametrize(
    "said",
    [
        {"size": [9, 6]},
        {"mode": "L"},
        {"mean": [0.5]},
        {"std": 0},
        {"input": "other"},
        {"resise": "pad"},
        {"size": "big"},
        7,
    ],
)
def test_an_image_config_that_does_not_fit_the_model_is_refused(said: Any) -> None:
    with pytest.raises(Rejected) as caught:
        model(tensor("x", "float32", [None, 3, 8, 6]), image=said)
    assert caught.value.code == "invalid_config"


def test_a_datatype_that_the_protocol_lacks_is_refused() -> None:
    with pytest.raises(Rejected, match="bfloat16"):
        model(tensor("x", "bfloat16", [1]))


SIGNATURES = {
    "table": TABLE,
    "columns": PEOPLE,
    "photo": PHOTO,
    "larger photo": model(tensor("pixels", "float32", [None, None, None, 3]), image={"size": 48}),
    "all kinds": model(
        *(
            tensor(one, one, [None, 2])
            for one in ("bool", "uint8", "int8", "uint64", "int64", "float16", "float64", "str")
        ),
        tensor("word", "int64", [None, None], below=10, example=[1, 7]),
        tensor("colour", "str", [None, 1], values=["red", "blue"], closed=True),
        tensor("size", "int64", [None, 1], values=["38", "39"], closed=True),
        tensor("number", "float32", []),
        tensor("free", "float32", None),
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_schema_is_one_and_takes_its_own_example_as_the_model_does(name: str) -> None:
    of = SIGNATURES[name]
    schemas, requests = json_schema(of), example(of)
    for kind in ("predict", "v2"):
        schema, request = schemas[kind], requests[kind]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(request, schema)
        assert schema.get("examples", [request]) == [request]
        decode(of, kind, {}, json.dumps(request).encode(), LARGEST)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"inputs": [7]}, schema)
