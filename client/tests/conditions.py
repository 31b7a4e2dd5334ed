"""What the test server knows, and what is to go wrong with it."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import story
from slipway import Retry

FAST = Retry(attempts=4, first=0.01, most=0.05, longest_pause=1.0, patience=2.0)
TOKEN = "slw_test"
RUN = "0198c0de-0000-7000-8000-000000000001"


@dataclass
class Harbour:
    """What the server knows, and how it is to behave; tests read and write it while the server runs."""

    url: str = ""
    moves: list[dict[str, Any]] = field(default_factory=story.succeeded)
    pace: float = 0.0
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    upload: dict[str, Any] = field(default_factory=dict)
    bytes_by_artifact: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    bundle: bytes = b""
    """What an export answers."""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    fail: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """`"GET /path"` → answers to give first: a status and headers; status 0 hangs up."""
    answers: dict[str, Any] = field(default_factory=dict)
    """`"GET /path"` → the JSON to answer with, where that is all there is to it; None: 204."""
    bodies: list[Any] = field(default_factory=list)
    """What was sent to those, in order."""
    refuse_upload: dict[str, Any] | None = None
    """A problem to answer an upload with, before its body is read."""
    rebuilt: str = "aa"
    """The digest that a rebuild comes to; recorded is `aa`."""
    pins: dict[str, str] = field(default_factory=dict)
    wrong_checksum: bool = False
    hang_up_after_events: list[int] = field(default_factory=list)
    """How many events each connection carries before it is cut; connections after the list are not."""
    repeat_event: bool = False
    """Send the last event seen again after a reconnect, as a careless server would."""
    stop_at_every_end: bool = False
    """Close the stream at each end in the history, also at one that a retry has undone."""
    silent: bool = False
    """Send keep-alives and no event."""
    cut_download_after: list[int] = field(default_factory=list)
    damage_downloads: int = 0
    ignore_range: bool = False
    expired_links: int = 0
    expired_status: int = 403
    ready: dict[str, Any] = field(
        default_factory=lambda: {
            "status": "ready",
            "components": {"postgres": {"status": "ok"}, "clamd": {"status": "ok"}},
        }
    )
    ready_status: int = 200
    clock_ahead: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def launch(self, data: dict[str, Any]) -> dict[str, Any]:
        """Start the run: a thread makes its moves, at its pace."""
        run = story.new_run(RUN, data["name"], data["version"])
        self.runs[RUN], self.events[RUN] = run, []
        thread = threading.Thread(target=self._play, args=(RUN,), daemon=True)
        if self.pace:
            thread.start()
        else:
            self._play(RUN)
        return run

    def _play(self, run_id: str) -> None:
        for move in copy.deepcopy(self.moves):
            time.sleep(move.pop("pause", 1.0) * self.pace)
            with self.lock:
                story.apply(self.runs[run_id], self.events[run_id], move)

    def paths(self, method: str = "GET") -> list[str]:
        """Return the paths asked for, in order."""
        return [path for verb, path, _ in self.seen if verb == method]
