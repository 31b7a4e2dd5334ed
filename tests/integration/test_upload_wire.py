"""What a client on a real wire sees and leaves: early refusals, silence, broken connections, bodies cut anyhow."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import api.lingering
import api.upload
from api.deps import Services
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket
from tests.integration.api_fixtures import (  # noqa: F401 - fixtures
    Person,
    Served,
    app,
    join,
    parts,
    served,
    url,
)
from tests.integration.upload_fixtures import (  # noqa: F401 - fixtures
    BOUNDARY,
    CONTENT_TYPE,
    SCRIPT,
    Wire,
    archive,
    file,
    file_head,
    form,
    left_in,
    onnx,
    safetensors,
    staging,
    text,
    versions_of,
    wait_for,
)

MIB = 1 << 20
PATH = "/api/v1/models/upload"
Join = Callable[..., Person]


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(max_upload_size=32 * MIB, max_side_file_size=MIB, upload_rate_limit=1000)


def post(person: Person, body: bytes, **headers: str) -> httpx2.Response:
    return person.client.post(PATH, content=body, headers={"Content-Type": CONTENT_TYPE} | headers)


def token_of(person: Person) -> str:
    return person.client.headers["Authorization"].removeprefix("Bearer ")


MODEL = file("model_file", "m.onnx", onnx())
NAME = text("name", "m")


def test_a_length_that_is_too_large_is_refused_before_a_byte_is_sent(join: Join, url: str, settings: Settings) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=2 * settings.max_upload_size, Expect="100-continue")
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"


def test_a_client_that_may_go_on_is_told_so(join: Join, url: str, staging: Bucket) -> None:
    body = form(NAME, MODEL)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=len(body), Expect="100-continue")
        assert wire.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(body)
        assert wire.answer().status == 202


@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_sends_everything_before_it_listens_still_gets_its_refusal(
    join: Join, url: str, settings: Settings, announced: bool
) -> None:
    """Closing at once would make the kernel reset the connection, and this client would never learn why."""
    size, ada = 4 * settings.max_upload_size, join()
    with Wire(url, token_of(ada)) as wire:
        wire.begin(length=size if announced else None)
        start = text("name", "m") + file_head("model_file", "m.safetensors") + safetensors(size)
        for at in range(0, size, MIB):
            (wire.send if announced else wire.send_chunk)(start[at : at + MIB])
        answer = wire.answer()
        assert (answer.status, answer.body["code"]) == (413, "too_large")
        if not announced:
            wire.send(b"0\r\n\r\n")
        assert wire.is_closed()


def test_a_client_that_sends_on_for_ever_is_cut_off_after_its_refusal(
    join: Join, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.lingering, "LINGER", 0.3)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=1 << 50)
        assert wire.answer().body["code"] == "too_large"
        with pytest.raises(ConnectionError):
            wire.send_all(bytes(65536) for _ in range(1 << 17))


def test_a_wrong_extension_is_refused_while_the_bytes_are_still_coming(join: Join, url: str) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(file_head("model_file", "m.exe"))
        assert wire.answer().body["code"] == "unsupported_format"


def test_a_wrong_field_is_refused_before_the_models_bytes(join: Join, url: str) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(text("version", "one") + file_head("model_file", "m.onnx"))
        assert wire.answer().body["code"] == "invalid_field"


def test_a_wrong_content_is_refused_by_its_first_bytes(join: Join, url: str, staging: Bucket) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(file_head("model_file", "m.safetensors") + b"\x80\x04" + bytes(70 << 10))
        assert wire.answer().body["code"] == "content_mismatch"
    assert left_in(staging) == []


@pytest.mark.parametrize("sent", [0, 1, 200, 5 * MIB, 21 * MIB])
def test_an_upload_that_is_broken_off_leaves_nothing(
    join: Join, served: Served, begin: Begin, staging: Bucket, sent: int
) -> None:
    ada = join()
    under_way = served.server.server_state.tasks
    body = form(NAME, file("card_file", "a.md", b"#"), file("model_file", "w.safetensors", safetensors(24 * MIB)))
    with Wire(served.url, token_of(ada)) as wire:
        wire.begin(length=len(body))
        wire.send(body[:sent])
        wait_for(lambda: under_way)
        if sent > 20 * MIB:
            wait_for(lambda: list(staging.multiparts()))  # two parts are full: something is in storage
    wait_for(lambda: not under_way)
    assert left_in(staging) == []
    assert versions_of(begin, ada.id) == 0


def test_a_client_that_falls_silent_is_sent_away(
    join: Join, url: str, staging: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.upload, "SILENCE", 0.3)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(NAME + file_head("model_file", "w.safetensors") + safetensors(20 * MIB))
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (408, "upload_stalled")
    assert left_in(staging) == []


def test_an_upload_may_not_take_for_ever(
    join: Join, url: str, staging: Bucket, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.settings, "upload_timeout", 1)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(NAME + file_head("model_file", "w.safetensors") + safetensors(20 * MIB))
        for _ in range(20):
            time.sleep(0.1)
            wire.send(b"x")
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (408, "upload_timeout")
    assert left_in(staging) == []


def test_however_the_connection_cuts_a_body_the_same_version_comes_out(join: Join, url: str, begin: Begin) -> None:
    ada, model = join(), archive(*SCRIPT, padding=30_000)
    parts_sent = [text("version", "1.0.0"), file("config_file", "c.json", b"{}"), file("model_file", "m.pt", model)]
    seen = set()
    for seed in range(6):
        dice = random.Random(seed)
        dice.shuffle(parts_sent)
        body = form(text("name", f"m{seed}"), *parts_sent)
        with Wire(url, token_of(ada)) as wire:
            wire.begin(length=None)
            while body:
                size = dice.choice((1, 2, 3, 100, 5000, 70_000))
                wire.send_chunk(body[:size])
                body = body[size:]
            wire.send(b"0\r\n\r\n")
            data = wire.answer().body["data"]
        assert isinstance(data, dict)
        seen.add((data["checksum"], data["file_size"], data["version"], data["format"]))
    assert seen == {(f"sha256:{hashlib.sha256(model).hexdigest()}", len(model), "1.0.0", "torchscript")}


fragments = st.sampled_from(
    [
        NAME,
        MODEL,
        form(),
        f"--{BOUNDARY}\r\n".encode(),
        b"\r\n",
        b"\r\n\r\n",
        b"--",
        text("config", "{}"),
        b'"; filename="',
    ]
)


@given(body=st.lists(fragments | st.binary(max_size=50), max_size=12).map(b"".join))
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
def test_garbage_is_the_clients_fault(body: bytes, grumbling: Person) -> None:
    answer = post(grumbling, body)
    assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text


@pytest.fixture
def grumbling(join: Join) -> Person:
    return join()
