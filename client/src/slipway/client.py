"""The Slipway SDK: one object that knows the HTTP contract and nothing of terminals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from slipway import config, download, events, refs, upload
from slipway._version import __version__
from slipway.aliases import Aliases
from slipway.approvals import Approvals
from slipway.bundles import Bundles
from slipway.components import Downloads
from slipway.deployments import Deployments
from slipway.endpoints import Endpoints
from slipway.errors import DigestMismatch, InvalidRequest
from slipway.exports import Exports
from slipway.gates import Gates
from slipway.grants import Grants
from slipway.licences import Licences
from slipway.lineage import Lineages
from slipway.metrics import Metrics
from slipway.models import Model, Models
from slipway.predictions import Predictions
from slipway.records import Account, Artifact, Download, Event, Health, Key, Run, bare_digest
from slipway.rollouts import Feedback, Rollouts
from slipway.scores import Scores
from slipway.signatures import Signatures
from slipway.trails import Audit, ServerLogs
from slipway.transport import PASSING, Retry, Wire, as_object, given, problem
from slipway.upload import Listener, Progress, ignore
from slipway.usage import Usages
from slipway.users import Roles, Users
from slipway.versions import Version, Versions


class Client:
    """A connection to one Slipway server.

    `url` and `token` default to `SLIPWAY_URL` and `SLIPWAY_TOKEN`, then to what `slipway login` saved; the saved
    token is used only for the server it was saved for. `models` is a resource of its own: `client.models()` lists,
    `client.models.create(…)` makes one; `client.predict(NAME, inputs)` asks a served one. `timeout` (seconds) bounds connecting and every silence of
    the server, not a whole transfer. Use it as a context manager, or call `close`. Not for several threads at once.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        retry: Retry | None = None,
    ) -> None:
        self.settings = config.settings(url, token)
        if self.settings.token and not (self.settings.token.isascii() and self.settings.token.isprintable()):
            raise InvalidRequest("bad_token", "The token has characters that no token has.", hint="slipway login")
        self._wire = Wire(
            self.settings.url,
            self.settings.token,
            timeout=timeout,
            retry=retry or Retry(),
            agent=f"slipway-client/{__version__}",
        )
        self.versions = Versions(self._wire)
        self.aliases = Aliases(self._wire)
        self.metrics = Metrics(self._wire)
        self.approvals = Approvals(self._wire)
        self.deployments = Deployments(self._wire)
        self.rollouts, self.feedback = Rollouts(self._wire), Feedback(self._wire)
        self.gates = Gates(self._wire)
        self.signatures = Signatures(self._wire)
        self.lineage = Lineages(self._wire)
        self.licences = Licences(self._wire)
        self.scores = Scores(self._wire)
        self.users, self.roles, self.grants = Users(self._wire), Roles(self._wire), Grants(self._wire)
        self.audit, self.server_logs = Audit(self._wire), ServerLogs(self._wire)
        self.bundles = Bundles(self._wire)
        self.components = Downloads(self._wire)
        self.usage = Usages(self._wire)
        self.exports, self.endpoints = Exports(self._wire), Endpoints(self._wire)
        self.predict = Predictions(self._wire, self.settings.serving)
        self.models = Models(self._wire, self.predict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.predict.close()
        self._wire.close()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._wire.url

    @property
    def token(self) -> str | None:
        """The credential in use."""
        return self._wire.token

    # Who am I

    def login(self, username: str, password: str) -> int:
        """Sign in; this client uses the token from now on. Return for how many seconds it is good. Saves nothing."""
        self._wire.token = None  # an old credential has no part in signing in
        said = self._wire.json("POST", "/api/v1/auth/login", json={"username": username, "password": password})
        self._wire.token = str(said["access_token"])
        return int(said.get("expires_in") or 0)

    def logout(self, *, everywhere: bool = False) -> None:
        """End the bearer token in use, or with `everywhere` all of yours; API keys stay."""
        self._wire.send("POST", "/api/v1/auth/logout", params={"everywhere": "true"} if everywhere else None)

    def me(self) -> Account:
        """Return who the server takes you for."""
        return Account.read(self._wire.json("GET", "/api/v1/me"))

    def keys(self) -> list[Key]:
        """Return your API keys, without their secrets."""
        return [Key.read(item) for item in self._wire.pages("/api/v1/keys", {})]

    def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        expires_in_days: int | None = None,
        calls: int | None = None,
    ) -> Key:
        """Make an API key; its secret, `key`, is never shown again. Without `scopes` it may all that you may.

        With `calls` it is good for so many requests.
        """
        body: dict[str, Any] = {"name": name}
        if scopes:
            body["scopes"] = list(scopes)
        if expires_in_days is not None:
            body["expires_in_days"] = expires_in_days
        if calls is not None:
            body["calls"] = calls
        return Key.read(self._wire.json("POST", "/api/v1/keys", json=body))

    def revoke_key(self, key_id: str) -> None:
        """Make an API key worthless."""
        self._wire.send("DELETE", f"/api/v1/keys/{quote(key_id, safe='')}")

    # Runs

    def push(
        self,
        path: str | Path,
        name: str,
        *,
        version: str | None = None,
        bump: str | None = None,
        model_type: str | None = None,
        framework: str | None = None,
        description: str | None = None,
        classes: Sequence[str] | None = None,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        output_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        metrics: Mapping[str, float] | None = None,
        release_notes: str | None = None,
        config: Mapping[str, Any] | str | Path | None = None,
        requirements: str | Path | None = None,
        calibration: str | Path | None = None,
        card: str | Path | None = None,
        tags: Sequence[str] = (),
        benchmark_dataset: str | None = None,
        training_config: Mapping[str, Any] | None = None,
        licence: str | None = None,
        parent: str | None = None,
        model_url: str | None = None,
        dataset_url: str | None = None,
        code_url: str | None = None,
        confirm_name: bool = False,
        progress: Listener = ignore,
    ) -> Run:
        """Hash a model file, upload it and return its run, queued. `raw` is the whole answer, with its `data`.

        `config` is an object, or a file of its own; `metrics` are of accuracy, precision, recall, f1 and mAP, on
        `benchmark_dataset`; `owner/name` is somebody else's model, for which one has a grant. `confirm_name` says
        that a new name is no mistake for one that is near. Raises DigestMismatch where the server received other bytes
        than the file held when it was hashed. Never sent twice: when the connection breaks, look at `runs` first.
        """
        file = Path(path)
        others = "/" in name
        fields: dict[str, Any] = {
            "name": None if others else name,
            "version": version,
            "bump": bump,
            "model_type": model_type,
            "framework": framework,
            "description": description,
            "classes": list(classes) if classes is not None else None,
            "input_shape": _plain_shape(input_shape),
            "output_shape": _plain_shape(output_shape),
            "release_notes": release_notes,
            "config": dict(config) if isinstance(config, Mapping) else None,
            "tags": list(tags) or None,
            "benchmark_dataset": benchmark_dataset,
            "training_config": dict(training_config) if training_config is not None else None,
            "licence": licence,
            **{"f1_score" if metric == "f1" else metric: value for metric, value in (metrics or {}).items()},
            "parent": parent,
            "model_url": model_url,
            "dataset_url": dataset_url,
            "code_url": code_url,
            "confirm_name": "true" if confirm_name else None,
        }
        side_files = {
            "config_file": None if isinstance(config, Mapping) else config,
            "requirements_file": requirements,
            "calibration_file": calibration,
            "card_file": card,
        }
        # Small files first: the server knows all about the model before its bytes come.
        files = {part: Path(side) for part, side in side_files.items() if side is not None} | {"model_file": file}
        body = upload.form(fields, files)
        digest = upload.digest_of(file, progress)
        path_to = f"{refs.model_path(name)}/versions" if others else "/api/v1/models/upload"
        answer = as_object(upload.send(self._wire, path_to, body, progress))
        data = answer.get("data") or {}
        run = Run.read({**answer["run"], "model": data.get("name") or name, "version": data.get("version")})
        run = replace(run, raw=answer)
        stored = bare_digest(data.get("checksum"))
        if stored and stored != digest:
            raise DigestMismatch(
                "digest_mismatch",
                f"The server received SHA-256 {stored}, the file had {digest} when it was hashed.",
                hint=f"Stop the run of the wrong bytes (slipway cancel {run.id}), then push again.",
            )
        size = body.sizes[file]
        progress(Progress(phase="queued", done=size, total=size))
        return run

    def run(self, run_id: str) -> Run:
        """Return one run with its steps, reports and artifacts."""
        return Run.read(self._wire.json("GET", _run_path(run_id)))

    def runs(self, *, status: str | None = None, model: str | None = None, limit: int | None = 20) -> list[Run]:
        """Return runs, newest first, without their steps; `limit=None` for all of them."""
        found = self._wire.pages("/api/v1/runs", {"status": status, "model": model}, limit)
        return [Run.read(item) for item in found]

    def events(self, run_id: str, last_event_id: int | None = None, *, timeout: float | None = None) -> Iterator[Event]:
        """Yield the run's events after `last_event_id`, each exactly once and in order, until the run is over.

        Dropped connections are opened again. Raises TimedOut after `timeout` seconds.
        """
        return events.follow(self._wire, run_id, last_event_id=last_event_id, timeout=timeout)

    def watch(self, run_id: str, *, timeout: float | None = None) -> Iterator[tuple[Event, Run]]:
        """Yield every event with the run as it is by then; the last pair holds the finished run."""
        deadline = None if timeout is None else time.monotonic() + timeout
        run: Run | None = None
        for event in self.events(run_id, timeout=timeout):
            if run is None or not run.finished or event.terminal:
                run = self._patient_run(run_id, deadline)
            yield event, run

    def wait(
        self,
        run: Run | str,
        timeout: float | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Run:
        """Return the run once it is over, however it ended (`check` raises for a bad end), or raise TimedOut."""
        run_id = run if isinstance(run, str) else run.id
        deadline = None if timeout is None else time.monotonic() + timeout
        for event in self.events(run_id, timeout=timeout):
            if on_event:
                on_event(event)
        return self._patient_run(run_id, deadline)

    def _patient_run(self, run_id: str, deadline: float | None) -> Run:
        """Read a run in the middle of a watch: as patient with a server that restarts as the event stream is."""
        patience = self._wire.retry.patience
        until = time.monotonic() + patience
        act = partial(self._wire.once, "GET", _run_path(run_id))
        answer = self._wire.persist(act, until=until if deadline is None else min(until, deadline))
        return Run.read(as_object(answer))

    def cancel(self, run_id: str) -> Run:
        """Stop a run; what it has made so far is kept for a retry, for a while."""
        return Run.read(_run_in(self._wire.json("POST", f"{_run_path(run_id)}/cancel")))

    def retry(self, run_id: str, *, stage: str | None = None) -> Run:
        """Take a failed or cancelled run up again, from `stage` or from where it stopped."""
        body = {"from": stage} if stage else {}
        return Run.read(_run_in(self._wire.json("POST", f"{_run_path(run_id)}/retry", json=body)))

    def log(self, run_id: str, stage: str, *, attempt: int | None = None) -> list[str]:
        """Return what a step logged, in `attempt` or in all of them: an ISO time, a space and the text on each line."""
        path: str | None = f"{_run_path(run_id)}/steps/{quote(stage, safe='')}/log"
        wanted: dict[str, Any] | None = given({"attempt": attempt})
        lines: list[str] = []
        while path:
            answer = self._wire.send("GET", path, params=wanted)
            found = answer.text.splitlines()
            lines += found
            following = answer.links.get("next", {}).get("url")
            path, wanted = (following if found else None), None  # the link has the query, and is there on the last page
        return lines

    # Models and versions

    def model(self, name: str) -> Model:
        """Return one model, by name or id."""
        return self.models.get(name)

    def version(self, ref: str) -> Version:
        """Return the version that `NAME[@REF]` means."""
        return self.versions.get(ref)

    def artifacts(self, ref: str) -> list[Artifact]:
        """Return what is stored for the version that `NAME[@REF]` means."""
        path = refs.version_path(*refs.parse(ref)) + "/artifacts"
        return [Artifact.read(item) for item in self._wire.pages(path, {})]

    def download(self, ref: str, artifact: str | None = None) -> Download:
        """Return a short-lived address: of `artifact`, else of the best variant; `source` is what was uploaded."""
        path = refs.version_path(*refs.parse(ref)) + "/download"
        return Download.read(self._wire.json("GET", path, params=given({"artifact": artifact})))

    def pull(self, ref: str, to: str | Path = ".", artifact: str | None = None, *, progress: Listener = ignore) -> Path:
        """Bring an artifact here and return its path; `to` is a file, or a folder for the server's file name.

        A folder that ends in a slash is made. A file already there is replaced, in one step, once the SHA-256 of what came is right. What a broken call
        left beside it (`*.part`) is continued.
        """
        name, wanted = refs.parse(ref)
        # Between two requests an alias may move; the bytes must be of one version.
        fixed = f"{name}@{self.version(ref).version}" if refs.moves(wanted) else ref
        first = self.download(fixed, artifact)
        target = download.target_for(first, to)
        download.fetch(self._wire, lambda: self.download(fixed, artifact), target, first, progress)
        return target

    def add_variants(self, ref: str, variants: Sequence[str]) -> Run:
        """Have more variants made of a published version, such as `onnx-int8-dynamic`: the run that does it, queued."""
        path = refs.version_path(*refs.parse(ref)) + "/variants"
        return Run.read(self._wire.json("POST", path, json={"variants": list(variants)}))

    def rebuild(self, ref: str) -> Run:
        """Have a version converted again from scratch and its digests compared: the run that does it, queued.

        What came of it is in `Run.facts("compare")`: `same`, `artifacts`, `toolchain`.
        """
        return Run.read(self._wire.json("POST", refs.version_path(*refs.parse(ref)) + "/rebuild"))

    def pin(self, ref: str, variant: str, *, device: str = "cpu") -> Version:
        """Prefer a variant of a version on a device (`cpu`, `sm90`), whatever the measurements say."""
        return Version.read(self._wire.json("PUT", _pin_path(ref, device), json={"variant": variant}))

    def unpin(self, ref: str, *, device: str = "cpu") -> Version:
        """Let the measurements choose again on a device."""
        return Version.read(self._wire.json("DELETE", _pin_path(ref, device)))

    # The server

    def health(self) -> Health:
        """Return whether the server takes work, the state of its parts and its clock, also where it says no (503)."""
        begun = time.monotonic()
        answer = self._wire.probe("/readyz")
        seconds = time.monotonic() - begun
        if not answer.is_success and answer.status_code not in PASSING:
            raise problem(answer)
        date, skew = answer.headers.get("date"), None
        if date:
            skew = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() + 0.5  # HTTP dates are cut off
        said = as_object(answer)
        return replace(Health.read(said, ready=answer.status_code == HTTPStatus.OK), seconds=seconds, skew=skew)

    def server_version(self) -> Mapping[str, Any]:
        """Return what the server says about its own version."""
        return self._wire.json("GET", "/version")


def _pin_path(ref: str, device: str) -> str:
    return f"{refs.version_path(*refs.parse(ref))}/pins/{quote(device, safe='')}"


def _run_path(run_id: str) -> str:
    return f"/api/v1/runs/{quote(run_id, safe='')}"


def _run_in(said: dict[str, Any]) -> dict[str, Any]:
    """Take the run out of an answer that may wrap it."""
    inner = said.get("run")
    return inner if isinstance(inner, dict) else said


def _plain_shape(shape: Sequence[int] | Mapping[str, Sequence[int]] | None) -> Any:
    if isinstance(shape, Mapping):
        return {name: list(sizes) for name, sizes in shape.items()}
    return list(shape) if shape is not None else None
