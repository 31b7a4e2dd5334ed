"""The stock Triton client, unchanged, against our endpoints."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from tests.integration.serving_fixtures import (
    Edge,
    Moored,
    User,
    edge,
    enrol,
    made_of,
    moor,
    scaled,
    shelf_bucket,
)

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def ada(enrol: Callable[..., User]) -> User:
    return enrol()


@pytest.fixture(scope="module")
def double(ada: User, moor: Callable[..., Moored]) -> Moored:
    return moor(ada, "double", scaled(2), classes=("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def client(edge: Edge) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(edge.url.removeprefix("http://"), concurrency=4) as client:
        yield client


def asked(rows: np.ndarray, *, binary: bool = True) -> list[triton.InferInput]:
    one = triton.InferInput("x", list(rows.shape), "FP32")
    one.set_data_from_numpy(rows, binary_data=binary)
    return [one]


def test_health_and_metadata(client: triton.InferenceServerClient, ada: User, double: Moored) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    client.infer(double.reference, asked(ROWS), headers=ada.headers)
    assert client.is_model_ready(double.reference, headers=ada.headers)
    assert client.is_model_ready(double.reference, double.version, headers=ada.headers)
    told = client.get_model_metadata(double.reference, headers=ada.headers)
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert (told["versions"], told["platform"]) == (["1.0.0"], "onnxruntime_onnx")
    config = client.get_model_config(double.reference, headers=ada.headers)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}]
    (line,) = client.get_model_repository_index(headers=ada.headers)
    assert (line["name"], line["state"]) == (double.reference, "READY")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_inference_in_bytes_and_in_json(
    client: triton.InferenceServerClient, ada: User, double: Moored, binary_in: bool, binary_out: bool
) -> None:
    wanted = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer(
        double.reference, asked(ROWS, binary=binary_in), outputs=wanted, request_id="7", headers=ada.headers
    )
    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == double.version


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client: triton.InferenceServerClient, ada: User, double: Moored, algorithm: str) -> None:
    rows = np.ones((500, 4), np.float32)
    result = client.infer(
        double.reference,
        asked(rows),
        headers=ada.headers,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), rows * 2)


def test_classes_by_the_classification_extension(
    client: triton.InferenceServerClient, ada: User, double: Moored
) -> None:
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    result = client.infer(double.reference, asked(ROWS[:1]), outputs=wanted, headers=ada.headers)
    assert result.as_numpy("y").tolist() == [[b"6.000000:3:d", b"4.000000:2:c"]]


def test_many_at_once(client: triton.InferenceServerClient, ada: User, double: Moored) -> None:
    """The client's own way to be asynchronous; rows of several requests may be put together, and come apart again."""
    under_way = [
        client.async_infer(double.reference, asked(ROWS + number), headers=ada.headers) for number in range(32)
    ]
    for number, each in enumerate(under_way):
        np.testing.assert_array_equal(each.get_result().as_numpy("y"), (ROWS + number) * 2)


def test_texts(client: triton.InferenceServerClient, ada: User, moor: Callable[..., Moored]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["words"], ["same"])],
        "g",
        [helper.make_tensor_value_info("words", TensorProto.STRING, ["batch", 2])],
        [helper.make_tensor_value_info("same", TensorProto.STRING, ["batch", 2])],
    )
    moored = moor(ada, "words", made_of(graph))
    words = np.array([["Škoda", ""], ["東京", "a" * 5000]], dtype=np.object_)
    one = triton.InferInput("words", [2, 2], "BYTES")
    one.set_data_from_numpy(words)
    result = client.infer(moored.reference, [one], headers=ada.headers)
    assert [[each.decode() for each in row] for row in result.as_numpy("same")] == words.tolist()


def test_statistics(client: triton.InferenceServerClient, ada: User, moor: Callable[..., Moored]) -> None:
    moored = moor(ada, "measured", scaled(2))
    for _ in range(3):
        client.infer(moored.reference, asked(ROWS), headers=ada.headers)
    (told,) = client.get_inference_statistics(moored.reference, headers=ada.headers)["model_stats"]
    assert (told["inference_count"], told["inference_stats"]["success"]["count"]) == (9, 3)
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert sum(told["inference_stats"][part]["ns"] for part in parts) <= told["inference_stats"]["success"]["ns"]
    names = [each["name"] for each in client.get_inference_statistics(headers=ada.headers)["model_stats"]]
    assert moored.reference in names


def test_errors_reach_the_clients_exception(client: triton.InferenceServerClient, ada: User, double: Moored) -> None:
    with pytest.raises(InferenceServerException, match="takes"):
        client.infer(double.reference, asked(np.ones((1, 3), np.float32)), headers=ada.headers)
    with pytest.raises(InferenceServerException, match="who you are"):
        client.infer(double.reference, asked(ROWS))
    with pytest.raises(InferenceServerException, match="no version"):
        client.infer(double.reference, asked(ROWS), model_version="9.0.0", headers=ada.headers)
