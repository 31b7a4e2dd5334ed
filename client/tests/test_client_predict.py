"""Models that are asked: what the SDK sends and makes of the answer, what the command line shows, and code to copy."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
from commands import slipway
from conditions import TOKEN, Harbour
from slipway import Client, InvalidRequest, SlipwayError, Unreachable, tensors

INFER = "/v2/models/ada/digits/infer"
SOURCE = Path(__file__).parents[1] / "src"

pytestmark = pytest.mark.usefixtures("signed_in")


def test_arrays_go_as_bytes_and_come_back_as_arrays(client: Client, server: Harbour) -> None:
    x = np.arange(4.0)  # float64, and no batch axis: what people have at hand
    answer = client.predict("ada/digits", x)
    assert answer.outputs["X"].dtype == np.float32
    assert answer.outputs["X"].tolist() == [[0.0, 2.0, 4.0, 6.0]]
    assert (answer.model, answer.version, answer.receipt) == ("ada/digits", "1.0.0", "receipt-1")
    sent = server.bodies[0]["inputs"][0]
    assert sent == {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    assert client.predict("digits@staging", {"x": x[None]}).version == "staging"
    assert server.paths("GET").count("/v2/models/ada/digits") == 1, "what a model takes is asked for once"

    model = client.model("digits")
    assert model.predict([[1, 2, 3, 4]]).model == "ada/digits"
    assert model.predict(x, "1.0.0").version == "1.0.0"


def mixed() -> dict[str, Any]:
    return {
        "text": np.array(["Straße", ""], object),
        "half": np.array([[1.0, 2.5], [-3.0, 0.0]]),
        "flag": [True, False],
        "n": 7,
    }


DOUBLED = {"TEXT": ["STRASSE", ""], "HALF": [[2.0, 5.0], [-6.0, 0.0]], "FLAG": [False, True], "N": 14}


def test_every_type_that_the_protocol_has_a_special_form_for_survives_the_journey(client: Client) -> None:
    came = client.predict("texts", mixed()).outputs
    assert {name: value.tolist() for name, value in came.items()} == DOUBLED


def test_whole_numbers_of_any_size_go_where_they_fit_and_are_never_wrapped() -> None:
    ports = [tensors.Port(name="small", datatype="UINT8", shape=(-1, 2))]
    _, body = tensors.encode({"small": [[200, 1]]}, ports)
    assert body.endswith(bytes([200, 1]))
    for value in (300, -1):
        with pytest.raises(InvalidRequest, match="0 to 255"):
            tensors.encode({"small": [[value, 1]]}, ports)


def test_without_numpy_it_is_json(client: Client, server: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "numpy", lambda: None)
    lists = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in mixed().items()}
    del lists["half"], DOUBLED_WITHOUT["HALF"]
    monkeypatch.setitem(served.SIGNATURE, "texts", [one for one in served.SIGNATURE["texts"] if one[0] != "half"])
    assert client.predict("texts", lists).outputs == DOUBLED_WITHOUT
    assert client.predict("digits", [1, 2, 3, 4]).outputs == {"X": [[2.0, 4.0, 6.0, 8.0]]}
    assert "parameters" not in server.bodies[0]


DOUBLED_WITHOUT = dict(DOUBLED)


@pytest.mark.parametrize(
    ("name", "inputs", "says"),
    [
        ("digits", {"y": [1]}, "no input 'y'"),
        ("digits", {}, "also takes x"),
        ("texts", [1], "several inputs"),
        ("digits", np.array(["a"]), "of type FP32"),
    ],
)
def test_what_the_model_does_not_take_is_said_before_it_is_sent(
    client: Client, server: Harbour, name: str, inputs: Any, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        client.predict(name, inputs)
    assert server.bodies == []


def test_a_model_that_is_being_loaded_is_asked_again_and_what_the_server_refuses_is_said(
    client: Client, server: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fail[f"POST {INFER}"] = [(503, {"Retry-After": "0.01"}), (503, {"Retry-After": "0.01"})]
    assert client.predict("ada/digits", [0, 0, 0, 0]).version == "1.0.0"
    server.fail[f"POST {INFER}"] = [(503, {"Retry-After": "600"})]
    with pytest.raises(Unreachable):
        client.predict("ada/digits", [0, 0, 0, 0])
    monkeypatch.setitem(served.SIGNATURE, "digits", [("x", "FP64", [-1, 4])])  # another version is live since
    with pytest.raises(SlipwayError, match="x is FP32") as caught:
        client.predict("ada/digits", [0, 0, 0, 0])
    assert (caught.value.code, caught.value.exit_code) == ("wrong_datatype", 2)
    assert client.predict("ada/digits", [0, 0, 0, 0]).outputs["X"].dtype == np.float64


def test_the_serving_process_is_where_the_environment_says_and_gets_the_credential(
    server: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_SERVING_URL", f"{server.url}/")
    monkeypatch.setenv("SLIPWAY_URL", "http://127.0.0.1:1")
    with Client() as elsewhere:
        assert elsewhere.predict("ada/digits", [0, 0, 0, 0]).receipt == "receipt-1"
    assert {headers["authorization"] for _, _, headers in server.seen} == {f"Bearer {TOKEN}"}


def test_the_command_asks_with_json_arrays_and_images(server: Harbour, tmp_path: Path) -> None:
    shown = slipway("predict", "digits", "-i", "-", said="[[0, 1, 2, 3]]")
    assert shown.exit_code == 0, shown.output
    assert server.bodies == [{"inputs": [[0, 1, 2, 3]]}]
    assert [line.split()[:2] for line in shown.stdout.splitlines()[2:4]] == [["one", "70.0%"], ["two", "20.0%"]]
    assert "receipt receipt-1" in shown.stdout

    image = tmp_path / "three.png"
    image.write_bytes(b"\x89PNG")
    told = json.loads(slipway("predict", "ada/digits", "-i", image, "--json").stdout)
    assert (told["predictions"], told["receipt"]) == (["three"], "receipt-1")
    assert server.bodies[1] == ("image/png", b"\x89PNG")
    assert slipway("predict", "digits", "-i", image, "-q").stdout == "three\n"

    rows, answers = tmp_path / "rows.npz", tmp_path / "answers.npz"
    np.savez(rows, x=np.ones((2, 4), np.float32))
    shown = slipway("predict", "digits", "-i", rows, "-o", answers)
    assert "2×4" in shown.stdout
    with np.load(answers) as held:
        assert held["X"].tolist() == [[2.0] * 4] * 2

    for wrong, says in (("rows.exe", "no input by its name"), (tmp_path / "absent.json", "No such file")):
        refused = slipway("predict", "digits", "-i", wrong)
        assert refused.exit_code in {1, 2}
        assert says in refused.stderr


@pytest.mark.parametrize(
    ("language", "model"),
    [("curl", "digits"), ("curl", "photos"), ("python", "texts"), ("triton", "texts"), ("triton", "photos")],
)
def test_code_to_copy_runs_as_it_is(server: Harbour, language: str, model: str, tmp_path: Path) -> None:
    printed = slipway("snippet", f"ada/{model}@1.0.0", "--lang", language)
    assert printed.exit_code == 0, printed.output
    assert TOKEN not in printed.stdout
    script = tmp_path / "snippet"
    script.write_text(printed.stdout)
    command = ["sh", str(script)] if language == "curl" else [sys.executable, str(script)]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert {"digits": "1.", "texts": "TEXT", "photos": "1."}[model] in done.stdout
    assert f"/v2/models/ada/{model}/versions/1.0.0/infer" in server.paths("POST")


def test_an_endpoint_s_rules_are_shown_and_changed(server: Harbour) -> None:
    path = "/api/v1/models/digits/endpoint"
    said = {"url": "http://s/v2/models/ada/digits", "predict_url": "p", "schema_url": "s", "auth_required": False}
    said |= {"requests_per_minute": 5, "timeout": 2.0, "revision": 3}
    server.answers |= {f"GET {path}": said, f"PATCH {path}": said}
    assert slipway("endpoint", "digits", "-q").stdout == "http://s/v2/models/ada/digits\n"
    shown = slipway("endpoint", "digits", "--public", "--rpm", "-1", "--timeout", "2").stdout
    assert server.bodies[-1] == {"auth_required": False, "requests_per_minute": None, "timeout": 2.0}
    assert "anybody, without a key" in shown


def test_a_version_is_exported_to_a_folder_to_storage_and_as_a_manifest(
    client: Client, server: Harbour, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("digits/config.pbtxt", "name: 'digits'")
        archive.writestr("digits/1/model.onnx", b"onnx")
    server.bundle = packed.getvalue()
    folder = tmp_path / "models"
    shown = slipway("export-triton", "digits@1.0.0", "-o", folder)
    assert shown.exit_code == 0, shown.output
    assert f"tritonserver --model-repository={folder}" in shown.stdout
    assert sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()) == [
        "digits/1/model.onnx",
        "digits/config.pbtxt",
    ]
    server.bundle = server.bundle[:-30]
    with pytest.raises(SlipwayError, match="no whole archive"):
        client.exports.repository("digits@1.0.0", tmp_path / "damaged")
    for name in ("../out", "/out", "a//b", "..\\out"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, b"elsewhere")
        server.bundle = packed.getvalue()
        with pytest.raises(SlipwayError, match="not inside its folder"):
            client.exports.repository("digits@1.0.0", tmp_path / "damaged")
    assert list((tmp_path / "damaged").iterdir()) == []

    path = "/api/v1/models/digits/versions/1.0.0/exports"
    made = {"variant": "onnx-fp32", "version": "1.0.0", "address": "s3://b/p", "commands": ["tritonserver …"]}
    server.answers[f"POST {path}"] = made | {"manifest": "kind: InferenceService\n"}
    assert slipway("export-triton", "digits@1.0.0", "--s3", "-q", "--device", "cpu").stdout == "s3://b/p\n"
    assert slipway("export-kserve", "digits@1.0.0", "--storage-uri", "s3://mine").stdout == "kind: InferenceService\n"
    assert server.bodies == [
        {"format": "triton", "device": "cpu"},
        {"format": "kserve", "storage_uri": "s3://mine"},
    ]
