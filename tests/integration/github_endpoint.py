"""A small real HTTP server that plays GitHub's endpoint for licences, well and badly."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENDPOINT = "/repos/ada/{}/license"
OWN_TEXT = base64.encodebytes(b"SPDX-License-Identifier: MIT\n").decode()
LICENCES: dict[str, Any] = {
    "sorter": {"license": {"spdx_id": "GPL-3.0"}},
    "own-text": {"license": {"spdx_id": "NOASSERTION"}, "encoding": "base64", "content": OWN_TEXT},
    "unrecognised": {"license": None},
    "lying": {"license": "MIT"},
}
REDIRECTS = {
    "renamed": ENDPOINT.format("sorter"),
    "round": ENDPOINT.format("round"),
    "lured": "{elsewhere}" + ENDPOINT.format("sorter"),
    "nowhere": "http://[half:99999999/",
}
STATUSES = {"limited": 403, "broken": 500}


class Endpoint(BaseHTTPRequestHandler):
    """One connection."""

    asked: list[tuple[str, str | None]]
    elsewhere: str

    def do_GET(self) -> None:
        """Answer by the repository's name, whose owner is ada."""
        type(self).asked.append((self.path, self.headers.get("Authorization")))
        owner, _, rest = self.path.removeprefix("/repos/").partition("/")
        name = rest.partition("/")[0] if owner == "ada" else ""
        if name in LICENCES:
            self._bytes(json.dumps(LICENCES[name]).encode())
        elif name in REDIRECTS:
            self._redirect(REDIRECTS[name].format(elsewhere=type(self).elsewhere))
        elif name in STATUSES:
            self._bytes(b"{}", status=STATUSES[name])
        elif name == "slow":
            self._bytes(b" " * 100, declared=10_000, trickle=True)
        elif name == "huge":
            self._bytes(b" " * (3 << 20))
        elif name == "garbled":
            self._bytes(b"<html>")
        else:
            self._bytes(b"{}", status=404)

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def _redirect(self, where: str) -> None:
        self.send_response(301)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _bytes(self, body: bytes, *, status: int = 200, declared: int | None = None, trickle: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(declared or len(body)))
        self.end_headers()
        try:
            for byte in body if trickle else ():
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
            if not trickle:
                self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # whoever asked has had enough


@contextmanager
def endpoint() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Run the server: its address, and what it is asked (path, Authorization) as it comes."""
    asked: list[tuple[str, str | None]] = []
    handler = type("Bound", (Endpoint,), {"asked": asked, "elsewhere": "http://localhost"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    handler.elsewhere = f"http://localhost:{server.server_address[1]}"
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
