"""What a new installation gets: buckets, one admin, one key that is told once."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from api.bootstrap import first_admin
from shared.db import Begin
from shared.settings import Settings
from tests.integration.api_fixtures import app, parts, served, signed_in, url

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nobody(begin: Begin) -> None:
    with begin() as session:
        session.execute(text("TRUNCATE users CASCADE"))


def bootstrap(environment: dict[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.bootstrap"],
        cwd=ROOT,
        env={**environment, "SLIPWAY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_the_first_key_is_told_once_and_works(
    environment: dict[str, str], settings: Settings, tmp_path: Path, url: str
) -> None:
    home = tmp_path / "new" / "home"
    made = bootstrap(environment, home)
    path = home / "admin.key"
    key = path.read_text().strip()
    assert made.stdout.splitlines()[-1] == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in home.iterdir()] == ["admin.key"]
    with signed_in(url, key) as client:
        assert client.get("/api/v1/me").json()["permissions"] == ["admin"]

    again = bootstrap(environment, home)
    assert (again.stdout, again.stderr) == ("", "")
    assert path.read_text().strip() == key
    assert (
        httpx2.get(url + "/readyz", timeout=20).json()["components"]["storage"]["status"] == "ok"
    )  # the buckets are there

    path.unlink()
    third = bootstrap(environment, home)
    assert third.stdout == ""
    assert "none was made" in third.stderr
    assert not path.exists()


def test_two_at_once_make_one_admin(begin: Begin, tmp_path: Path) -> None:
    keys: list[str | None] = []
    both = [
        threading.Thread(target=lambda n=number: keys.append(first_admin(begin, tmp_path / f"{n}" / "admin.key")))
        for number in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len([key for key in keys if key]) == 1
    with begin() as session:
        assert session.execute(text("SELECT count(*) FROM users")).scalar_one() == 1


def test_a_key_file_of_another_database_is_told_apart(
    begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "admin.key"
    assert first_admin(begin, path)
    path.write_text("slw_of_another_database\n")
    assert first_admin(begin, path) is None
    assert "not one of this database" in capsys.readouterr().err
    assert path.read_text() == "slw_of_another_database\n"


def test_a_home_that_cannot_be_written_leaves_no_admin_behind(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        first_admin(begin, tmp_path / "file" / "admin.key")
    with begin() as session:
        assert session.execute(text("SELECT count(*) FROM users")).scalar_one() == 0
