"""The API against clients that mean it harm: slow, endless, ambiguous and oversized requests, on real sockets."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import pairwise
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

import api.lingering
import api.news
import api.upload
from api import envelope, multipart
from api.app import create_app
from api.deps import Services
from api.news import Hub
from shared.patience import MAX_HEAD, MAX_HEADERS, MAX_URL, PatientProtocol
from shared.settings import Settings
from shared.storage import Bucket
from tests.integration.api_fixtures import (
    Person,
    Served,
    ada,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    serving,
    url,
)
from tests.integration.upload_fixtures import (
    CONTENT_TYPE,
    END,
    Wire,
    file,
    file_head,
    form,
    left_in,
    onnx,
    safetensors,
    staging,
    text,
    wait_for,
)

MIB = 1 << 20
PATIENCE = 2.0
LARGE = 24 * MIB
Join = Callable[..., Person]


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(max_upload_size=32 * MIB, max_side_file_size=MIB, upload_rate_limit=1000)


@pytest.fixture
def hasty(parts: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """An API with two seconds of patience for everything, and an answer without end."""
    monkeypatch.setattr(PatientProtocol, "header_seconds", PATIENCE)
    monkeypatch.setattr(PatientProtocol, "reading_seconds", PATIENCE)
    monkeypatch.setattr(api.upload, "WINDOW", PATIENCE)
    monkeypatch.setattr(api.lingering, "LINGER", PATIENCE)
    hub = Hub(parts.settings.database_url.get_secret_value())  # its own: it is closed when this API ends
    app = create_app(replace(parts, hub=hub, close=lambda: None))

    @app.get("/endless")
    def endless() -> StreamingResponse:
        return StreamingResponse(iter(lambda: bytes(65536), None))

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(LARGE))

    for layer in app.user_middleware:
        if layer.cls is envelope.Envelope:
            layer.kwargs["seconds"] = PATIENCE
    with serving(app) as running:
        yield running


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20)


def said(url: str, sent: bytes) -> bytes:
    """All that the server says to these bytes until it hangs up."""
    with connect(url) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            return received
        return received


def token_of(person: Person) -> str:
    return person.client.headers["Authorization"].removeprefix("Bearer ")


# Slow


def test_two_hundred_slow_connections_stop_nobody_and_are_closed_in_time(
    hasty: Served, join: Join, staging: Bucket
) -> None:
    """Silent ones, ones that trickle headers, a small body, and an upload; a byte on each every 0.2 s."""
    ada = join()
    login = (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
    )
    upload = (
        f"POST /api/v1/models/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(ada)}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {30 * MIB}\r\n\r\n"
    ).encode() + file_head("model_file", "w.safetensors")
    beginnings = (b"", b"GET /livez HTTP/1.1\r\nX: ", login, upload)
    with ExitStack() as opened, httpx2.Client(base_url=hasty.url, timeout=20) as client:
        crowd = [opened.enter_context(closing(connect(hasty.url))) for _ in range(200)]
        for number, connection in enumerate(crowd):
            connection.sendall(beginnings[number % 4])
            connection.setblocking(False)
        wait_for(lambda: len(hasty.server.server_state.connections) >= 200)
        began, slowest, alive = time.monotonic(), 0.0, set(range(200))
        while alive and time.monotonic() - began < 5 * PATIENCE:
            asked = time.monotonic()
            assert client.get("/api/v1/me", headers=ada.client.headers).status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
            alive -= {number for number in alive if has_hung_up(crowd[number], trickle=number % 4 != 0)}
            time.sleep(0.2)
        assert not alive
        assert slowest < 1.5
        wait_for(lambda: len(hasty.server.server_state.connections) <= 1)
    assert left_in(staging) == []


def has_hung_up(connection: socket.socket, *, trickle: bool) -> bool:
    try:
        if trickle:
            connection.send(b"x")
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def test_an_upload_that_trickles_is_sent_away_and_leaves_nothing(hasty: Served, join: Join, staging: Bucket) -> None:
    """Far below the limit of silence, and far below the least rate."""
    with Wire(hasty.url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(text("name", "m") + file_head("model_file", "w.safetensors") + safetensors(30 * MIB)[:100])
        until = time.monotonic() + 1.5 * PATIENCE
        while time.monotonic() < until:
            wire.send(b"x")
            time.sleep(0.1)
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (408, "upload_too_slow")
    wait_for(lambda: left_in(staging) == [])


def test_time_that_storage_takes_is_not_held_against_the_client() -> None:
    pace = api.upload._Pace(1000)
    for _ in range(100):
        pace.keep(100, 0.0)  # was there already when we came to read on
    pace.keep(30_000, 30.0)
    with pytest.raises(api.upload.Problem, match="slower than"):
        pace.keep(29_000, 30.0)


def test_an_answer_that_nobody_reads_is_given_up(hasty: Served) -> None:
    with closing(connect(hasty.url)) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: len(hasty.server.server_state.connections) == 1)
        wait_for(lambda: not hasty.server.server_state.connections)


def test_who_reads_slowly_but_steadily_gets_all_of_a_long_answer(hasty: Served) -> None:
    with closing(connect(hasty.url)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        began, received = time.monotonic(), 0
        while chunk := connection.recv(MIB):
            received += len(chunk)
            time.sleep(max(0.0, received / LARGE * 2 * PATIENCE - (time.monotonic() - began)))
        assert received > LARGE
        assert time.monotonic() - began > PATIENCE * 1.5


def test_where_connections_are_too_many_the_one_that_idles_longest_makes_room(
    hasty: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "header_seconds", 60.0)
    monkeypatch.setattr(PatientProtocol, "most_connections", 20)
    with ExitStack() as opened, closing(connect(hasty.url)) as working:
        working.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert working.recv(100).startswith(b"HTTP/1.1 200")
        crowd = [opened.enter_context(closing(connect(hasty.url))) for _ in range(30)]
        assert crowd[0].recv(1) == b""
        crowd[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert crowd[-1].recv(100).startswith(b"HTTP/1.1 200")
        assert working.recv(65536), "who is being answered stays"
        assert len(hasty.server.server_state.connections) <= 20


def test_one_user_cannot_hold_every_stream(
    served: Served, ada: httpx2.Client, join: Join, submit: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.news, "MOST_STREAMS", 3)
    run = submit()
    path = f"/api/v1/runs/{run}/events"
    with ExitStack() as opened:
        for _ in range(3):
            assert opened.enter_context(ada.stream("GET", path)).status_code == 200
        refused = ada.get(path)
        problem(refused, 429, "too_many_streams")
        assert refused.headers["retry-after"]
        with join("admin").client.stream("GET", path) as somebody_else:
            assert somebody_else.status_code == 200

    def free_again() -> bool:
        with ada.stream("GET", path) as answer:
            return answer.status_code == 200

    wait_for(free_again)


# Endless


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /" + b"a" * MAX_URL + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="address"),
        pytest.param(b"GET /" + b"a" * (1 << 20), 414, id="address without end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431, id="header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 20), 431, id="header without end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X" * (1 << 20), 431, id="name without end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * MAX_HEADERS + b"\r\n", 431, id="many"),
    ],
)
def test_what_comes_before_the_body_is_bounded(hasty: Served, head: bytes, status: int) -> None:
    with closing(connect(hasty.url)) as connection:
        try:
            for at in range(0, len(head), 16384):
                connection.sendall(head[at : at + 16384])
            answer = connection.recv(65536)
        except ConnectionError:  # it hung up with more bytes on the way: its answer may be lost
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 %d " % status)
    wait_for(lambda: not hasty.server.server_state.connections)


def test_a_long_address_and_long_headers_are_still_answered(url: str) -> None:
    head = b"GET /livez?" + b"a" * (MAX_URL - 100) + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += b"X: " + b"a" * (MAX_HEAD - 400) + b"\r\n" + b"Y: a\r\n" * (MAX_HEADERS - 10) + b"\r\n"
    assert said(url, head).startswith(b"HTTP/1.1 200")


def test_requests_that_come_in_one_piece_are_all_answered(url: str) -> None:
    """Each cut in the middle of its headers, with more of a body between the cuts than headers may have."""
    body = b'"' + b"x" * (3 * MAX_HEAD) + b'"'
    one = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    one += b"Content-Length: %d\r\n\r\n" % len(body) + body
    with closing(connect(url)) as connection:
        sent = one * 3 + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        cuts = [0, *(number * len(one) + 30 for number in range(4)), len(sent)]
        for start, end in pairwise(cuts):
            connection.sendall(sent[start:end])
            time.sleep(0.05)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 422") == 3
    assert answer.count(b"HTTP/1.1 200") == 1


def test_headers_without_end_behind_a_running_answer_end_the_connection(hasty: Served) -> None:
    with closing(connect(hasty.url)) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nX: ")
        drained = threading.Thread(target=drain, args=(connection,))
        drained.start()
        with pytest.raises(ConnectionError):
            connection.sendall(b"a" * (16 << 20))
        drained.join(10)
        assert not drained.is_alive()


def drain(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        return


# Ambiguous

SMUGGLED = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
LOGIN = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(LOGIN + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="two lengths"),
        pytest.param(LOGIN + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", id="the other way"),
        pytest.param(LOGIN + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", id="twice"),
        pytest.param(LOGIN + b"Content-Length: +4\r\n\r\nabcd", id="plus"),
        pytest.param(LOGIN + b"Content-Length: -1\r\n\r\nabcd", id="minus"),
        pytest.param(LOGIN + b"Content-Length: 4, 4\r\n\r\nabcd", id="list"),
        pytest.param(LOGIN + b"Content-Length: 18446744073709551620\r\n\r\nabcd", id="overflow"),
        pytest.param(LOGIN + b"Content-Length : 4\r\n\r\nabcd", id="space before the colon"),
        pytest.param(LOGIN + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown coding"),
        pytest.param(LOGIN + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", id="chunked is not last"),
        pytest.param(LOGIN + b"Transfer-Encoding: identity\r\n\r\n", id="identity"),
        pytest.param(LOGIN + b"X: a\r\n Content-Length: 4\r\n\r\nabcd", id="folded"),
        pytest.param(LOGIN + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="bare line feed"),
        pytest.param(LOGIN + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="bare return"),
        pytest.param(LOGIN + b"X: a\0b\r\n\r\n", id="NUL"),
        pytest.param(LOGIN + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n", id="odd chunk size"),
        pytest.param(LOGIN + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd0\r\n\r\n", id="chunk longer than it says"),
        pytest.param(LOGIN + b"Transfer-Encoding: chunked\r\n\r\n2;a\nab\r\n0\r\n\r\n", id="line feed in an extension"),
        pytest.param(
            LOGIN + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n", id="length at the end"
        ),
        pytest.param(LOGIN + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nabcd", id="upgrade"),
        pytest.param(b"GET / HTTP/1.1\nHost: x\n\n", id="line feeds alone"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n", id="no name for a host"),
        pytest.param(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", id="unknown version"),
        pytest.param(b"GET /\r\n\r\n", id="HTTP 0.9"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", id="tunnel"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
    ],
)
def test_what_two_servers_could_read_differently_is_refused_with_all_that_follows(url: str, sent: bytes) -> None:
    answer = said(url, sent + SMUGGLED)
    assert b'"api":"v1"' not in answer
    assert answer.count(b"HTTP/1.1 ") <= 1
    if answer:  # none where the body turned out wrong after the app had begun
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 400")
        assert b"connection: close" in head
        assert b"x-content-type-options: nosniff" in head
        assert b"application/problem+json" in head


def test_no_host_is_reflected_and_an_absolute_address_is_taken_by_its_path(url: str) -> None:
    answer = said(url, b"GET http://evil.example/version HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"evil" not in answer
    assert b"evil" not in said(url, b"GET /docs/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")


def test_a_wish_for_another_protocol_is_ignored_and_ends_the_connection(url: str) -> None:
    sent = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = said(url, sent + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1 ") == 1


# Headers of answers


@pytest.mark.parametrize(
    "path", ["/livez", "/nowhere", "/api/v1/me", "/openapi.json", "/docs", "/static/docs.html", "/%00", "/static/../x"]
)
def test_every_answer_tells_browsers_to_be_careful(anonymous: httpx2.Client, path: str) -> None:
    headers = anonymous.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "strict-transport-security" not in headers
    assert "server" not in headers
    assert headers["cache-control"] in ("no-store", "no-cache")


def test_only_an_answer_that_went_through_tls_asks_for_tls_for_ever(anonymous: httpx2.Client) -> None:
    """A proxy on this machine is believed what it says of the client's side."""
    headers = anonymous.get("/livez", headers={"X-Forwarded-Proto": "https"}).headers
    assert headers["strict-transport-security"] == "max-age=31536000"


def test_what_was_answered_to_somebody_is_kept_by_nobody_else(join: Join, anonymous: httpx2.Client) -> None:
    ada = join().client
    assert ada.get("/api/v1/me").headers["cache-control"] == "no-store"
    assert anonymous.get("/static/docs.html").headers["cache-control"] == "no-cache"
    assert ada.get("/static/docs.html").headers["cache-control"] == "private, no-cache"


def test_no_other_origin_is_let_in(anonymous: httpx2.Client) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (anonymous.get("/version", headers=origin), anonymous.options("/api/v1/me", headers=origin)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    problem(anonymous.options("/api/v1/me", headers=origin), 405, "method_not_allowed")


# Bodies


@pytest.mark.parametrize("body", [b"[" * 900_000, b'{"a":' * 100_000, b'{"username":' + b"9" * 900_000 + b"}"])
def test_json_that_is_deep_or_holds_endless_numbers_is_the_clients_fault(anonymous: httpx2.Client, body: bytes) -> None:
    answer = anonymous.post("/api/v1/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 4096, "an error does not repeat what it was sent"


def fields(count: int) -> bytes:
    return b"".join(text(f"f{number}", "x") for number in range(count))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(form(*(text("tags", "") for _ in range(2))), 422, "invalid_field", id="a field twice"),
        pytest.param(form(text("x" * 3000, "y")), 422, "invalid_field", id="a long name"),
        pytest.param(form(text("description", "x" * MIB)), 422, "invalid_field", id="a long field"),
        pytest.param(
            form(file("model_file", "m.onnx", onnx(), *(f"X-{n}: y" for n in range(20)))),
            400,
            "malformed_multipart",
            id="many headers of a part",
        ),
        pytest.param(
            form(file("model_file", "m.onnx", onnx(), "X: " + "y" * (2 * multipart.MAX_HEADER))),
            400,
            "malformed_multipart",
            id="a long header of a part",
        ),
        pytest.param(
            form(file("model_file", "m" * 5000 + ".onnx", onnx())), 400, "malformed_multipart", id="a long file name"
        ),
        pytest.param(
            form(file("model_file", "m.onnx", onnx(), "Content-Type: a", "Content-Type: b")),
            400,
            "malformed_multipart",
            id="a header twice",
        ),
        pytest.param(
            form(*[file("card_file", "", b"")] * (multipart.MAX_PARTS + 1)), 400, "malformed_multipart", id="many parts"
        ),
        pytest.param(b"x" * 5 * MIB + END, 400, "malformed_multipart", id="a long preamble"),
    ],
)
def test_parts_and_fields_are_bounded(join: Join, staging: Bucket, body: bytes, status: int, code: str) -> None:
    client = join().client
    answer = client.post("/api/v1/models/upload", content=body, headers={"Content-Type": CONTENT_TYPE})
    problem(answer, status, code)
    assert len(answer.content) < 4096
    assert left_in(staging) == []
