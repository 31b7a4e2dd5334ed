"""The OpenAPI document is complete, and its page works without the internet."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from api import __version__
from api.errors import CODES, PROBLEM
from api.reference import METHODS, STATIC
from tests.integration.api_fixtures import anonymous, app, parts, served, url

OPEN = {"/livez", "/readyz", "/health", "/version", "/api/v1/auth/login", "/api/v1/objects"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method, path, methods[method]


def test_the_document_is_openapi_3_1_and_names_only_our_errors(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert "ValidationError" not in json.dumps(document)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])


def test_every_operation_says_what_it_is_for(document: dict[str, Any]) -> None:
    named = {tag["name"] for tag in document["tags"]}
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert set(operation["tags"]) <= named, (method, path)
    identifiers = [operation["operationId"] for *_, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)


def test_every_answer_with_a_body_has_an_example(document: dict[str, Any]) -> None:
    bare = [
        (method, path, status, kind)
        for method, path, operation in operations(document)
        for status, answer in operation["responses"].items()
        for kind, content in answer.get("content", {}).items()
        if not (content.get("example") or content.get("examples"))
    ]
    assert bare == []
    silent = [
        (method, path)
        for method, path, operation in operations(document)
        if not any(status.startswith("2") for status in operation["responses"])
    ]
    assert silent == []


def test_every_request_body_has_an_example(document: dict[str, Any]) -> None:
    bare = [
        (method, path, kind)
        for method, path, operation in operations(document)
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        if not (content.get("example") or content.get("examples"))
    ]
    assert bare == []


def test_every_error_is_documented_as_a_problem_with_its_codes(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status.startswith(("2", "3")) or path in ("/readyz", "/health"):
                continue
            content = answer["content"]
            assert list(content) == [PROBLEM], (method, path, status)
            for code, example in content[PROBLEM]["examples"].items():
                assert example["value"]["status"] == int(status) == CODES[code][0], (method, path, code)
        assert {"500"} <= set(operation["responses"]), (method, path)


def test_every_operation_but_the_open_ones_wants_a_token(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for method, path, operation in operations(document):
        assert (path in OPEN) == (operation.get("security", [{}])[0] == {}), (method, path)
        if path not in OPEN:
            assert "401" in operation["responses"], (method, path)


def test_the_document_is_served(anonymous: httpx2.Client, document: dict[str, Any]) -> None:
    assert anonymous.get("/openapi.json").json() == document


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name in ("src", "href") if (value := given.get(name))]
        self.inline |= tag == "style" or (tag == "script" and "src" not in given)


def test_the_page_loads_everything_from_us_and_runs_nothing_inline(anonymous: httpx2.Client) -> None:
    page = anonymous.get("/docs")
    assert page.status_code == 200
    assert "script-src 'self';" in page.headers["content-security-policy"]
    links = _Links()
    links.feed(page.text)
    assert not links.inline
    assert [link for link in links.found if not link.startswith(("/static/", "data:"))] == []
    for link in links.found:
        if link.startswith("/static/"):
            first = anonymous.get(link)
            again = anonymous.get(link, headers={"If-None-Match": first.headers["etag"]})
            assert (first.status_code, again.status_code) == (200, 304), link


def test_files_of_others_are_what_their_page_says() -> None:
    said = dict(re.findall(r"\| (\S+) \| `([0-9a-f]{64})` \|", (STATIC / "README.md").read_text()))
    assert set(said) == {"swagger-ui-bundle.js", "swagger-ui.css"}
    for name, digest in said.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


def test_the_version_is_the_project_s() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_the_page_for_those_who_come_from_elsewhere_names_only_what_there_is(document: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "specifications.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and not line.startswith("| there")]
    assert len(rows) > 90
    paths = document["paths"]
    for _, here, shown in rows:
        for method, address in re.findall(r"(GET|POST|PUT|PATCH|DELETE)(?:/[A-Z]+)* ([/…][^`?\s]*)", here):
            wanted = re.sub(r"{\w+}", "{}", address.replace("…", "/models/{m}/versions/{v}"))
            known = [path for path in paths if re.sub(r"{\w+}", "{}", path) in {wanted, f"/api/v1{wanted}"}]
            assert any(method.lower() in paths[path] for path in known), (method, address)
        for file, _, test in re.findall(r"`((?:tests|benchmarks|client)/[\w/]+\.py)(::(\w+))?`", shown):
            assert (ROOT / file).is_file(), file
            assert f"def {test}" in (ROOT / file).read_text(), (file, test)
        assert shown.strip(" |"), here
