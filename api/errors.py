"""Every error as `application/problem+json` (RFC 9457), and the one table that gives our errors their HTTP status.

Knows the codes that clients may see, with an example of each; knows nothing of any noun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException as StarletteHTTPException

from pipeline.errors import IllegalTransition, NotFound, Rejected, SlipwayError, Stale, Unavailable
from registry.errors import Conflict, Denied, Exhausted, Invalid, Missing, NotWaivable, Outdated, RegistryError, Taken
from shared.errors import AdapterError, DependencyUnavailable
from shared.github import RepositoryUnknown

log = structlog.get_logger()

PROBLEM = "application/problem+json"
RETRY_AFTER = "2"
"""Seconds to wait for a dependency that is away."""

_DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError)

STATUS: Mapping[type[Exception], HTTPStatus] = {
    Rejected: HTTPStatus.BAD_REQUEST,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DependencyUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    IllegalTransition: HTTPStatus.CONFLICT,
    Stale: HTTPStatus.CONFLICT,
    Taken: HTTPStatus.CONFLICT,
    NotFound: HTTPStatus.NOT_FOUND,
    Missing: HTTPStatus.NOT_FOUND,
    Denied: HTTPStatus.FORBIDDEN,
    NotWaivable: HTTPStatus.CONFLICT,
    Conflict: HTTPStatus.CONFLICT,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Outdated: HTTPStatus.PRECONDITION_FAILED,
    Exhausted: HTTPStatus.FORBIDDEN,
    RepositoryUnknown: HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""Whatever is not listed is our bug: 500, `internal`."""

CODES: Mapping[str, tuple[HTTPStatus, str]] = {
    "malformed_json": (HTTPStatus.BAD_REQUEST, "The body is not JSON: Expecting value."),
    "invalid_cursor": (HTTPStatus.BAD_REQUEST, "The cursor is not one that this server gave out."),
    "invalid_event_id": (HTTPStatus.BAD_REQUEST, "Last-Event-ID must be the id of an event, such as 3."),
    "unsupported_format": (HTTPStatus.BAD_REQUEST, ".exe is no extension of a model file. Accepted are .onnx (ONNX)."),
    "content_mismatch": (HTTPStatus.BAD_REQUEST, "The file is named .onnx but holds an HDF5 file."),
    "malformed_multipart": (HTTPStatus.BAD_REQUEST, "The body is not multipart/form-data: the boundary is missing."),
    "missing_file": (HTTPStatus.BAD_REQUEST, "The form has no model_file."),
    "empty_file": (HTTPStatus.BAD_REQUEST, "model.onnx is empty."),
    "invalid_idempotency_key": (
        HTTPStatus.BAD_REQUEST,
        "Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID.",
    ),
    "invalid_digest": (HTTPStatus.BAD_REQUEST, "Content-Digest holds no SHA-256 in base64."),
    "digest_mismatch": (HTTPStatus.BAD_REQUEST, "What arrived does not have the SHA-256 that was announced."),
    "unauthenticated": (HTTPStatus.UNAUTHORIZED, "Sign in first: this needs a bearer token."),
    "bad_credentials": (HTTPStatus.UNAUTHORIZED, "User name or password is wrong."),
    "forbidden": (HTTPStatus.FORBIDDEN, "This needs the right models:upload, which you do not have."),
    "not_granted": (HTTPStatus.FORBIDDEN, "ada has not given you models:deploy for digits."),
    "own_upload": (HTTPStatus.FORBIDDEN, "You have uploaded this file yourself; somebody else must review it."),
    "not_your_approval": (HTTPStatus.FORBIDDEN, "An approval is taken back by who gave it, or by an admin."),
    "address_expired": (HTTPStatus.FORBIDDEN, "This address was good for 300 s; get another one."),
    "address_refused": (HTTPStatus.FORBIDDEN, "This server has not given out this address."),
    "wrong_password": (HTTPStatus.FORBIDDEN, "The old password is wrong."),
    "not_owner": (HTTPStatus.FORBIDDEN, "Only ada and admins decide who may do what with digits."),
    "untrusted_bundle": (
        HTTPStatus.FORBIDDEN,
        "The bundle is signed by the key 1f2e…, which this server does not trust.",
    ),
    "quota_exceeded": (HTTPStatus.FORBIDDEN, "You have 19 of 20 models; 2 more do not fit."),
    "own_model": (HTTPStatus.FORBIDDEN, "digits is yours; others rate it."),
    "not_found": (HTTPStatus.NOT_FOUND, "There is nothing at this address."),
    "run_not_found": (HTTPStatus.NOT_FOUND, "There is no run 0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2."),
    "step_not_found": (HTTPStatus.NOT_FOUND, "This run has no step 'polish'."),
    "model_not_found": (HTTPStatus.NOT_FOUND, "You have no model 'digits'."),
    "version_not_found": (HTTPStatus.NOT_FOUND, "This model has no version '9.0.0'."),
    "artifact_not_found": (HTTPStatus.NOT_FOUND, "This version has no artifact 'onnx-fp16'."),
    "pin_not_found": (HTTPStatus.NOT_FOUND, "No variant is pinned for cpu."),
    "alias_not_found": (HTTPStatus.NOT_FOUND, "This model has no alias 'champion'."),
    "key_not_found": (HTTPStatus.NOT_FOUND, "You have no such API key."),
    "waiver_not_found": (HTTPStatus.NOT_FOUND, "There is no such waiver, or it has been revoked already."),
    "gate_not_found": (HTTPStatus.NOT_FOUND, "There is no gate 3c59dc04-8e8a-4f2d-9b0e-1f6a0f5e7d21 here."),
    "approval_not_found": (
        HTTPStatus.NOT_FOUND,
        "There is no such approval, or it has been taken back already.",
    ),
    "deployment_not_found": (
        HTTPStatus.NOT_FOUND,
        "This model has no deployment 1679091c-5a88-4faf-afb5-e6087eb1b2dc.",
    ),
    "rollout_not_found": (
        HTTPStatus.NOT_FOUND,
        "This model has no rollout 6f4922f4-5568-4a3e-9d1b-8a0f7a5c2b1e.",
    ),
    "edge_not_found": (HTTPStatus.NOT_FOUND, "This version has no such parent."),
    "grant_not_found": (HTTPStatus.NOT_FOUND, "grace has no grant of models:download for digits."),
    "role_not_found": (HTTPStatus.NOT_FOUND, "There is no role 'trainer'."),
    "user_not_found": (HTTPStatus.NOT_FOUND, "There is no user 'grace'."),
    "not_imported": (HTTPStatus.NOT_FOUND, "1.0.0 did not come from another instance."),
    "rating_not_found": (HTTPStatus.NOT_FOUND, "You have not rated digits."),
    "card_not_found": (HTTPStatus.NOT_FOUND, "This model has no card."),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "PUT is not possible here."),
    "body_timeout": (HTTPStatus.REQUEST_TIMEOUT, "The request's body did not arrive within 30 s."),
    "upload_stalled": (HTTPStatus.REQUEST_TIMEOUT, "Nothing has come for 30 s."),
    "upload_too_slow": (HTTPStatus.REQUEST_TIMEOUT, "The upload is slower than 8,192 bytes a second."),
    "upload_timeout": (HTTPStatus.REQUEST_TIMEOUT, "The upload took longer than 3600 s."),
    "illegal_transition": (HTTPStatus.CONFLICT, "a succeeded run cannot take Cancel"),
    "bytes_gone": (HTTPStatus.CONFLICT, "The run's files have left staging; upload the model again."),
    "not_waivable": (
        HTTPStatus.CONFLICT,
        "pickle.gadget found something malicious; only what is unknown can be waived.",
    ),
    "nothing_to_waive": (HTTPStatus.CONFLICT, "pickle.global does not stop this version."),
    "ambiguous_file": (HTTPStatus.CONFLICT, "pickle.global stops more than one file; name one by its sha256."),
    "condemned": (HTTPStatus.CONFLICT, "This file has been condemned; no waiver lets it pass."),
    "no_such_file": (HTTPStatus.CONFLICT, "This version has no file with that SHA-256."),
    "bytes_missing": (HTTPStatus.CONFLICT, "model/digits.pt is not in storage; it may be on its way there."),
    "not_published": (HTTPStatus.CONFLICT, "1.0.0 is not published (yet)."),
    "not_exportable": (
        HTTPStatus.CONFLICT,
        "Triton has no settings for this variant: ids is of type complex64. Serve it here.",
    ),
    "encrypted_here": (HTTPStatus.CONFLICT, "Here only Slipway can read what is stored; another server could not."),
    "not_servable": (HTTPStatus.CONFLICT, "1.0.0 cannot be served, so nothing is made of it."),
    "variant_exists": (HTTPStatus.CONFLICT, "1.0.0 has onnx-int8-dynamic already; artifacts never change."),
    "run_under_way": (
        HTTPStatus.CONFLICT,
        "Run 0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2 does the same for 1.0.0; wait for its end.",
    ),
    "runs_under_way": (HTTPStatus.CONFLICT, "Runs of digits go on: 0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2."),
    "not_clean": (HTTPStatus.CONFLICT, "The scan found 1.0.0 malicious; nothing may point at it."),
    "version_archived": (HTTPStatus.CONFLICT, "1.0.0 is archived; nothing may point at it."),
    "version_breaks_contract": (
        HTTPStatus.CONFLICT,
        "1.0.1 says that it is a patch change of 1.0.0, but output probabilities is called scores now: that takes 2.0.0.",
    ),
    "illegal_status": (HTTPStatus.CONFLICT, "A version that is archived becomes deprecated, not approved."),
    "alias_moved": (
        HTTPStatus.PRECONDITION_FAILED,
        "Somebody was first: production points at 1.1.0 since 2026-11-20T12:00:00+00:00.",
    ),
    "precondition_failed": (HTTPStatus.PRECONDITION_FAILED, "If-Match holds no ETag that this server gave out."),
    "endpoint_changed": (
        HTTPStatus.PRECONDITION_FAILED,
        "The endpoint has changed since you read it; read it again.",
    ),
    "version_changed": (
        HTTPStatus.PRECONDITION_FAILED,
        "The version has changed since you read it; read it again.",
    ),
    "stale": (HTTPStatus.PRECONDITION_FAILED, "digits has been changed since you read it; read it again."),
    "idempotency_in_flight": (
        HTTPStatus.CONFLICT,
        "The request with this Idempotency-Key is still being worked at.",
    ),
    "version_exists": (HTTPStatus.CONFLICT, "digits has a version 1.0.0 already; versions never change."),
    "gate_failed": (
        HTTPStatus.CONFLICT,
        "1.0.0 may not go to production. It would take: p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms.",
    ),
    "already_live": (HTTPStatus.CONFLICT, "1.0.0 is live on production already, with this config."),
    "not_live": (HTTPStatus.CONFLICT, "1.0.0 is not live on production any more: it was superseded."),
    "nothing_live": (
        HTTPStatus.CONFLICT,
        "Nothing is live on production, so there is nothing to compare with; deploy the version instead.",
    ),
    "rollout_running": (HTTPStatus.CONFLICT, "1.1.0 is being rolled out on production already; stop that first."),
    "rollout_ended": (HTTPStatus.CONFLICT, "The rollout of 1.1.0 on production was rolled back already."),
    "version_in_rollout": (HTTPStatus.CONFLICT, "1.1.0 is being rolled out on production; stop that first."),
    "prediction_judged": (HTTPStatus.CONFLICT, "This prediction has been judged already; each is judged once."),
    "nothing_to_roll_back_to": (
        HTTPStatus.CONFLICT,
        "Nothing that was live on production before is left that could be live today.",
    ),
    "username_taken": (HTTPStatus.CONFLICT, "There is a user 'ada' already."),
    "too_many_parents": (HTTPStatus.CONFLICT, "A version has at most 100 parents."),
    "edge_exists": (HTTPStatus.CONFLICT, "This version has that parent as dataset already."),
    "lineage_cycle": (HTTPStatus.CONFLICT, "That would be a circle: ada/a@1.0.0 ← ada/b@1.0.0 ← ada/a@1.0.0."),
    "not_a_token": (
        HTTPStatus.CONFLICT,
        "You came with an API key: revoke it, or sign out with everywhere=true.",
    ),
    "grant_to_owner": (HTTPStatus.CONFLICT, "digits is ada's own; no grant adds to that."),
    "role_in_use": (HTTPStatus.CONFLICT, "3 users have the role trainer; take it from them first."),
    "built_in_role": (
        HTTPStatus.CONFLICT,
        "The role reader comes with Slipway and stays as it is; make one of your own.",
    ),
    "model_names_taken": (HTTPStatus.CONFLICT, "ada has models of the same name: digits."),
    "model_deployed": (HTTPStatus.CONFLICT, "grace owns models that are deployed."),
    "owns_models": (
        HTTPStatus.CONFLICT,
        "grace owns 2 models; say what becomes of them: models=delete or models=to:NAME.",
    ),
    "last_admin": (HTTPStatus.CONFLICT, "Nobody would be an admin any more; make somebody else one first."),
    "email_taken": (HTTPStatus.CONFLICT, "ada@example.org is somebody else's address."),
    "retention_over": (HTTPStatus.CONFLICT, "digits was deleted more than 30 days ago; its bytes may be gone."),
    "version_has_alias": (HTTPStatus.CONFLICT, "1.0.0 is default; move that first."),
    "version_deployed": (HTTPStatus.CONFLICT, "1.0.0 is live in production; end that first."),
    "name_in_use_by_deleted": (
        HTTPStatus.CONFLICT,
        "You have deleted a model 'digits', and it still has that name.",
    ),
    "name_unconfirmed": (
        HTTPStatus.CONFLICT,
        "'digitss' may be a mistake for ada/digits; confirm_name=true makes it all the same.",
    ),
    "name_confusable": (HTTPStatus.CONFLICT, "'d1gits' looks the same as ada/digits; choose another name."),
    "model_exists": (HTTPStatus.CONFLICT, "You have a model 'digits' already."),
    "url_too_long": (HTTPStatus.REQUEST_URI_TOO_LONG, "The address is longer than 8 KiB."),
    "too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request's body exceeds 1 MiB."),
    "range_not_satisfiable": (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "The file has 87,412 bytes; none of them is in the range.",
    ),
    "idempotency_mismatch": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "This Idempotency-Key was used for another request; take a new one.",
    ),
    "invalid_field": (HTTPStatus.UNPROCESSABLE_ENTITY, "body.name: Field required"),
    "invalid_alias": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "'v1' cannot be an alias: 1 to 63 of a-z, 0-9, . _ and -, a letter first; no version number, not latest.",
    ),
    "invalid_metric": (HTTPStatus.UNPROCESSABLE_ENTITY, "accuracy is a share between 0 and 1, not 95."),
    "invalid_gate": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "p99_below does not take these parameters: ms: Input should be greater than 0.",
    ),
    "invalid_rollout": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "A canary with a weight of 1 leaves the control without requests; take less.",
    ),
    "invalid_prediction": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "None of our keys made this receipt. Send the header Slipway-Prediction of the answer as it was.",
    ),
    "prediction_without_label": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "That answer had no single label to compare yours with; say correct=true or correct=false.",
    ),
    "repository_unknown": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "GitHub shows us no repository ada/sorter, or none with a licence; give the licence as text.",
    ),
    "invalid_parent": (HTTPStatus.UNPROCESSABLE_ENTITY, "There is no version digits@9.0.0 that you may see."),
    "unknown_role": (HTTPStatus.UNPROCESSABLE_ENTITY, "There is no role trainer."),
    "pattern_too_slow": (HTTPStatus.UNPROCESSABLE_ENTITY, "'(a+)+$' took longer than 1 s; make it simpler."),
    "invalid_pattern": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "'(' is no regular expression: parentheses () not balanced.",
    ),
    "quarantined": (HTTPStatus.LOCKED, "The scan found this version malicious; its bytes are never handed out."),
    "not_yet_scanned": (HTTPStatus.LOCKED, "This version has not been scanned yet."),
    "too_many_streams": (HTTPStatus.TOO_MANY_REQUESTS, "You follow 50 runs already; end a stream, or poll."),
    "rate_limited": (HTTPStatus.TOO_MANY_REQUESTS, "You have used your 5 uploads for this hour."),
    "budget_exhausted": (
        HTTPStatus.TOO_MANY_REQUESTS,
        "The key ci has used all the calls that it was made for.",
    ),
    "too_many_sign_ins": (HTTPStatus.TOO_MANY_REQUESTS, "Too many sign-ins have failed; wait, or use an API key."),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side; it has been logged."),
    "database_unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer; try again shortly."),
    "storage_unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "Storage does not answer."),
    "storage_full": (HTTPStatus.SERVICE_UNAVAILABLE, "Storage is full; free some space or raise its quota."),
    "not_encrypted": (HTTPStatus.SERVICE_UNAVAILABLE, "An object in storage is not encrypted."),
    "wrong_storage_key": (HTTPStatus.SERVICE_UNAVAILABLE, "An object in storage is encrypted by a key that is gone."),
    "object_altered": (HTTPStatus.SERVICE_UNAVAILABLE, "An object in storage is not what was stored."),
    "github_unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "GitHub does not answer in time."),
}
"""Codes that operations document, each with its status and an example of its detail."""

HINTS: Mapping[str, str] = {
    "unauthenticated": "Send `Authorization: Bearer …` with a token of POST /api/v1/auth/login or an API key (slw_…).",
    "forbidden": "Ask an admin for the right, or use a key whose scopes include it.",
    "not_yet_scanned": "Follow the version's run; the download opens when its scan step has passed.",
    "quarantined": "Read the findings in the scan step's report of the version's run.",
    "encrypted_here": "Fetch the repository instead (GET …/exports/triton) and put it where your server reads.",
    "not_granted": "Ask the owner for a grant, or an admin.",
    "address_expired": "GET /api/v1/models/{model}/versions/{version}/download gives a fresh one.",
    "own_upload": "Ask another reviewer; admins too are refused here.",
    "gate_failed": "GET …/versions/{version}/promotability?target=… says what each gate found and what would do.",
    "not_waivable": "Condemn the file, or leave it where it is; the uploader can send a clean one.",
    "bytes_missing": "Try again in a minute.",
    "version_breaks_contract": "Upload it again under the number that it takes, or with bump=major; versions never change.",
    "alias_moved": "Look where it points now, and move it again if you still want to.",
    "internal": "Tell the operator the trace_id.",
    "budget_exhausted": "Make another key, or give this one more calls: PATCH /api/v1/keys/{id}.",
    "untrusted_bundle": "Ask the operator to add the other instance's public key to TRUSTED_KEYS.",
    "quota_exceeded": "Delete what you no longer need and have it purged, or ask an admin for more.",
    "runs_under_way": "Cancel them (POST /api/v1/runs/{run}/cancel) or wait for their end, and purge again.",
    "name_in_use_by_deleted": "Restore it (POST /api/v1/models/{model}:restore), or have an admin purge it.",
    "name_confusable": "GET /api/v1/models:check-name?name=… tells which names would be taken for another model.",
}


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is stable; `detail` and `hint` are for people; `details` depends on the code."""

    type: str = Field(examples=["urn:problem-type:slipway:run_not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no run 0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2."])
    code: str = Field(examples=["run_not_found"])
    timestamp: datetime
    trace_id: str = Field(description="also in the response header X-Trace-Id and in our log")
    hint: str | None = None
    details: Any = None


class Problem(HTTPException):
    """An error that the edge itself finds. Also reaches the client when a middleware's `receive` raises it."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Any = None,
    ) -> None:
        super().__init__(status_code=status, detail=detail, headers=dict(headers or {}))
        self.code = code
        self.hint = hint
        self.details = details


def unauthenticated(
    detail: str = "Sign in first: this needs a bearer token.", code: str = "unauthenticated"
) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, code, detail, headers={"WWW-Authenticate": 'Bearer realm="slipway"'})


def invalid(fields: Mapping[str, str]) -> Problem:
    """422 for fields that parsed and still make no sense: field → what is wrong with it."""
    listed = [{"field": field, "message": message} for field, message in fields.items()]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_field", _sentence(listed), details=listed)


def respond(problem: Problem, trace_id: str) -> Response:
    """The problem as a response."""
    status = HTTPStatus(problem.status_code)
    body: dict[str, Any] = {
        "type": f"urn:problem-type:slipway:{problem.code}",
        "title": status.phrase,
        "status": status.value,
        "detail": problem.detail,
        "code": problem.code,
        "timestamp": datetime.now(UTC).isoformat(),
        "trace_id": trace_id,
    }
    if hint := problem.hint or HINTS.get(problem.code):
        body["hint"] = hint
    if problem.details:
        body["details"] = problem.details
    headers = dict(problem.headers or {})
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", RETRY_AFTER)
    return JSONResponse(body, status_code=status.value, headers=headers, media_type=PROBLEM)


def trace_of(request: Request) -> str:
    return str(request.scope.get("state", {}).get("trace_id", ""))


def internal() -> Problem:
    status, detail = CODES["internal"]
    return Problem(status, "internal", detail)


def install(app: FastAPI) -> None:
    """Answer every error that a handler, a dependency or the router raises with a problem."""

    def ours(request: Request, error: Exception) -> Response:
        problem = _translate(error)
        request.state.code = problem.code  # for the log's line about the request
        return respond(problem, trace_of(request))

    for kind in (SlipwayError, RegistryError, AdapterError, *_DATABASE_AWAY, DataError):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(StarletteHTTPException, ours)
    app.add_exception_handler(RequestValidationError, ours)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of an operation that may answer with these codes of `CODES`."""
    answers: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, detail = CODES[code]
        answer = answers.setdefault(
            status.value,
            {
                "description": status.phrase,
                "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        answer["content"][PROBLEM]["examples"][code] = {"value": _example(code, status, detail)}
    return answers


def _translate(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid_request(error)
        case StarletteHTTPException():
            return _from_router(error)
        case SlipwayError() | RegistryError() | AdapterError() if status := _status_of(error):
            return Problem(status, error.code, error.message, details=getattr(error, "details", None))
        case DataError():  # NUL in a text, a number beyond its column: only the database knows all that it does not take
            log.warning("http.unstorable", error=str(error.orig))
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            return Problem(status, "invalid_field", "A value in the request is one that cannot be stored.")
        case _ if isinstance(error, _DATABASE_AWAY):
            log.warning("database.unavailable", error=str(error).splitlines()[0])
            status, detail = CODES["database_unavailable"]
            return Problem(status, "database_unavailable", detail)
        case _:
            log.error("http.failed", exc_info=error)
            return internal()


def _status_of(error: Exception) -> HTTPStatus | None:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), None)


def _invalid_request(error: RequestValidationError) -> Problem:
    found = error.errors()
    if all(each["loc"][0] == "path" for each in found):  # an ill-formed id is the id of nothing
        status, detail = CODES["not_found"]
        return Problem(status, "not_found", detail)
    if found[0]["type"] == "json_invalid":
        why = found[0].get("ctx", {}).get("error", found[0]["msg"])
        return Problem(HTTPStatus.BAD_REQUEST, "malformed_json", f"The body is not JSON: {why}.")
    fields = [{"field": ".".join(str(part) for part in each["loc"]), "message": each["msg"]} for each in found]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_field", _sentence(fields), details=fields)


def _from_router(error: StarletteHTTPException) -> Problem:
    status = HTTPStatus(error.status_code)
    code = (
        "internal"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR
        else status.phrase.lower().replace(" ", "_").replace("-", "_")
    )
    detail = CODES["not_found"][1] if status is HTTPStatus.NOT_FOUND else str(error.detail)
    return Problem(status, code, detail, headers=error.headers)


def _sentence(fields: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(f"{each['field']}: {each['message']}" for each in fields)


def _example(code: str, status: HTTPStatus, detail: str) -> dict[str, Any]:
    example = {
        "type": f"urn:problem-type:slipway:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "timestamp": "2026-11-20T12:00:00+00:00",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return example | ({"hint": HINTS[code]} if code in HINTS else {})
