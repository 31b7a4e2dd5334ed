"""Whatever is sent to any operation of the OpenAPI document: no 5xx, and every answer is what the document says.

Schemathesis makes the requests. Half of them name things that are there, so that they get beyond a 404.
"""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from api.reference import METHODS
from pipeline import store
from registry.lookup import Viewer
from shared.db import Begin
from tests.integration.api_fixtures import Person, ada, anonymous, app, join, parts, served, url

EXAMPLES = 8
"""Requests for each operation."""


@pytest.fixture
def known(submit: Callable[..., UUID], begin: Begin, owner: UUID, ada: httpx2.Client) -> Mapping[str, str]:
    """A value of something that is there for path parameters."""
    run_id = submit("scan", "promote")
    ada.post(f"/api/v1/runs/{run_id}/cancel").raise_for_status()  # its stream of events ends
    with begin() as session:
        row, _ = store.find(session, Viewer(user_id=owner), run_id)
    return {
        "run_id": str(run_id),
        "stage": "scan",
        "model": str(row.model_id),
        "version": "1.0.0",
        "device": "cpu",
        "version_id": str(row.version_id),
    }


def test_every_answer_to_any_request_is_one_that_the_document_describes(
    app: FastAPI, url: str, known: Mapping[str, str], join: Callable[..., Person]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # schemathesis' own
        import schemathesis
        from schemathesis import GenerationMode
        from schemathesis.checks import not_a_server_error
        from schemathesis.core.failures import FailureGroup
        from schemathesis.core.result import Ok
        from schemathesis.specs.openapi.checks import (
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
            status_code_conformance,
        )
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]
    token = join("admin").client.headers["Authorization"]
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.config.update(base_url=url)
    faults: dict[str, str] = {}
    walked = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        walked += 1
        right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

        @seed(7)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=right | wrong, real=st.booleans())
        def ask(case: Any, real: bool) -> None:
            if real:
                case.path_parameters = {**(case.path_parameters or {}), **_those_of(case.path_parameters, known)}
            case.call_and_validate(headers={"Authorization": token}, checks=checks, timeout=20)

        try:
            ask()
        except FailureGroup as error:
            faults[operation.label] = str(error)
    assert walked == sum(method in METHODS for methods in app.openapi()["paths"].values() for method in methods)
    assert not faults, "\n\n".join(f"{label}: {fault}" for label, fault in faults.items())


def _those_of(given: Mapping[str, Any] | None, known: Mapping[str, str]) -> dict[str, str]:
    return {name: known[name] for name in given or {} if name in known}
