"""A POST that is sent once more under its `Idempotency-Key` is done once, and answered as the first time."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import httpx2
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import text as sql

import api
from api import deps
from api.idempotency import IdempotentRoute
from api.upload import UploadRoute
from registry import answers, people
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket
from tests.integration.api_fixtures import (  # noqa: F401 - fixtures
    Person,
    app,
    join,
    parts,
    problem,
    served,
    url,
)
from tests.integration.upload_fixtures import (  # noqa: F401 - fixtures
    CONTENT_TYPE,
    file,
    form,
    left_in,
    onnx,
    staging,
    text,
    versions_of,
)

Join = Callable[..., Person]
DO_NOTHING_TWICE = {
    "/auth/login",  # another token does no harm
    "/auth/logout",
    "/auth/register",  # nobody has signed in; a name is taken once
    "/models/{model}/licence-check",
    "/licence-check",
    "/models/{model}/versions/{version}/exports",  # exported again, it has the same address
    "/feedback",  # once for each receipt
}
"""POSTs that need no key."""


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(upload_rate_limit=1000)


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


def new_model(person: Person, name: str, **headers: str) -> httpx2.Response:
    return person.client.post("/api/v1/models", json={"name": name}, headers=headers)


def upload(person: Person, *pieces: bytes, **headers: str) -> httpx2.Response:
    body = form(text("name", "digits"), *pieces)
    return person.client.post("/api/v1/models/upload", content=body, headers={"Content-Type": CONTENT_TYPE} | headers)


def test_the_same_request_gets_the_same_answer_and_is_done_once(join: Join) -> None:
    ada, bob, name = join(), join(), f"m-{uuid4().hex[:8]}"
    same = key()
    first = new_model(ada, name, **same)
    again = new_model(ada, name, **same)
    assert (first.status_code, again.status_code) == (201, 201), again.text
    assert again.content == first.content
    assert [again.headers.get(each) for each in ("location", "etag")] == [
        first.headers.get(each) for each in ("location", "etag")
    ]
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")

    problem(new_model(ada, f"{name}-2", **same), 422, "idempotency_mismatch")
    problem(ada.client.post("/api/v1/keys", json={"name": name}, headers=same), 422, "idempotency_mismatch")
    assert new_model(bob, name, **same).status_code == 201, "a key is its user's own"
    problem(new_model(ada, name), 409, "model_exists")


def test_an_api_key_is_shown_again_and_lies_nowhere_in_the_clear(join: Join, begin: Begin) -> None:
    ada, same = join(), key()
    wish = {"name": "ci", "scopes": ["models:read"]}
    first, again = (ada.client.post("/api/v1/keys", json=wish, headers=same) for _ in range(2))
    assert first.status_code == 201, first.text
    assert again.json() == first.json()
    assert len(ada.client.get("/api/v1/keys").json()["items"]) == 1
    with begin() as session:
        [kept] = session.execute(sql("SELECT * FROM answers WHERE user_id = :id"), {"id": ada.id}).all()
    assert first.json()["key"] not in str(kept)
    assert same["Idempotency-Key"] not in str(kept)


def test_a_refusal_is_not_kept(join: Join) -> None:
    ada, name, same = join(*people.EVERYDAY, "models:delete"), f"m-{uuid4().hex[:8]}", key()
    made = new_model(ada, name).json()["links"]["self"]
    assert ada.client.post(f"{made}:restore", headers=same).status_code == 404, "it is not deleted"
    ada.client.delete(made).raise_for_status()
    assert ada.client.post(f"{made}:restore", headers=same).status_code == 200


def test_the_second_does_not_wait_for_the_first(join: Join, begin: Begin) -> None:
    ada, name, same = join(), f"m-{uuid4().hex[:8]}", key()
    with begin() as session:
        answers.recall(session, ada.id, same["Idempotency-Key"], "")  # what another process does at this moment
        refused = new_model(ada, name, **same)
        problem(refused, 409, "idempotency_in_flight")
        assert refused.headers["retry-after"] == "1"
    assert new_model(ada, name, **same).status_code == 201, "whoever dies has not kept the key"


def test_a_key_is_visible_text(join: Join) -> None:
    for bad in ("", "a b", "k" * 256, "ключ".encode()):
        headers: dict[str, str | bytes] = {"Idempotency-Key": bad}
        answer = join().client.post("/api/v1/models", json={"name": "m"}, headers=headers)  # type: ignore[arg-type]
        problem(answer, 400, "invalid_idempotency_key")


def test_an_upload_whose_answer_was_lost_is_taken_in_once(join: Join, begin: Begin, staging: Bucket) -> None:
    ada, same, model = join(), key(), file("model_file", "m.onnx", onnx(padding=1000))
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: upload(ada, model, **same), range(4)))
    accepted = [each for each in taken if each.status_code == 202]
    in_flight = [each for each in taken if each.status_code != 202]
    for each in in_flight:
        problem(each, 409, "idempotency_in_flight")
    assert len({each.content for each in accepted}) == 1
    assert upload(ada, model, **same).content == accepted[0].content
    assert (versions_of(begin, ada.id), len(left_in(staging))) == (1, 1)

    problem(upload(ada, file("model_file", "m.onnx", onnx(padding=1001)), **same), 422, "idempotency_mismatch")
    problem(upload(ada, model, text("tags", '["a"]'), **same), 422, "idempotency_mismatch")
    assert (versions_of(begin, ada.id), len(left_in(staging))) == (1, 1)
    assert upload(ada, model, **key()).status_code == 202
    assert versions_of(begin, ada.id) == 2


def test_what_is_old_is_forgotten(join: Join, begin: Begin) -> None:
    ada, same = join(), key()
    assert new_model(ada, "digits", **same).status_code == 201
    with begin() as session:
        session.execute(
            sql("UPDATE answers SET created_at = now() - interval '2 days' WHERE user_id = :id"), {"id": ada.id}
        )
        answers.forget(session, timedelta(days=1))
    problem(new_model(ada, "digits", **same), 409, "model_exists")


def test_every_post_that_changes_something_heeds_the_key() -> None:
    heeding = set()
    for route in _posts():
        path = route.path_format
        if path in DO_NOTHING_TWICE or isinstance(route, UploadRoute):
            continue
        assert isinstance(route, IdempotentRoute), path
        order = [each.call for each in _flat(route.dependant)]
        assert order.index(deps.principal) < order.index(deps.transaction), f"{path}: who asks comes first"
        heeding.add(path)
    assert len(heeding) > 20


def _posts() -> Iterator[APIRoute]:
    for module in pkgutil.iter_modules(api.__path__, "api."):
        router = getattr(importlib.import_module(module.name), "router", None)
        for route in router.routes if router else ():
            if isinstance(route, APIRoute) and "POST" in route.methods:
                yield route


def _flat(dependant: Dependant) -> list[Dependant]:
    return [each for one in dependant.dependencies for each in (*_flat(one), one)]
