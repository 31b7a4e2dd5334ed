"""The OpenAPI document and the page that shows it, complete and offline. Knows no route by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from api.errors import PROBLEM, ProblemDocument, documented
from api.idempotency import PARAMETER, PROBLEMS

STATIC = Path(__file__).parent / "static"
METHODS = ("get", "post", "put", "patch", "delete")

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SCHEMA = "#/components/schemas/"
_EVERYWHERE = ("internal", "database_unavailable", "url_too_long")
_WITH_JSON = ("malformed_json", "too_large", "body_timeout")
_TAGS = (
    ("people", "Signing in, users, roles, grants, API keys."),
    ("models", "Named lines of versions; upload starts here."),
    ("versions", "What was taken in, what was made of it, where to get it."),
    ("aliases", "Movable names of versions: production, champion, default."),
    ("gates", "What a version must have shown before it goes anywhere, and who approves of it."),
    ("deployments", "Which version is live where, and what was before."),
    (
        "rollouts",
        "A candidate beside what is live: begun, judged by what comes of both, ended; and feedback on predictions.",
    ),
    ("signatures", "What this instance vouches for, and the keys to verify it with."),
    ("lineage", "What a version comes from, and what came from it."),
    ("licences", "Whether a project may use a model."),
    ("scores", "The net score and what it is made of."),
    ("bundles", "Versions between instances, signed."),
    ("runs", "One plan carried out for one version: follow, cancel, retry."),
    ("reviews", "What lies in quarantine, and what people decide about it."),
    ("audit", "Who did what, sealed entry by entry."),
    ("operations", "The log, for those who operate it."),
    ("health", "For those who operate it."),
)
_ABOUT = (
    "Slipway takes a model in once: scanned, validated, converted, verified, measured and promoted, with evidence. "
    "Errors are RFC 9457 problems with a stable `code`. Something that is not yours is a 404, always."
)


def install(app: FastAPI) -> None:
    """Serve `/openapi.json` and `/docs`."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _finished(_generated(app))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": _PAGE_POLICY})


def _generated(app: FastAPI) -> dict[str, Any]:
    return get_openapi(
        title="Slipway",
        version=app.version,
        summary="Model intake with evidence",
        description=_ABOUT,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS],
    )


def _finished(document: dict[str, Any]) -> dict[str, Any]:
    """Replace FastAPI's idea of a 422 by ours, and give every answer the example of its shape."""
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = ProblemDocument.model_json_schema()
    for operation in _operations(document):
        answers = operation["responses"]
        if PROBLEM not in answers.get("422", {}).get("content", {PROBLEM: None}):
            answers["422"] = documented("invalid_field")[422]
        with_json = "application/json" in operation.get("requestBody", {}).get("content", {})
        secured = bool(operation.get("security"))
        codes = (*_EVERYWHERE, *(_WITH_JSON if with_json else ()), *(("budget_exhausted",) if secured else ()))
        _add(answers, documented(*codes))
        if PARAMETER in operation.get("parameters", ()):
            _add(answers, PROBLEMS)
        for answer in [*answers.values(), operation.get("requestBody", {})]:
            for kind, content in answer.get("content", {}).items():
                _illustrate(kind, content, schemas)
        operation["responses"] = dict(sorted(answers.items()))
    return document


def _add(answers: dict[str, Any], more: dict[int | str, dict[str, Any]]) -> None:
    """Further problems that an operation may answer with, beside those that it names itself."""
    for status, answer in more.items():
        named = answers.setdefault(str(status), answer).get("content", {}).get(PROBLEM, {})
        named.get("examples", {}).update(answer["content"][PROBLEM]["examples"])


def _illustrate(kind: str, content: dict[str, Any], schemas: dict[str, Any]) -> None:
    schema = content.get("schema", {})
    reference = next((each["$ref"] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each), "")
    examples = schemas.get(reference.removeprefix(_SCHEMA), {}).get("examples")
    if kind != PROBLEM and examples and not content.keys() & {"example", "examples"}:
        content["example"] = examples[0]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        for method in METHODS:
            if method in methods:
                yield methods[method]
