"""The SDK against a real HTTP server that misbehaves as networks do."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
import story
from conditions import FAST, RUN, TOKEN, Harbour
from slipway import (
    Client,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RateLimited,
    RunFailed,
    RunRejected,
    TimedOut,
    Unreachable,
    config,
)
from slipway.transport import pause_asked


def _launch(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})


def test_a_passing_failure_of_a_read_is_not_seen(server: Harbour, client: Client) -> None:
    server.fail["GET /api/v1/me"] = [(503, {}), (0, {}), (502, {})]
    assert client.me().username == "ada"
    assert server.paths() == ["/api/v1/me"] * 4


def test_a_server_that_stays_away_is_given_up_after_the_attempts(server: Harbour, client: Client) -> None:
    server.fail["GET /api/v1/me"] = [(503, {})] * 9
    with pytest.raises(Unreachable) as caught:
        client.me()
    assert (caught.value.exit_code, caught.value.code, len(server.seen)) == (8, "planned", FAST.attempts)


def test_our_own_bug_on_the_server_is_not_hammered(server: Harbour, client: Client) -> None:
    server.fail["GET /api/v1/me"] = [(500, {})] * 9
    with pytest.raises(Unreachable):
        client.me()
    assert len(server.seen) == 1


def test_what_changes_something_is_sent_twice_under_one_key(server: Harbour, client: Client) -> None:
    _launch(server)
    server.fail[f"POST /api/v1/runs/{RUN}/retry"] = [(503, {})]
    client.retry(RUN)
    keys = [headers.get("idempotency-key") for method, _, headers in server.seen if method == "POST"]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert keys[0]


def test_a_short_pause_that_the_server_asks_for_is_kept(server: Harbour, client: Client) -> None:
    server.fail["GET /api/v1/me"] = [(429, {"Retry-After": "0.2"})]
    begun = time.monotonic()
    client.me()
    assert time.monotonic() - begun >= 0.2


def test_a_long_pause_is_handed_to_the_caller(server: Harbour, client: Client) -> None:
    server.fail["GET /api/v1/me"] = [(429, {"Retry-After": "3600"})]
    with pytest.raises(RateLimited) as caught:
        client.me()
    assert (caught.value.retry_after, caught.value.exit_code, len(server.seen)) == (3600, 7, 1)


def test_retry_after_may_be_a_date() -> None:
    assert pause_asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert pause_asked("soon") is None


def test_nobody_listening_is_the_networks_fault(unused_port: int) -> None:
    with Client(f"http://127.0.0.1:{unused_port}", "x", retry=FAST) as client, pytest.raises(Unreachable) as caught:
        client.me()
    assert caught.value.code == "no_connection"


def test_another_service_on_the_address_is_named_as_that(server: Harbour) -> None:
    with Client(f"{server.url}/bucket", TOKEN, retry=FAST) as client, pytest.raises(NotFound):
        client.me()


def test_errors_carry_what_the_server_said(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        client.run("nothing")
    error = caught.value
    assert (error.code, error.hint, error.trace_id, error.status) == ("not_found", "Look: slipway runs", "trace-1", 404)


def test_a_wrong_credential_is_not_allowed(server: Harbour) -> None:
    with Client(server.url, "wrong", retry=FAST) as client, pytest.raises(NotAllowed) as caught:
        client.me()
    assert caught.value.hint is not None
    assert "slipway login" in caught.value.hint


def test_login_uses_its_token_from_then_on(server: Harbour) -> None:
    with Client(server.url, retry=FAST) as client:
        assert client.login("ada", "correct horse") == 900
        assert client.me().via == "jwt"


def test_an_old_credential_takes_no_part_in_signing_in(server: Harbour) -> None:
    with Client(server.url, "expired", retry=FAST) as client:
        client.login("ada", "correct horse")
    assert "authorization" not in server.seen[0][2]


def test_lists_follow_their_cursor(server: Harbour, client: Client) -> None:
    for number in range(3):
        server.runs[f"r{number}"] = story.new_run(f"r{number}", "digits", f"1.{number}.0")
    assert [run.id for run in client.runs()] == ["r0", "r1", "r2"]
    assert len(client.runs(limit=2)) == 2


def test_unknown_fields_are_ignored(client: Client) -> None:
    model = client.model("digits")
    assert (model.latest, model.tags[0], client.version("digits@1").version) == ("1.0.0", "demo", "1.0.0")


def test_keys_are_made_listed_and_revoked(client: Client) -> None:
    key = client.create_key("ci", scopes=["models:read"], expires_in_days=7)
    assert key.key == TOKEN
    assert TOKEN not in repr(key)
    listed = client.keys()
    assert [(found.id, found.key) for found in listed] == [(key.id, None)]
    client.revoke_key(key.id)
    assert client.keys() == []


# Events


def test_every_event_comes_once_though_the_connection_drops_in_the_middle(server: Harbour, client: Client) -> None:
    _launch(server)
    server.hang_up_after_events = [3, 0, 1, 5]
    server.repeat_event = True
    seen = [event.seq for event in client.events(RUN)]
    assert seen == list(range(len(server.events[RUN])))
    asked = [headers.get("last-event-id") for _, path, headers in server.seen if path.endswith("/events")]
    assert asked[:5] == [None, "2", "2", "2", "6"]


def test_the_stream_survives_a_server_that_restarts(server: Harbour, client: Client) -> None:
    _launch(server)
    server.hang_up_after_events = [4]
    stream = client.events(RUN)
    first = next(stream)
    server.fail[f"GET /api/v1/runs/{RUN}/events"] = [(0, {}), (502, {}), (503, {})]
    assert [first.seq, *(event.seq for event in stream)] == list(range(len(server.events[RUN])))


def test_a_stream_that_was_over_before_ends_at_once(server: Harbour, client: Client) -> None:
    _launch(server)
    last = server.events[RUN][-1]["seq"]
    server.hang_up_after_events = [0, 0]
    assert list(client.events(RUN, last_event_id=last, timeout=5)) == []


@pytest.mark.parametrize("stop_at_every_end", [True, False])
def test_a_retried_runs_old_end_is_not_its_end(server: Harbour, client: Client, stop_at_every_end: bool) -> None:
    server.moves = story.failed()
    _launch(server)
    for move in story.failed() + story.succeeded():
        story.apply(server.runs[RUN], server.events[RUN], {"run": {"status": "running"}} | move)
    server.stop_at_every_end = stop_at_every_end
    seen = list(client.events(RUN))
    assert [event.seq for event in seen] == list(range(len(server.events[RUN])))
    assert [event.status for event in seen if event.terminal] == ["failed", "failed", "succeeded"]


def test_events_of_an_unknown_run_are_not_waited_for(client: Client) -> None:
    with pytest.raises(NotFound):
        list(client.events("nothing"))


def test_a_server_that_never_comes_back_is_given_up(server: Harbour, client: Client) -> None:
    _launch(server)
    server.fail[f"GET /api/v1/runs/{RUN}/events"] = [(503, {})] * 1000
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        list(client.events(RUN))
    assert FAST.patience <= time.monotonic() - begun < FAST.patience + 3


def test_keep_alives_do_not_hold_off_the_timeout(server: Harbour, client: Client) -> None:
    server.pace, server.silent = 1.0, True
    _launch(server)
    begun = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        client.wait(RUN, timeout=0.4)
    assert 0.35 < time.monotonic() - begun < 1.5
    assert caught.value.exit_code == 124
    assert f"slipway watch {RUN}" in (caught.value.hint or "")


def test_waiting_returns_the_finished_run_and_check_judges_it(server: Harbour, client: Client) -> None:
    server.moves, server.pace = story.rejected(), 0.05
    _launch(server)
    run = client.wait(RUN, timeout=10)
    assert run.status == "rejected"
    with pytest.raises(RunRejected) as caught:
        run.check()
    assert (caught.value.exit_code, caught.value.code) == (3, "malicious_pickle")


def test_a_failed_run_is_the_servers_fault(server: Harbour, client: Client) -> None:
    server.moves = story.failed()
    _launch(server)
    with pytest.raises(RunFailed) as caught:
        client.wait(RUN).check()
    assert caught.value.exit_code == 1
    assert "not the model" in caught.value.fault


def test_cancelling_what_is_over_is_a_conflict(server: Harbour, client: Client) -> None:
    _launch(server)
    with pytest.raises(Conflict):
        client.cancel(RUN)


def test_a_retry_may_name_its_stage(server: Harbour, client: Client) -> None:
    _launch(server)
    client.retry(RUN, stage="convert")
    assert server.runs[RUN]["asked"] == {"from": "convert"}


def test_a_log_is_its_lines(server: Harbour, client: Client) -> None:
    _launch(server)
    first, second = client.log(RUN, "scan", attempt=2)
    assert first.endswith("scan of 0198 attempt 2")
    assert second.endswith("red"), "the second page was read too"


# Configuration


def test_the_file_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.toml"
    config.save(path, {"url": "http://a", "token": 'odd "token" \\ ü'})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.saved(path) == {"url": "http://a", "token": 'odd "token" \\ ü'}
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]


def test_a_saved_token_goes_to_its_own_server_only() -> None:
    config.save(config.config_path(), {"url": "http://mine:8000", "token": "secret"})
    assert config.settings().token == "secret"
    assert config.settings("http://mine:8000/").token == "secret"
    assert config.settings("http://other:8000").token is None


def test_arguments_come_before_the_environment_and_that_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    config.save(config.config_path(), {"url": "http://file", "token": "file"})
    monkeypatch.setenv("SLIPWAY_URL", "http://env")
    monkeypatch.setenv("SLIPWAY_TOKEN", "env")
    found = config.settings()
    assert (found.url, found.token, found.token_from) == ("http://env", "env", "SLIPWAY_TOKEN")
    assert config.settings("http://arg", "arg").token == "arg"


def test_a_damaged_file_is_an_error_and_not_nothing() -> None:
    path = config.config_path()
    path.parent.mkdir(parents=True)
    path.write_text("token = ", encoding="utf-8")
    with pytest.raises(InvalidRequest):
        config.settings()


@pytest.mark.parametrize("token", ["two\nlines", "grün"])
def test_a_token_that_no_header_can_carry_is_refused_early(token: str) -> None:
    with pytest.raises(InvalidRequest):
        Client("http://127.0.0.1:1", token)
