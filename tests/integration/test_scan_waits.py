"""A run whose antivirus is away: it waits at its scan, nothing passes, and it goes on when the daemon comes back."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from pipeline import store
from pipeline.run import Run, Status
from pipeline.stages.scan import STAGE
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Storage
from tests.integration.test_workers import Crew, wait_for


@pytest.fixture(scope="module")
def address() -> tuple[str, int]:
    """Where the daemon will listen, and where nobody does at first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
        return host, port


@pytest.fixture
def crew(environment: dict[str, str], storage: Storage, address: tuple[str, int], tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(environment, tmp_path)
    crew.environment |= {"STAGE_PACKAGES": '["pipeline.stages"]', "CLAMD_URL": f"tcp://{address[0]}:{address[1]}"}
    crew.start("relay", "one")
    yield crew
    for name in list(crew.running):
        crew.kill(name)


@contextmanager
def daemon(address: tuple[str, int], *, silent: threading.Event) -> Iterator[None]:
    """A clamd that finds nothing; while `silent` is set it takes streams, and hangs up without a word."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                asked = peer.recv(1 << 16)
                while b"INSTREAM" in asked[:20] and not asked.endswith(b"\0\0\0\0"):
                    asked += peer.recv(1 << 16)
                if not silent.is_set():
                    peer.sendall(b"ClamAV 1.4.3\0" if b"VERSION" in asked[:20] else b"stream: OK\0")

    with socket.create_server(address) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.timeout(180)
def test_nothing_passes_while_the_antivirus_is_away_or_silent(
    crew: Crew,
    begin: Begin,
    storage: Storage,
    settings: Settings,
    submit: Callable[..., UUID],
    address: tuple[str, int],
) -> None:
    key, content = f"{uuid4()}/model/model.onnx", b"no model, and no virus"
    storage.bucket(settings.bucket("staging")).put(key, content)
    plan = [replace(STAGE.step(), max_attempts=20)]
    run_id = submit(plan=plan, key=key, sha256=hashlib.sha256(content).hexdigest())

    def load() -> Run:
        with begin() as session:
            return store.load(session, run_id)

    def tried(times: int) -> bool:
        run = load()
        assert not run.status.terminal, "nothing ends without an antivirus"
        return run.attempt > times

    wait_for(lambda: tried(1))
    silent = threading.Event()
    silent.set()
    with daemon(address, silent=silent):
        so_far = load().attempt
        wait_for(lambda: tried(so_far))
        silent.clear()
        until = time.monotonic() + 60
        while not load().status.terminal:
            assert time.monotonic() < until
            time.sleep(0.1)
    run = load()
    assert (run.status, run.code) == (Status.REJECTED, "unknown_content"), "our own readers had the last word"
