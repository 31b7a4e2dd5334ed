"""The whole of Slipway, started as `make up` starts it, with real models to push."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from slipway import Client

if TYPE_CHECKING:
    from stack.launcher import Stack

HASTE = {
    "LEASE": "3",
    "SWEEP_INTERVAL": "0.5",
    "RING_AGAIN": "2",
    "UPLOAD_RATE_LIMIT": "1000",
    "BENCHMARK_ROUNDS": "2",
    "BENCHMARK_TIMEOUT": "90",
}


@pytest.fixture(scope="package")
def slipway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services and every process of the Procfile, on one state folder for all stories of this process."""
    from stack.launcher import Stack

    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in HASTE.items():
                patch.setenv(name, value)  # what the stack starts now or later has the environment of this moment
            stack = Stack(tmp_path_factory.mktemp("home"), quiet=True, given={"PATH": os.environ["PATH"]})
            running.enter_context(stack)
        yield stack


@pytest.fixture(scope="package")
def key(slipway: Stack) -> str:
    """The first admin's API key, as the bootstrap wrote it."""
    path = Path(slipway.environment["SLIPWAY_HOME"]) / "admin.key"
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text().strip()


@pytest.fixture
def client(slipway: Stack, key: str) -> Iterator[Client]:
    with Client(slipway.environment["SLIPWAY_URL"], key) as client:
        yield client


@pytest.fixture
def command(slipway: Stack, key: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The `slipway` command against the running stack."""

    def command(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "slipway", *map(str, words)],
            env={**os.environ, **slipway.environment, "SLIPWAY_TOKEN": key, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return command
