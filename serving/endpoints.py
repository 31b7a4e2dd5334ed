"""What each address answers: who may ask, which arm, which runtime, and what is counted. Knows no tensor."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from registry.errors import Conflict, Missing
from serving import describing
from serving.access import AWAY, Caller, Gatekeeper
from serving.answers import Answer, Refused, told
from serving.catalog import Catalog, Route, Trial
from serving.counting import Counting, Statistics
from serving.fleet import Fleet, NotLoaded, Variant
from serving.protocol.refusals import Kind
from serving.runtime import Died, Overloaded, TimedOut
from serving.traffic import Arm, choose
from serving.wire import Answer as Said
from shared.tokens import Receipts

if TYPE_CHECKING:
    from serving.http import Meant, Request

log = structlog.get_logger()

STICKY = b"slipway-sticky-key"
RECEIPT = "slipway-prediction"
_PASSED_ON = (b"content-type", b"content-encoding", b"accept-encoding", b"inference-header-content-length")
_PASSED_BACK = {
    "content-type": re.compile(r"application/(json|problem\+json|octet-stream)"),
    "content-encoding": re.compile(r"gzip|deflate"),
    "inference-header-content-length": re.compile(r"[0-9]{1,12}"),
}
POSTED = ("infer", "predict")
_OWN_FAULTS = ("timeout", "runtime_died")
"""Refusals that count against the version that was asked."""
_SHADOWS = 32
"""Shadow copies under way at once; more are left out."""
_FAULTS = 500


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A `guest` is let in because the endpoint is open to everybody, and hears of nothing but what answers there."""

    caller: Caller
    model_id: UUID
    guest: bool


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    said: Said
    variant: Variant
    arm: Arm | None
    seconds: float


class Endpoints:
    """All methods belong to one event loop. Times in seconds."""

    def __init__(
        self,
        *,
        gate: Gatekeeper,
        catalog: Catalog,
        fleet: Fleet,
        counting: Counting,
        receipts: Receipts,
        timeout: float,
        load_wait: float,
    ) -> None:
        self._gate, self._catalog, self._fleet, self._counting = gate, catalog, fleet, counting
        self._receipts, self._timeout, self._load_wait = receipts, timeout, load_wait
        self._shadows: set[asyncio.Task[None]] = set()

    async def admit(self, request: Request, what: Meant) -> Admitted:
        """Who asks, before their body is read. Raises `Refused`: 401, 403, 404, and 429 for one prediction too many."""
        try:
            caller = await self._gate.caller(request.headers.get(b"authorization"), request.address)
            found = await self._gate.model(caller, what.model)
        except AWAY as away:
            raise _database_away() from away
        if found.guest and (what.reference is not None or what.action == "stats"):
            detail = "To everybody this endpoint answers by what is live there, and by no other name."
            raise Refused(404, "version_not_found", detail)
        if what.action in POSTED:
            route = await self._route(found.id, what.reference)
            await self._gate.allow(caller, found.id, route.model.requests_per_minute)
        return Admitted(caller=caller, model_id=found.id, guest=found.guest)

    async def server(self, request: Request) -> Answer:
        """What is not about one model."""
        match request.method, request.path:
            case "GET", "/v2/health/live" | "/livez":
                return told({"live": True})
            case "GET", "/v2/health/ready" | "/readyz":
                return await self._ready()
            case "GET", "/v2" | "/v2/":
                return told(describing.server())
            case ("POST", "/v2/repository/index") | ("GET", "/v2/models"):
                return told(await self._index(request))
            case "GET", "/v2/models/stats":
                return told({"model_stats": [each.facts(*name) for name, each in await self._seen(request)]})
        raise Refused(404, "not_found", f"There is nothing at {request.path}.")

    async def describe(self, request: Request, what: Meant) -> Answer:
        admitted = await self.admit(request, what)
        route = await self._route(admitted.model_id, what.reference)
        match what.action:
            case "ready":
                return self._is_ready(route)
            case "stats":
                stats = self._counting.statistics.get((route.model.id, route.variant.version), Statistics())
                return told({"model_stats": [stats.facts(route.model.reference, route.variant.version)]})
            case "config":
                return told(describing.config(route, self._fleet.outfit))
            case "schema":
                return told(describing.schema(route))
            case "openapi.json":
                return told(describing.openapi(route))
        versions = [route.variant.version] if admitted.guest else await self._catalog.versions(route.model.id)
        return told(describing.metadata(route, versions))

    async def predict(self, request: Request, admitted: Admitted, reference: str | None, kind: Kind) -> Answer:
        """Raises `Refused`."""
        route = await self._route(admitted.model_id, reference)
        headers = {
            name.decode(): value.decode("latin-1") for name in _PASSED_ON if (value := request.headers.get(name))
        }
        asked = _Asked(kind=kind, headers=headers, body=request.body, seconds=route.model.timeout or self._timeout)
        key = self._sticky(route.trial, request, admitted.caller)
        outcome = await self._outcome(route, asked, key)
        said, variant = outcome.said, outcome.variant
        back = _headers(said)
        if said.status < 300:
            self._counting.answered(route.model.id, variant.version_id, variant.version, said.meta, outcome.seconds)
            label = said.meta.get("label")
            back[RECEIPT] = self._receipts.issue(
                variant.version_id,
                rollout_id=None if outcome.arm is None or route.trial is None else route.trial.id,
                arm=outcome.arm,
                label=label if isinstance(label, str) else None,
            )
            back["slipway-version"] = variant.version
        else:
            self._counting.failed(route.model.id, variant.version, outcome.seconds)
        return Answer(status=said.status, headers=back, body=said.body)

    async def _outcome(self, route: Route, asked: _Asked, key: str | None) -> _Outcome:
        trial = route.trial
        if trial is None:
            return await self._ask(route.variant, asked, None)
        if trial.kind == "shadow":
            return await self._shadowed(route, trial, asked)
        arm = choose(trial.id, trial.weight, key)
        if arm == "candidate" and self._fleet.ready(trial.candidate):
            try:
                outcome = await self._tried(trial, trial.candidate, asked, "candidate")
            except (Died, NotLoaded, Overloaded):
                outcome = None
            if outcome is not None and outcome.said.status < _FAULTS:
                return outcome
            # The candidate's fault has been counted against it; whoever asked still gets an answer.
            return await self._ask(route.variant, asked, None)
        if arm == "candidate":
            self._fleet.warm(trial.candidate)
            return await self._ask(route.variant, asked, None)
        return await self._tried(trial, route.variant, asked, "control")

    async def _tried(self, trial: Trial, variant: Variant, asked: _Asked, arm: Arm) -> _Outcome:
        """Ask, and count what came of it for this arm of the rollout. What was wrong with the request is nobody's fault here."""
        began, error, counted = time.perf_counter(), True, True
        try:
            outcome = await self._ask(variant, asked, arm)
            error = outcome.said.status >= _FAULTS
            counted = error or outcome.said.status < 300
        except Refused as refused:
            counted = refused.code in _OWN_FAULTS
            raise
        except (Overloaded, NotLoaded):
            counted = False
            raise
        finally:
            seconds = time.perf_counter() - began
            if counted:
                slow = trial.slow is not None and seconds > trial.slow
                self._counting.tried(trial.id, arm, seconds=seconds, error=error, slow=slow)
        return outcome

    async def _shadowed(self, route: Route, trial: Trial, asked: _Asked) -> _Outcome:
        """Answer by the control; a copy of some requests goes to the candidate, and nobody waits for it."""
        copied = choose(trial.id, trial.weight, None) == "candidate" and len(self._shadows) < _SHADOWS
        if copied and not self._fleet.ready(trial.candidate):
            self._fleet.warm(trial.candidate)
            copied = False
        asked = asked.compared() if copied else asked
        outcome = await self._tried(trial, route.variant, asked, "control")
        if copied and outcome.said.status < 300:
            task = asyncio.get_running_loop().create_task(self._shadow(trial, asked, outcome))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        return outcome

    async def _shadow(self, trial: Trial, asked: _Asked, answered: _Outcome) -> None:
        try:
            shadow = await self._tried(trial, trial.candidate, asked, "candidate")
        except (Refused, Died, NotLoaded, Overloaded):
            return
        if shadow.said.status < 300:
            same = shadow.said.meta.get("decision") == answered.said.meta.get("decision")
            self._counting.compared(trial.id, agreed=same)

    async def _ask(self, variant: Variant, asked: _Asked, arm: Arm | None) -> _Outcome:
        began = time.perf_counter()
        try:
            runtime = await self._fleet.get(variant, wait=self._load_wait)
            said = await runtime.ask(
                asked.kind, asked.headers, asked.body, seconds=asked.seconds, compared=asked.to_compare
            )
        except NotLoaded as refusal:
            if arm == "candidate":
                raise
            headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            raise Refused(refusal.status, refusal.code, refusal.message, headers=headers) from refusal
        except Overloaded as full:
            if arm == "candidate":
                raise
            detail = "More requests are waiting for this model than may; come again."
            raise Refused(503, "overloaded", detail, headers={"Retry-After": "1"}) from full
        except TimedOut as late:
            detail = f"No answer came within {asked.seconds:g} s."
            raise Refused(504, "timeout", detail, details={"timeout": asked.seconds}) from late
        except Died as died:
            if arm == "candidate":
                raise
            detail = "The model's runtime ended while it worked at this; it is started again."
            raise Refused(503, "runtime_died", detail, headers={"Retry-After": "1"}) from died
        return _Outcome(said=said, variant=variant, arm=arm, seconds=time.perf_counter() - began)

    async def _route(self, model_id: UUID, reference: str | None) -> Route:
        try:
            return await self._catalog.route(model_id, reference)
        except Missing as missing:
            raise Refused(404, missing.code, missing.message) from missing
        except Conflict as conflict:
            raise Refused(423 if conflict.code == "quarantined" else 409, conflict.code, conflict.message) from conflict
        except AWAY as away:
            raise _database_away() from away

    async def _ready(self) -> Answer:
        try:
            await self._catalog.ask(lambda session: session.connection())
        except AWAY:
            return told({"ready": False, "reason": "the database does not answer"}, status=503)
        return told({"ready": True})

    def _is_ready(self, route: Route) -> Answer:
        if self._fleet.ready(route.variant):
            return told({"name": route.model.reference, "ready": True})
        self._fleet.warm(route.variant)
        return told({"name": route.model.reference, "ready": False}, status=503, headers={"Retry-After": "1"})

    async def _index(self, request: Request) -> list[dict[str, Any]]:
        """The models that the caller can ask, and whether each is loaded here."""
        caller = await self._known(request)
        routes = await self._catalog.everything(caller.viewer) if caller.viewer else []
        return [
            describing.listed(name, version, loaded=self._fleet.loaded_version(version_id))
            for name, version, version_id in routes
        ]

    async def _seen(self, request: Request) -> list[tuple[tuple[str, str], Statistics]]:
        caller = await self._known(request)
        allowed = await self._catalog.visible(caller.viewer) if caller.viewer else {}
        return [
            ((allowed[model], version), each)
            for (model, version), each in self._counting.statistics.items()
            if model in allowed
        ]

    async def _known(self, request: Request) -> Caller:
        try:
            caller = await self._gate.caller(request.headers.get(b"authorization"), request.address)
        except AWAY as away:
            raise _database_away() from away
        if caller.viewer is None:
            raise Refused(401, "unauthenticated", "Send an API key or a token.", headers={"WWW-Authenticate": "Bearer"})
        return caller

    def _sticky(self, trial: Trial | None, request: Request, caller: Caller) -> str | None:
        if trial is None or trial.sticky == "none":
            return None
        if trial.sticky == "user":
            return str(caller.user_id or caller.name)
        return request.header(STICKY)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    kind: Kind
    headers: dict[str, str]
    body: list[bytes]
    seconds: float
    to_compare: bool = False

    def compared(self) -> _Asked:
        return _Asked(kind=self.kind, headers=self.headers, body=self.body, seconds=self.seconds, to_compare=True)


def _headers(said: Said) -> dict[str, str]:
    """Those of the child's headers that pass, as far as they are some: it is not believed."""
    told = said.meta.get("headers")
    if not isinstance(told, dict):
        return {}
    return {
        name: value
        for name, form in _PASSED_BACK.items()
        if isinstance(value := told.get(name), str) and form.fullmatch(value)
    }


def _database_away() -> Refused:
    return Refused(503, "database_unavailable", "The database does not answer.", headers={"Retry-After": "2"})
