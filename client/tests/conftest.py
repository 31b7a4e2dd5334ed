"""Fixtures: a server of its own for every test, and a home without anybody's configuration."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `harbour` and `story`, whatever pytest's import mode

from conditions import FAST, TOKEN, Harbour
from harbour import harbour
from slipway import Client


@pytest.fixture(autouse=True)
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the developer's own configuration out, and the tests' out of it."""
    for name in ("SLIPWAY_URL", "SLIPWAY_TOKEN", "SLIPWAY_SERVING_URL", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.delenv("SLIPWAY_CONFIG", raising=False)
    return home


@pytest.fixture
def server() -> Iterator[Harbour]:
    """Run a server."""
    with harbour() as state:
        yield state


@pytest.fixture
def client(server: Harbour) -> Iterator[Client]:
    """Connect to it, impatiently."""
    with Client(server.url, TOKEN, timeout=5.0, retry=FAST) as connected:
        yield connected


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """Make a file that takes several chunks, with every byte value in it."""
    path = tmp_path / 'dig "its".onnx'
    path.write_bytes(bytes(range(256)) * 2000 + b"\r\n--slipway")
    return path


@pytest.fixture
def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def signed_in(server: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_URL", server.url)
    monkeypatch.setenv("SLIPWAY_TOKEN", TOKEN)
    monkeypatch.setenv("NO_COLOR", "1")
