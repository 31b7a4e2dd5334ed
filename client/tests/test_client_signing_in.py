"""Who you are, and what the doctor sees."""

from __future__ import annotations

import json
import re
import stat

import pytest
from commands import slipway
from conditions import TOKEN, Harbour
from slipway import config

pytestmark = pytest.mark.usefixtures("signed_in")


# Who you are


def test_login_saves_a_key_that_lasts_and_not_the_short_token(server: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIPWAY_TOKEN")
    done = slipway("login", "-u", "ada", "--password-stdin", said="correct horse\n")
    assert done.exit_code == 0, done.stderr
    assert TOKEN not in done.output
    saved = config.saved(config.config_path())
    assert saved == {"url": server.url, "token": TOKEN, "key_id": "k1"}
    assert stat.S_IMODE(config.config_path().stat().st_mode) == 0o600
    assert slipway("runs").exit_code == 0


def test_signing_in_again_retires_the_key_before(server: Harbour) -> None:
    for _ in range(2):
        slipway("login", "-u", "ada", "--password-stdin", said="correct horse\n")
    assert list(server.keys) == ["k2"]


def test_signing_out_revokes_the_key_that_signing_in_made_and_forgets_it(server: Harbour) -> None:
    assert slipway("logout").exit_code == 2  # not one of ours
    slipway("login", "-u", "ada", "--password-stdin", said="correct horse\n")
    done = slipway("logout")
    assert done.exit_code == 0, done.stderr
    assert server.keys == {}
    assert not config.config_path().exists()


def test_a_wrong_password_saves_nothing() -> None:
    done = slipway("login", "-u", "ada", "--password-stdin", said="wrong\n")
    assert done.exit_code == 4
    assert not config.config_path().exists()


def test_a_key_is_taken_from_stdin_once_the_server_knows_it() -> None:
    assert slipway("login", "--token-stdin", said="slw_unknown\n").exit_code == 4
    assert not config.config_path().exists()
    assert slipway("login", "--token-stdin", said=f"{TOKEN}\n").exit_code == 0
    assert config.saved(config.config_path())["token"] == TOKEN


def test_without_a_credential_the_way_to_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIPWAY_TOKEN")
    done = slipway("runs")
    assert done.exit_code == 4
    assert "slipway login" in done.stderr


def test_a_key_is_shown_once_and_revoked_by_its_name(server: Harbour) -> None:
    assert slipway("keys", "create", "ci", "--scope", "models:read", "-q").stdout == f"{TOKEN}\n"
    listed = slipway("keys", "list").stdout
    assert "ci" in listed
    assert TOKEN not in listed
    assert slipway("keys", "revoke", "nothing").exit_code == 5
    assert slipway("keys", "revoke", "ci").exit_code == 0
    assert server.keys == {}


# The doctor


def test_the_doctor_finds_nothing_where_all_is_well() -> None:
    done = slipway("doctor", "--json")
    states = {check["name"].strip(): check["state"] for check in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 0
    assert set(states.values()) == {"ok"}
    assert {"server", "reachable", "ready", "postgres", "clamd", "clock", "server version", "credential"} <= set(states)


def test_the_doctor_names_the_part_that_is_down(server: Harbour) -> None:
    server.ready_status = 503
    server.ready = {
        "status": "unready",
        "components": {"postgres": {"status": "down", "detail": "refused"}, "clamd": "ok"},
    }
    done = slipway("doctor")
    assert done.exit_code == 8
    assert re.search(r"✗ +postgres +refused", done.stdout)


def test_the_doctor_sees_clocks_that_differ(server: Harbour) -> None:
    server.clock_ahead = 300
    done = slipway("doctor")
    assert done.exit_code == 1
    assert re.search(r"clock +the server's clock is \+(299|300|301) s from ours", done.stdout)


def test_the_doctor_sees_a_file_that_others_can_read(server: Harbour) -> None:
    config.save(config.config_path(), {"url": server.url, "token": TOKEN})
    config.config_path().chmod(0o644)
    done = slipway("doctor")
    assert done.exit_code == 0
    assert "chmod 600" in done.stdout


def test_the_doctor_tells_a_dead_server_from_a_bad_key(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    monkeypatch.setenv("SLIPWAY_TOKEN", "slw_wrong")
    assert slipway("doctor").exit_code == 4
    monkeypatch.setenv("SLIPWAY_URL", f"http://127.0.0.1:{unused_port}")
    assert slipway("doctor").exit_code == 8
