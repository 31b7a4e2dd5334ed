"""A small real HTTP server that speaks the contract, with knobs for everything that goes wrong on a network.

`python harbour.py [rejected|failed]` runs it by hand, to look at what the command line draws.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import served
import story
from conditions import RUN, TOKEN, Harbour


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    harbour: Harbour

    def do_GET(self) -> None:
        """Answer a GET."""
        self._route("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._route("POST")

    def do_PUT(self) -> None:
        """Answer a PUT."""
        self._route("PUT")

    def do_PATCH(self) -> None:
        """Answer a PATCH."""
        self._route("PATCH")

    def do_DELETE(self) -> None:
        """Answer a DELETE."""
        self._route("DELETE")

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Tell the time, wrongly where the test says so."""
        return super().date_time_string((timestamp or time.time()) + self.harbour.clock_ahead)

    def _route(self, method: str) -> None:
        address = urlsplit(self.path)
        path, query = address.path, {key: values[0] for key, values in parse_qs(address.query).items()}
        self.harbour.seen.append((method, path, {key.lower(): value for key, value in self.headers.items()}))
        planned = self.harbour.fail.get(f"{method} {path}")
        if planned:
            status, headers = planned.pop(0)
            if status == 0:
                self._hang_up()
            else:
                if not self.headers.get("Content-Type", "").startswith("multipart/"):
                    self.rfile.read(int(self.headers.get("Content-Length") or 0))  # the connection goes on
                self._problem(status, "planned", "A planned failure.", headers=headers)
            return
        if f"{method} {path}" in self.harbour.answers:
            self.harbour.bodies.append(self._body() or query)
            answer = self.harbour.answers[f"{method} {path}"]
            self._bytes(b"", 204, {}) if answer is None else self._json(answer)
            return
        for pattern, verb, handler, open_to_all in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb == method:
                if not open_to_all and self.headers.get("Authorization") not in {f"Bearer {TOKEN}", "Bearer jwt"}:
                    self._problem(401, "not_authenticated", "Sign in first.")
                    return
                handler(self, query, *map(unquote, found.groups()))
                return
        self._problem(404, "not_found", f"There is no {path}.")

    def _json(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._bytes(json.dumps(body).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _bytes(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _problem(self, status: int, code: str, detail: str, **more: Any) -> None:
        headers = {"Content-Type": "application/problem+json"} | (more.pop("headers", None) or {})
        body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail} | more
        self._bytes(json.dumps(body | {"trace_id": "trace-1"}).encode(), status, headers)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> Any:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(raw) if raw else {}

    # What the contract names

    def _login(self, _: dict[str, str]) -> None:
        if self._body() != {"username": "ada", "password": "correct horse"}:
            self._problem(401, "bad_credentials", "User name or password is wrong.")
        else:
            self._json({"access_token": "jwt", "token_type": "bearer", "expires_in": 900})

    def _me(self, _: dict[str, str]) -> None:
        via = "jwt" if self.headers["Authorization"] == "Bearer jwt" else "key"
        self._json(
            {
                "id": "u1",
                "username": "ada",
                "permissions": ["models:read"],
                "via": via,
                "new_field": 1,
                "serving_url": self.harbour.url,
            }
        )

    def _create_key(self, _: dict[str, str]) -> None:
        body = self._body()
        number = len(self.harbour.keys) + 1
        key = {"id": f"k{number}", "prefix": f"slw_{number}", "scopes": [], "created_at": story.now()} | body
        self.harbour.keys[key["id"]] = key
        self._json(key | {"key": TOKEN}, 201)

    def _list_keys(self, _: dict[str, str]) -> None:
        self._json({"items": list(self.harbour.keys.values())})

    def _revoke_key(self, _: dict[str, str], key_id: str) -> None:
        if self.harbour.keys.pop(key_id, None) is None:
            self._problem(404, "not_found", "No such key.")
        else:
            self.send_response(204)
            self.end_headers()

    def _upload(self, _: dict[str, str]) -> None:
        if self.harbour.refuse_upload:
            self.close_connection = True
            problem = dict(self.harbour.refuse_upload)
            self._problem(problem.pop("status"), problem.pop("code"), problem.pop("detail"), **problem)
            return
        fields, files = multipart(self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"])))
        name, content = files["model_file"]
        self.harbour.upload = {"fields": fields, "files": files}
        self.harbour.bytes_by_artifact.setdefault("source", content)
        digest = hashlib.sha256(b"other" if self.harbour.wrong_checksum else content).hexdigest()
        data = {
            "model_id": "m1",
            "name": fields["name"],
            "version": fields.get("version", "1.0.0"),
            "ordinal": 1,
            "format": "onnx",
            "file_size": len(content),
            "checksum": f"sha256:{digest}",
            "validation_warnings": ["No classes were given."],
        }
        run = self.harbour.launch(data)
        links = {"self": f"/api/v1/runs/{RUN}", "events": f"/api/v1/runs/{RUN}/events"}
        answer = {"success": True, "message": f"{name} is queued.", "data": data}
        short = {"id": RUN, "status": run["status"] if self.harbour.pace else "queued", "links": links}
        self._json(answer | {"run": short}, 202, {"Location": links["self"], "Retry-After": "1"})

    def _runs(self, query: dict[str, str]) -> None:
        """Two pages, so that a client which forgets the cursor is caught."""
        found = [run for run in self.harbour.runs.values() if query.get("status", run["status"]) == run["status"]]
        found = [run for run in found if query.get("model", run["model"]) == run["model"]]
        half = (len(found) + 1) // 2
        if "cursor" in query:
            self._json({"items": found[half:], "next": None})
        else:
            self._json({"items": found[:half], "next": "c2" if found[half:] else None})

    def _run(self, _: dict[str, str], run_id: str) -> None:
        with self.harbour.lock:
            run = copy.deepcopy(self.harbour.runs.get(run_id))
        if run is None:
            self._problem(404, "not_found", "There is no such run.", hint="Look: slipway runs")
        else:
            self._json(run, headers={"ETag": f'W/"{len(self.harbour.events[run_id])}"'})

    def _events(self, _: dict[str, str], run_id: str) -> None:
        last = int(self.headers.get("Last-Event-ID", -1))
        budget = self.harbour.hang_up_after_events.pop(0) if self.harbour.hang_up_after_events else None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        position = last if self.harbour.repeat_event and last >= 0 else last + 1
        while True:
            with self.harbour.lock:
                ready = [] if self.harbour.silent else self.harbour.events[run_id][position:]
            for event in ready:
                if budget == 0:
                    self.wfile.write(f'id: {event["seq"]}\nevent: {event["kind"]}\ndata: {{"ha'.encode())
                    return
                data = json.dumps(event)
                self.wfile.write(f"id: {event['seq']}\nevent: {event['kind']}\ndata: {data}\n\n".encode())
                position += 1
                budget = None if budget is None else budget - 1
                if event.get("terminal") and self.harbour.stop_at_every_end:
                    return
            over = self.harbour.runs[run_id]["status"] in {"succeeded", "rejected", "failed", "cancelled"}
            if over and position >= len(self.harbour.events[run_id]):
                return
            self.wfile.write(b": keep-alive\n\n")
            time.sleep(0.01)

    def _cancel(self, _: dict[str, str], run_id: str) -> None:
        run = self.harbour.runs[run_id]
        if run["status"] in {"succeeded", "rejected"}:
            self._problem(409, "illegal_transition", f"A {run['status']} run cannot be cancelled.")
        else:
            run["status"] = "cancelled"
            self._json(run, 202)

    def _retry(self, _: dict[str, str], run_id: str) -> None:
        self.harbour.runs[run_id] |= {"status": "queued", "asked": self._body()}
        self._json(self.harbour.runs[run_id], 202)

    def _begin(self, _: dict[str, str], __: str, version: str, what: str) -> None:
        """Set a variant or rebuild run going that is over at once."""
        purpose = {"variants": "variant", "rebuild": "rebuild"}[what]
        asked = self._body()
        artifacts = [{"name": "onnx-fp32", "recorded": "aa", "rebuilt": self.harbour.rebuilt, "same": False}]
        artifacts[0]["same"] = self.harbour.rebuilt == "aa"
        report = {"same": self.harbour.rebuilt == "aa", "artifacts": artifacts, "toolchain": {}}
        self.harbour.runs[RUN] |= {"purpose": purpose, "asked": asked, "version": version}
        self.harbour.runs[RUN]["steps"] += [{"stage": "compare", "status": "passed", "report": report}]
        self._json(self.harbour.runs[RUN], 202)

    def _pin(self, _: dict[str, str], __: str, ___: str, device: str) -> None:
        self.harbour.pins[device] = self._body()["variant"]
        self._json(story.version("digits") | {"pinned": self.harbour.pins, "best_variant": self.harbour.pins["cpu"]})

    def _unpin(self, _: dict[str, str], __: str, ___: str, device: str) -> None:
        del self.harbour.pins[device]
        self._json(story.version("digits") | {"pinned": self.harbour.pins, "best_variant": "onnx-int8"})

    def _log(self, query: dict[str, str], run_id: str, stage: str) -> None:
        """One line on a page, and a link to the next one even behind the last."""
        attempt, after = query.get("attempt", "all"), int(query.get("after", 0))
        lines = [f"2026-01-02T03:04:05Z {stage} of {run_id[:4]} attempt {attempt}", "2026-01-02T03:04:06Z \x1b[31mred"]
        body = "".join(f"{line}\n" for line in lines[after : after + 1])
        path = f"{API}/runs/{run_id}/steps/{stage}/log?attempt={attempt}&after={after + 1}"
        self._bytes(body.encode(), 200, {"Content-Type": "text/plain; charset=utf-8", "Link": f'<{path}>; rel="next"'})

    def _models(self, _: dict[str, str]) -> None:
        self._json({"items": [story.model()], "next": None, "total": 1})

    def _model(self, _: dict[str, str], name: str) -> None:
        if name == "digits":
            self._json(story.model())
        else:
            self._problem(404, "not_found", f"There is no model {name}.")

    def _versions(self, _: dict[str, str], name: str) -> None:
        self._json({"items": [story.version(name)]})

    def _version(self, _: dict[str, str], name: str, ref: str) -> None:
        if ref in {"latest", "1", "1.0.0"}:
            self._json(story.version(name))
        else:
            self._problem(404, "not_found", f"{name} has no version {ref}.")

    def _artifacts(self, _: dict[str, str], name: str, _ref: str) -> None:
        self._json({"items": story.version(name)["artifacts"]})

    def _bundle(self, _: dict[str, str], _name: str, _ref: str) -> None:
        self._bytes(self.harbour.bundle, 200, {"Content-Type": "application/zip"})

    def _import(self, _: dict[str, str]) -> None:
        fields, files = multipart(self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"])))
        self.harbour.upload = {"fields": fields, "files": files}
        data = {"name": fields.get("name", "digits"), "version": "1.0.0"}
        run = self.harbour.launch(data)
        self._json({"data": data, "run": {"id": RUN, "status": run["status"]}}, 202)

    def _origin(self, _: dict[str, str], _name: str, _ref: str) -> None:
        artifacts = [{"name": "onnx-fp32", "theirs": "aa", "ours": "aa", "outcome": "same", "toolchain_same": True}]
        self._json({"key_id": "k", "model": "digits", "owner": "ada", "version": "1.0.0", "artifacts": artifacts})

    def _usage(self, query: dict[str, str], _name: str) -> None:
        used = {"downloads": 3, "predictions": 40, "bytes": 2048, "last_used": story.now()}
        self._json(used | {"days": int(query["days"]), "by_version": [used | {"version": "1.0.0"}], "by_day": []})

    def _my_usage(self, _: dict[str, str]) -> None:
        amounts = {"models": {"used": 2, "allowed": None}, "bytes": {"used": 2048, "allowed": 4096}}
        self._json({"plan": "free"} | amounts)

    def _components(self, version: str) -> None:
        files = [
            {
                "component": "weights",
                "url": f"{self.harbour.url}/bucket/{name}?signature=new",
                "name": name,
                "filename": f"../{name}.onnx",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
            }
            for name, content in self.harbour.bytes_by_artifact.items()
        ]
        self._json({"version": version, "expires_in": 60, "files": files, "missing": {"code": "no code came with it"}})

    def _download(self, query: dict[str, str], _name: str, ref: str) -> None:
        if "component" in query:
            self._components("1.0.0")
            return
        artifact = query.get("artifact", "onnx-fp32-optimized")
        content = self.harbour.bytes_by_artifact.get(artifact)
        if content is None:
            self._problem(404, "not_found", f"There is no artifact {artifact}.")
            return
        if ref == "0.9.0":
            self._problem(423, "quarantined", "The scan has not let it through.")
            return
        valid = "old" if self.harbour.expired_links > 0 else "new"
        self.harbour.expired_links -= 1
        self._json(
            {
                "url": f"{self.harbour.url}/bucket/{artifact}?signature={valid}",
                "expires_in": 60,
                "name": artifact,
                "filename": f"../{artifact}.onnx",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "media_type": "application/onnx",
            }
        )

    def _bucket(self, query: dict[str, str], artifact: str) -> None:
        if "Authorization" in self.headers:
            self._problem(400, "two_credentials", "Storage takes one way to sign in.")
            return
        if query["signature"] != "new":
            self._bytes(b"<Error>expired</Error>", self.harbour.expired_status, {"Content-Type": "application/xml"})
            return
        content = self.harbour.bytes_by_artifact[artifact]
        if self.harbour.damage_downloads > 0:
            self.harbour.damage_downloads -= 1
            content = b"\0" * len(content)
        start, headers = 0, {}
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not self.harbour.ignore_range:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.harbour.cut_download_after:
            self.wfile.write(content[start : start + self.harbour.cut_download_after.pop(0)])
            self._hang_up()
            return
        self.wfile.write(content[start:])

    def _readyz(self, _: dict[str, str]) -> None:
        self._json(self.harbour.ready, self.harbour.ready_status)

    def _server_version(self, _: dict[str, str]) -> None:
        self._json({"version": "0.1.0"})


API = "/api/v1"
ONE = "([^/]+)"
ROUTES: list[tuple[str, str, Any, bool]] = [
    (f"{API}/auth/login", "POST", Handler._login, True),
    (f"{API}/me", "GET", Handler._me, False),
    (f"{API}/keys", "POST", Handler._create_key, False),
    (f"{API}/keys", "GET", Handler._list_keys, False),
    (f"{API}/keys/{ONE}", "DELETE", Handler._revoke_key, False),
    (f"{API}/models/upload", "POST", Handler._upload, False),
    (f"{API}/runs", "GET", Handler._runs, False),
    (f"{API}/runs/{ONE}", "GET", Handler._run, False),
    (f"{API}/runs/{ONE}/events", "GET", Handler._events, False),
    (f"{API}/runs/{ONE}/cancel", "POST", Handler._cancel, False),
    (f"{API}/runs/{ONE}/retry", "POST", Handler._retry, False),
    (f"{API}/runs/{ONE}/steps/{ONE}/log", "GET", Handler._log, False),
    (f"{API}/models", "GET", Handler._models, False),
    (f"{API}/models/{ONE}", "GET", Handler._model, False),
    (f"{API}/models/{ONE}/versions", "GET", Handler._versions, False),
    (f"{API}/models/{ONE}/versions/{ONE}", "GET", Handler._version, False),
    (f"{API}/models/{ONE}/versions/{ONE}/artifacts", "GET", Handler._artifacts, False),
    (f"{API}/models/{ONE}/versions/{ONE}/download", "GET", Handler._download, False),
    (f"{API}/models/{ONE}/versions/{ONE}/bundle", "GET", Handler._bundle, False),
    (f"{API}/models/{ONE}/versions/{ONE}/import", "GET", Handler._origin, False),
    (f"{API}/models/{ONE}/versions/{ONE}/exports/triton", "GET", Handler._bundle, False),
    (f"{API}/bundles", "POST", Handler._import, False),
    (f"{API}/models/{ONE}/usage", "GET", Handler._usage, False),
    (f"{API}/me/usage", "GET", Handler._my_usage, False),
    (f"{API}/models/{ONE}/versions/{ONE}/(variants|rebuild)", "POST", Handler._begin, False),
    (f"{API}/models/{ONE}/versions/{ONE}/pins/{ONE}", "PUT", Handler._pin, False),
    (f"{API}/models/{ONE}/versions/{ONE}/pins/{ONE}", "DELETE", Handler._unpin, False),
    (f"/bucket/{ONE}", "GET", Handler._bucket, True),
    ("/readyz", "GET", Handler._readyz, True),
    ("/version", "GET", Handler._server_version, True),
    *served.ROUTES,
]


def multipart(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, tuple[str, bytes]]]:
    """Take a form apart, independently of the code that made it."""
    boundary = b"--" + content_type.partition("boundary=")[2].encode()
    first, *parts, last = body.split(boundary)
    if first or last != b"--\r\n":
        raise ValueError(body[-100:])
    fields: dict[str, str] = {}
    files: dict[str, tuple[str, bytes]] = {}
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = BytesHeaderParser().parsebytes(head)
        name = disposition.get_param("name", header="content-disposition")
        filename = disposition.get_filename()
        if filename is None:
            fields[str(name)] = content.removesuffix(b"\r\n").decode()
        else:
            files[str(name)] = (filename, content.removesuffix(b"\r\n"))
    return fields, files


class Server(ThreadingHTTPServer):
    """Quiet about clients that hang up, which is what half of the tests are about."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show only what is not a broken connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def harbour(port: int = 0) -> Iterator[Harbour]:
    """Run a server of its own until the block is left."""
    state = Harbour()
    server = Server(("127.0.0.1", port), type("Bound", (Handler,), {"harbour": state}))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with harbour(8765) as by_hand:
        ending = sys.argv[1] if len(sys.argv) > 1 else "succeeded"
        by_hand.moves = getattr(story, ending)()
        by_hand.pace = 0.7
        by_hand.bytes_by_artifact["onnx-fp32-optimized"] = b"model" * 1_000_000
        sys.stdout.write(f"{by_hand.url} {TOKEN} {datetime.now(UTC)}\n")
        sys.stdout.flush()
        threading.Event().wait()
