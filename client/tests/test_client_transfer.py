"""Bytes up and bytes down: whole, the right ones, and never more of them in memory than a chunk."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from conditions import RUN, Harbour
from slipway import (
    Client,
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Progress,
    Refused,
    Unreachable,
)
from slipway.download import part_for

WEIGHTS = bytes(range(251)) * 4000
BEST = "onnx-fp32-optimized"


def test_a_push_arrives_as_it_was_meant(server: Harbour, client: Client, model_file: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Digits", encoding="utf-8")
    run = client.push(
        model_file, "digits", version="1.2.0", tags=["a", "ü"], input_shape=[1, 1, 8, 8], classes=["0", "1"], card=card
    )
    assert (run.id, run.status, run.model, run.version) == (RUN, "queued", "digits", "1.2.0")
    assert run.raw["data"]["validation_warnings"] == ["No classes were given."]
    fields, files = server.upload["fields"], server.upload["files"]
    assert fields["name"] == "digits"
    assert json.loads(fields["tags"]) == ["a", "ü"]
    assert json.loads(fields["input_shape"]) == [1, 1, 8, 8]
    assert "description" not in fields
    assert files["model_file"] == ("dig %22its%22.onnx", model_file.read_bytes())
    assert files["card_file"] == ("README.md", b"# Digits")


def test_the_length_is_known_before_the_first_byte(server: Harbour, client: Client, model_file: Path) -> None:
    client.push(model_file, "digits")
    headers = server.seen[0][2]
    assert int(headers["content-length"]) > model_file.stat().st_size
    assert "transfer-encoding" not in headers


def test_the_phases_come_in_order_and_count_every_byte(client: Client, model_file: Path) -> None:
    heard: list[Progress] = []
    client.push(model_file, "digits", progress=heard.append)
    assert list(dict.fromkeys(item.phase for item in heard)) == ["hashing", "uploading", "finishing", "queued"]
    for phase in ("hashing", "uploading"):
        done = [item.done for item in heard if item.phase == phase]
        assert done == sorted(done)
        assert done[-1] == next(item.total for item in heard if item.phase == phase)


def test_a_big_file_is_never_in_memory(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(64_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Unreachable):
            _push_to_a_sink(client, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def _push_to_a_sink(client: Client, path: Path) -> None:
    """Push to something that takes every byte and hangs up without a word."""
    with socket.create_server(("127.0.0.1", 0)) as sink:

        def swallow() -> None:
            connection, _ = sink.accept()
            left = path.stat().st_size
            with connection:
                while left > 0:
                    left -= len(connection.recv(1 << 20))

        thread = threading.Thread(target=swallow, daemon=True)
        thread.start()
        with Client(f"http://127.0.0.1:{sink.getsockname()[1]}", "x") as other:
            assert other.url != client.url
            other.push(path, "big")


def test_a_refusal_while_the_body_is_sent_is_shown_and_ends_the_sending(
    server: Harbour, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    server.refuse_upload = {"status": 413, "code": "too_large", "detail": "At most 500 MB.", "hint": "Make it smaller."}
    sent: list[Progress] = []
    with pytest.raises(InvalidRequest) as caught:
        client.push(path, "big", progress=sent.append)
    assert (caught.value.code, caught.value.status, caught.value.hint) == ("too_large", 413, "Make it smaller.")
    assert max(item.done for item in sent if item.phase == "uploading") < 100_000_000


def test_a_server_that_answers_and_neither_reads_nor_hangs_up_does_not_hold_us(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    body = b'{"code": "bad_token", "detail": "No."}'
    with socket.create_server(("127.0.0.1", 0)) as stubborn:
        held: list[socket.socket] = []

        def answer() -> None:
            connection, _ = stubborn.accept()
            held.append(connection)
            connection.recv(1000)
            time.sleep(0.3)  # until the client's side is full
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        threading.Thread(target=answer, daemon=True).start()
        begun = time.monotonic()
        with (
            Client(f"http://127.0.0.1:{stubborn.getsockname()[1]}", "x", timeout=20) as client,
            pytest.raises(NotAllowed) as caught,
        ):
            client.push(path, "big")
        held[0].close()
    assert caught.value.code == "bad_token"
    assert time.monotonic() - begun < 5


def test_an_upload_whose_answer_was_lost_is_sent_again_under_its_key(
    server: Harbour, client: Client, model_file: Path
) -> None:
    server.fail["POST /api/v1/models/upload"] = [(0, {})]
    client.push(model_file, "digits")
    keys = [headers.get("idempotency-key") for method, _, headers in server.seen if method == "POST"]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert keys[0]


def test_after_every_try_the_user_hears_where_to_look(server: Harbour, client: Client, model_file: Path) -> None:
    server.fail["POST /api/v1/models/upload"] = [(0, {})] * 9
    with pytest.raises(Unreachable) as caught:
        client.push(model_file, "digits")
    assert "slipway runs" in (caught.value.hint or "")


def test_a_version_that_exists_is_a_conflict(server: Harbour, client: Client, model_file: Path) -> None:
    server.refuse_upload = {"status": 409, "code": "version_exists", "detail": "1.0.0 is there."}
    with pytest.raises(Conflict):
        client.push(model_file, "digits", version="1.0.0")


def test_other_bytes_on_the_server_than_in_the_file_are_noticed(
    server: Harbour, client: Client, model_file: Path
) -> None:
    server.wrong_checksum = True
    with pytest.raises(DigestMismatch) as caught:
        client.push(model_file, "digits")
    assert f"slipway cancel {RUN}" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["nothing.onnx", "."])
def test_what_is_no_file_is_a_usage_error(client: Client, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        client.push(tmp_path / name, "digits")


# Down


@pytest.fixture
def weights(server: Harbour) -> bytes:
    server.bytes_by_artifact[BEST] = WEIGHTS
    return WEIGHTS


def _ranges(server: Harbour) -> list[str | None]:
    return [headers.get("range") for _, path, headers in server.seen if path.startswith("/bucket")]


@pytest.mark.usefixtures("weights")
def test_a_pull_brings_the_bytes_under_a_name_in_the_folder(client: Client, tmp_path: Path) -> None:
    path = client.pull("digits", tmp_path)
    assert path == tmp_path / f"{BEST}.onnx", "the server said ../, and that is not ours to follow"
    assert path.read_bytes() == WEIGHTS
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.usefixtures("weights")
def test_a_folder_with_a_slash_is_made(client: Client, tmp_path: Path) -> None:
    assert client.pull("digits", f"{tmp_path}/new/models/") == tmp_path / "new" / "models" / f"{BEST}.onnx"


@pytest.mark.usefixtures("weights")
def test_a_pull_continues_where_the_connection_dropped(server: Harbour, client: Client, tmp_path: Path) -> None:
    server.cut_download_after = [300_000, 200_000]
    heard: list[Progress] = []
    assert client.pull("digits@1", tmp_path / "m.onnx", progress=heard.append).read_bytes() == WEIGHTS
    assert _ranges(server) == [None, "bytes=300000-", "bytes=500000-"]
    assert {item.phase for item in heard} == {"downloading", "checking"}


@pytest.mark.usefixtures("weights")
def test_a_pull_continues_what_an_earlier_call_left(server: Harbour, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    part_for(target, hashlib.sha256(WEIGHTS).hexdigest()).write_bytes(WEIGHTS[:1000])
    assert client.pull("digits", target).read_bytes() == WEIGHTS
    assert _ranges(server) == ["bytes=1000-"]


@pytest.mark.usefixtures("weights")
def test_a_storage_that_knows_no_ranges_is_read_from_the_start(server: Harbour, client: Client, tmp_path: Path) -> None:
    server.cut_download_after, server.ignore_range = [1000], True
    assert client.pull("digits", tmp_path / "m.onnx").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("weights")
def test_a_damaged_part_is_thrown_away_and_fetched_anew_once(server: Harbour, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    part_for(target, hashlib.sha256(WEIGHTS).hexdigest()).write_bytes(b"x" * 1000)
    assert client.pull("digits", target).read_bytes() == WEIGHTS
    assert _ranges(server) == ["bytes=1000-", None]


@pytest.mark.usefixtures("weights")
def test_bytes_that_stay_wrong_leave_nothing_and_touch_nothing(server: Harbour, client: Client, tmp_path: Path) -> None:
    server.damage_downloads = 9
    target = tmp_path / "m.onnx"
    target.write_bytes(b"what was there")
    with pytest.raises(DigestMismatch) as caught:
        client.pull("digits", target)
    assert caught.value.exit_code == 1
    assert (target.read_bytes(), _ranges(server)) == (b"what was there", [None, None])
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("weights")
def test_what_is_there_already_is_not_fetched_again(server: Harbour, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(WEIGHTS)
    client.pull("digits", target)
    assert _ranges(server) == []


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("status", [403, 404])
def test_an_address_that_expired_or_whose_file_has_moved_is_renewed(
    server: Harbour, client: Client, tmp_path: Path, status: int
) -> None:
    server.expired_links, server.expired_status = 1, status
    assert client.pull("digits", tmp_path / "m.onnx").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("weights")
def test_storage_never_sees_our_credential(server: Harbour, client: Client, tmp_path: Path) -> None:
    client.pull("digits", tmp_path)
    assert all("authorization" not in headers for _, path, headers in server.seen if path.startswith("/bucket"))


def test_an_empty_artifact_is_an_empty_file(server: Harbour, client: Client, tmp_path: Path) -> None:
    server.bytes_by_artifact["notes"] = b""
    assert client.pull("digits", tmp_path / "notes", "notes").read_bytes() == b""


def test_what_the_scan_has_not_let_through_is_refused(server: Harbour, client: Client, tmp_path: Path) -> None:
    server.bytes_by_artifact[BEST] = WEIGHTS
    with pytest.raises(Refused) as caught:
        client.pull("digits@0.9.0", tmp_path)
    assert caught.value.exit_code == 3


def test_an_artifact_that_is_not_there_is_not_found(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.pull("digits", tmp_path, "onnx-fp16")
