"""Our client, and code to copy, before a serving process as it is: what one says the other understands."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from slipway import Client, InvalidRequest, NotFound
from slipway.snippets import snippet

from registry import endpoints
from registry.audit import Actor
from shared.db import Begin
from tests.integration.serving_fixtures import Edge, Moored, User, edge, enrol, moor, scaled, shelf_bucket

SOURCE = Path(__file__).parents[2] / "client" / "src"


@pytest.fixture
def ada(enrol: Callable[..., User]) -> User:
    return enrol()


@pytest.fixture
def asking(edge: Edge, ada: User, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client that knows the serving process and needs nothing else."""
    monkeypatch.setenv("SLIPWAY_SERVING_URL", edge.url)
    monkeypatch.setenv("SLIPWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SLIPWAY_TOKEN", ada.key)
    return Client()


def test_the_client_asks_in_every_form_and_code_to_copy_runs(
    asking: Client, ada: User, moor: Callable[..., Moored], tmp_path: Path
) -> None:
    moored = moor(ada, "digits", scaled(2.0), classes=("a", "b", "c", "d"))
    with asking:
        answer = asking.predict("digits", [0.0, 1.0, 2.0, 4.0])
        assert answer.outputs["y"].tolist() == [[0.0, 2.0, 4.0, 8.0]]
        assert (answer.model, answer.version) == (moored.reference, "1.0.0")
        assert answer.receipt
        assert asking.predict(f"{moored.reference}@production", np.ones((3, 4))).outputs["y"].shape == (3, 4)
        named = asking.predict.simple("digits@1.0.0", {"x": [[0, 0, 0, 9]]})
        assert (named.predictions, named.outputs["y"]) == (("d",), [[0, 0, 0, 18]])
        with pytest.raises(InvalidRequest) as caught:
            asking.predict("digits", np.ones((1, 5)))
        assert caught.value.status == 400
        with pytest.raises(NotFound):
            asking.predict("digits@9.0.0", [0.0] * 4)

        described = asking.predict.describe("digits")
        for language, command in (("curl", "sh"), ("python", sys.executable), ("triton", sys.executable)):
            script = tmp_path / language
            script.write_text(snippet(language, described, url=asking.predict.url, reference="1.0.0"))
            environment = os.environ | {"PYTHONPATH": str(SOURCE)}
            done = subprocess.run(
                [command, script], env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert "1." in done.stdout


def test_a_private_model_s_open_endpoint_answers_strangers_and_tells_them_nothing_else(
    asking: Client, edge: Edge, ada: User, enrol: Callable[..., User], moor: Callable[..., Moored], begin: Begin
) -> None:
    moored = moor(ada, "open", scaled(3.0))
    ask = f"/v2/models/{moored.reference}/infer"
    row = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}]}
    with edge.client() as nobody, edge.client(enrol()) as stranger:
        assert nobody.post(ask, json=row).status_code == 401
        assert stranger.post(ask, json=row).status_code == 404
        with begin() as session:
            actor = Actor(id=ada.id, name=ada.name)
            endpoints.change(session, moored.model_id, {"auth_required": False}, actor=actor)
        for client in (nobody, stranger):
            answer = client.post(ask, json=row)
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["data"] == [3, 3, 3, 3]
