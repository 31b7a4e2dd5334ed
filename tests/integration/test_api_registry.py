"""Models as people keep them: made, found, changed, rated, deleted, restored; and no two that look the same."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import text

from pipeline import store
from shared.db import Begin
from tests.integration.api_fixtures import (
    Person,
    ada,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    url,
)
from tests.integration.upload_fixtures import BOUNDARY, CONTENT_TYPE, END, onnx

Submit = Callable[..., UUID]
Join = Callable[..., Person]
MODELS = "/api/v1/models"
ALL = ("models:read", "models:upload", "models:delete")


@pytest.fixture
def word() -> str:
    """A word that no other test's names are near to."""
    return "q" + uuid4().hex.translate(str.maketrans("0123456789", "ghjkmpqrtu"))[:14]


def make(client: httpx2.Client, name: str, **more: Any) -> dict[str, Any]:
    answer = client.post(MODELS, json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def names(client: httpx2.Client, **wanted: Any) -> list[str]:
    answer = client.get(MODELS, params=wanted)
    assert answer.status_code == 200, answer.text
    return [model["name"] for model in answer.json()["items"]]


def sql(begin: Begin, statement: str, **values: Any) -> None:
    with begin() as session:
        session.execute(text(statement), values)


# Made and changed


def test_a_model_is_made_before_it_has_a_version(join: Join, word: str) -> None:
    ada = join().client
    answer = ada.post(
        MODELS,
        json={"name": word, "model_type": "Classification", "license": "apache-2.0", "tags": ["a", "a", "b"]},
    )
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{MODELS}/{made['id']}")
    assert (made["licence"], made["tags"], made["model_type"]) == ("Apache-2.0", ["a", "b"], "classification")
    assert (made["latest"], made["rating"], made["downloads"], made["revision"]) == (None, None, 0, 1)
    assert ada.get(f"{MODELS}/{word}").json() == made
    problem(ada.post(MODELS, json={"name": word}), 409, "model_exists")
    wrong = problem(
        ada.post(MODELS, json={"name": "a/b", "licence": "Apache", "tags": [""], "colour": "red"}), 422, "invalid_field"
    )
    for said in ("has a slash", "did you mean Apache-2.0", "body.tags", "body.colour"):
        assert said in str(wrong["detail"])


def test_only_the_first_of_two_who_have_read_the_same_changes_it(join: Join, word: str) -> None:
    ada = join().client
    make(ada, word)
    read = ada.get(f"{MODELS}/{word}")
    seen = {"If-Match": read.headers["etag"]}
    assert ada.get(f"{MODELS}/{word}", headers={"If-None-Match": read.headers["etag"]}).status_code == 304
    first = ada.patch(f"{MODELS}/{word}", json={"description": "one"}, headers=seen)
    assert (first.status_code, first.json()["revision"]) == (200, 2)
    problem(ada.patch(f"{MODELS}/{word}", json={"description": "two"}, headers=seen), 412, "stale")
    problem(
        ada.patch(f"{MODELS}/{word}", json={"description": "two"}, headers={"If-Match": '"x"'}),
        412,
        "precondition_failed",
    )
    put = ada.put(f"{MODELS}/{word}", json={"licence": "mit"}, headers={"If-Match": first.headers["etag"]})
    assert (put.json()["description"], put.json()["licence"]) == ("one", "MIT")  # what was left out stays
    gone = ada.patch(f"{MODELS}/{word}", json={"licence": None, "is_active": False, "protected_aliases": ["live"]})
    assert (gone.json()["licence"], gone.json()["is_active"]) == (None, False)
    assert gone.json()["protected_aliases"] == ["live"]
    assert ada.get(f"{MODELS}/{word}", headers={"If-None-Match": read.headers["etag"]}).status_code == 200


def test_a_grant_to_upload_is_one_to_change_but_not_to_publish(join: Join, word: str, begin: Begin) -> None:
    ada, grace = join(), join()
    made = make(ada.client, word)
    address = f"{MODELS}/{ada.username}~{word}"
    problem(grace.client.patch(address, json={"description": "mine"}), 404, "model_not_found")
    sql(
        begin,
        "INSERT INTO grants (model_id, user_id, permission, granted_by) VALUES (:model, :user, 'models:upload', :by)",
        model=made["id"],
        user=grace.id,
        by=ada.id,
    )
    assert grace.client.patch(address, json={"description": "ours"}).json()["description"] == "ours"
    problem(grace.client.patch(address, json={"visibility": "public"}), 403, "not_granted")
    assert ada.client.patch(f"{MODELS}/{word}", json={"visibility": "public"}).status_code == 200
    problem(join().client.patch(address, json={"description": "theirs"}), 403, "not_granted")


def test_a_card_is_shown_as_a_page_that_runs_and_loads_nothing(join: Join, word: str) -> None:
    ada = join().client
    make(ada, word)
    problem(ada.get(f"{MODELS}/{word}/card"), 404, "card_not_found")
    card = "# Digits\n\n|a|b|\n|-|-|\n|1|2|\n\n<script>alert(1)</script> [x](javascript:alert(1)) ![y](https://else.where/y.png)"
    assert ada.patch(f"{MODELS}/{word}", json={"card": card}).json()["has_card"]
    page = ada.get(f"{MODELS}/{word}/card")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'; base-uri 'none';")
    assert "<h1>Digits</h1>" in page.text
    assert "<table>" in page.text
    assert "<script" not in page.text
    assert 'href="javascript:' not in page.text
    raw = ada.get(f"{MODELS}/{word}/card", headers={"Accept": "text/markdown"})
    assert (raw.text, raw.headers["content-type"]) == (card, "text/markdown; charset=utf-8")
    problem(ada.patch(f"{MODELS}/{word}", json={"card": "é" * 140_000}), 422, "invalid_field")


def test_a_card_that_comes_with_an_upload_is_the_model_s(join: Join, word: str) -> None:
    ada = join().client

    def upload(card: bytes) -> dict[str, Any]:
        def part(name: str, content: bytes, filename: str = "") -> bytes:
            where = f'; filename="{filename}"' if filename else ""
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{where}\r\n\r\n'
            return head.encode() + content + b"\r\n"

        body = part("name", word.encode()) + part("card_file", card, "README.md") + part("file", onnx(), "m.onnx") + END
        answer = ada.post(f"{MODELS}/upload", content=body, headers={"Content-Type": CONTENT_TYPE})
        assert answer.status_code == 202, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    upload(b"# One")
    assert "<h1>One</h1>" in ada.get(f"{MODELS}/{word}/card").text
    (warning,) = [said for said in upload(b"\xff")["validation_warnings"] if "card" in said]
    assert "UTF-8" in warning
    assert "<h1>One</h1>" in ada.get(f"{MODELS}/{word}/card").text


# Found


def test_models_are_found_by_words_parts_of_names_and_patterns(join: Join, word: str) -> None:
    ada = join().client
    make(ada, f"{word}-resnet_large.v2", description="Sees cats in real-time", tags=["vision", "edge"])
    make(ada, f"{word}-bert", description="Reads contracts", tags=["text"], framework="pytorch", card="for lawyers")
    large, bert = f"{word}-resnet_large.v2", f"{word}-bert"
    assert (
        names(ada, search="resnet")
        == names(ada, search="LARGE cats")
        == names(ada, search="resnet_large.v2")
        == [large]
    )
    assert names(ada, search="contr") == names(ada, search="lawyers") == [bert]
    assert names(ada, search=f"{word} -cats") == [bert]
    assert names(ada, search='"reads contracts" or cats', sort="name", order="asc") == [bert, large]
    for nothing in ("esnet", "100%", '"cats sees"', "&|!:*()", "''", "-"):
        assert names(ada, search=nothing) == []
    assert names(ada, regex=f"^{word}-b.*t$") == [bert]
    assert names(ada, tag=["vision", "edge"]) == [large]
    assert names(ada, tag=["vision", "text"]) == []
    assert names(ada, framework="pytorch") == [bert]
    assert ada.patch(f"{MODELS}/{bert}", json={"is_active": False}).status_code == 200
    assert (names(ada, search=word, is_active=True), names(ada, is_active=False)) == ([large], [bert])
    assert names(ada, owner="nobody") == names(ada, stage="production") == []


def test_no_pattern_hangs_the_database(ada: httpx2.Client, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(model="a" * 99)
    monkeypatch.setattr("registry.models.PATTERN_SECONDS", 0.2)
    slow = r"^(a+)(a+)(a+)(a+)\1\2\3\4$"  # for an odd number of letters it tries every way to cut them
    problem(ada.get(MODELS, params={"regex": slow}), 422, "pattern_too_slow")
    problem(ada.get(MODELS, params={"regex": slow, "page": 1}), 422, "pattern_too_slow")
    problem(ada.post(f"{MODELS}:query", json=[{"regex": slow}]), 422, "pattern_too_slow")
    problem(ada.get(MODELS, params={"regex": "("}), 422, "invalid_pattern")
    problem(ada.get(MODELS, params={"regex": "x" * 201}), 422, "invalid_field")
    assert names(ada, regex="^nothing$") == []


def test_every_order_is_read_to_its_end_by_cursor(join: Join, word: str, begin: Begin) -> None:
    ada, grace = join(), join()
    made = [make(ada.client, f"{word}-{letter}", visibility="public") for letter in "dbaec"]
    for model, score, fetched in zip(made, (3, 3, 5, 1, None), (0, 7, 7, 1, 30), strict=True):
        if score is not None:
            rated = grace.client.put(f"{MODELS}/{model['id']}/rating", json={"score": score})
            assert rated.status_code == 200, rated.text
        if fetched:
            sql(
                begin,
                """
                WITH made AS (INSERT INTO versions (model_id, ordinal, version, format, servable, filename, size, sha256,
                    staging_key, uploaded_by) VALUES (:model, 1, '1.0.0', 'onnx', true, 'm', 1, '', '', :by) RETURNING id)
                INSERT INTO usage (version_id, day, kind, count) SELECT id, current_date, 'download', :fetched FROM made
                """,
                model=model["id"],
                by=ada.id,
                fetched=fetched,
            )

    def all_of(**wanted: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        address: str | None = str(httpx2.URL(MODELS, params={"limit": 2, "search": word, **wanted}))
        while address:
            answer = grace.client.get(address)
            assert answer.status_code == 200, answer.text
            found += answer.json()["items"]
            address = answer.links["next"]["url"] if "next" in answer.links else None
        return found

    letters = {"name": "abcde", "created_at": "dbaec", "updated_at": "dbaec"}
    for sort, ascending in letters.items():
        for order, expected in (("asc", ascending), ("desc", ascending[::-1])):
            assert [model["name"][-1] for model in all_of(sort=sort, order=order)] == list(expected), (sort, order)
    assert [model["downloads"] for model in all_of(sort="downloads")] == [30, 7, 7, 1, 0]
    assert [model["rating"] for model in all_of(sort="rating")] == [5, 3, 3, 1, None]
    assert [model["rating"] for model in all_of(sort="rating", order="asc")] == [None, 1, 3, 3, 5]
    problem(grace.client.get(MODELS, params={"sort": "rating", "cursor": "!"}), 400, "invalid_cursor")
    problem(grace.client.get(MODELS, params={"sort": "size"}), 422, "invalid_field")


def test_a_list_of_any_length_takes_one_query(join: Join, word: str, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    ada = join().client
    for number in range(3):
        make(ada, f"{word}-{number}")
    seen: list[str] = []

    def told(*arguments: Any) -> None:
        if "FROM models" in arguments[2] or "FROM versions" in arguments[2]:
            seen.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", told)
    try:
        assert len(names(ada, limit=3)) == 3
    finally:
        event.remove(Engine, "before_cursor_execute", told)
    assert len(seen) == 1


def test_many_versions_are_looked_for_at_once(ada: httpx2.Client, submit: Submit, word: str, join: Join) -> None:
    for name in ("one", "one", "two"):
        submit(model=f"{word}-{name}")

    def found(queries: list[dict[str, str]], **more: Any) -> list[tuple[str, str]]:
        answer = ada.post(f"{MODELS}:query", json=queries, params=more)
        assert answer.status_code == 200, answer.text
        mine = [each for each in answer.json()["items"] if each["name"].startswith(word)]
        return [(each["name"][len(word) + 1 :], each["version"]) for each in mine]

    ours = [{"regex": f"^{word}-"}]

    everything = [("one", "1.1.0"), ("one", "1.0.0"), ("two", "1.0.0")]
    assert found([], limit=100) == found(ours) == everything
    assert found(ours, offset=1, limit=1) == everything[1:2]
    assert found([{"name": f"{word}-one", "version": "v1"}]) == [("one", "1.0.0")]
    assert found([{"name": f"{word}-one", "version": "1.1.0"}, {"regex": "two$"}]) == [
        ("one", "1.1.0"),
        ("two", "1.0.0"),
    ]
    assert found([{"name": f"{word}-one", "regex": "two$"}]) == []
    whole = ada.post(f"{MODELS}:query", json=ours).json()
    assert (whole["total"], whole["offset"], whole["limit"]) == (3, 0, 50)
    assert ada.get(whole["items"][0]["links"]["self"]).json()["version"] == "1.1.0"
    problem(ada.post(f"{MODELS}:query", json=[{"regex": "["}]), 422, "invalid_pattern")
    problem(ada.post(f"{MODELS}:query", json=[{"version": "newest"}]), 422, "invalid_field")
    assert join().client.post(f"{MODELS}:query", json=ours).json()["total"] == 0


# Named


def test_a_name_that_looks_like_somebody_s_is_refused_and_one_that_is_near_is_asked_about(
    join: Join, word: str
) -> None:
    ada, mallory, admin = join(), join(), join("admin")
    make(ada.client, word)
    make(mallory.client, word.upper())  # ada's is private: mallory learns nothing of it
    problem(mallory.client.patch(f"{MODELS}/{word.upper()}", json={"visibility": "secret"}), 422, "invalid_field")
    assert ada.client.patch(f"{MODELS}/{word}", json={"visibility": "public"}).status_code == 200
    problem(mallory.client.patch(f"{MODELS}/{word.upper()}", json={"visibility": "public"}), 409, "name_confusable")
    blocked = problem(mallory.client.post(MODELS, json={"name": f"{word[:3]}_{word[3:]}"}), 409, "name_confusable")
    assert {"name": word, "owner": ada.username, "relation": "looks_the_same"} in blocked["details"]  # type: ignore[operator]
    near = word + "x"
    problem(mallory.client.post(MODELS, json={"name": near}), 409, "name_unconfirmed")
    asked = mallory.client.get(f"{MODELS}:check-name", params={"name": near}).json()
    assert (asked["outcome"], asked["similar"][0]["relation"]) == ("warn", "one_typo_away")
    make(mallory.client, near, confirm_name=True)
    make(join().client, word)  # whose it is tells the same name apart

    problem(mallory.client.get("/api/v1/name-checks"), 403, "forbidden")
    listed = admin.client.get("/api/v1/name-checks", params={"limit": 100}).json()["items"]
    mine = [
        (each["name"], each["outcome"], each["confirmed"]) for each in listed if each["asked_by"] == mallory.username
    ]
    assert mine[::-1] == [
        (word.upper(), "fine", False),
        (word.upper(), "block", True),
        (f"{word[:3]}_{word[3:]}", "block", False),
        (near, "warn", False),
        (near, "warn", False),
        (near, "warn", True),
    ]
    first = admin.client.get("/api/v1/name-checks", params={"limit": 1})
    assert admin.client.get(first.links["next"]["url"]).json()["items"][0]["id"] < first.json()["items"][0]["id"]


def test_an_upload_under_such_a_name_is_refused_too(join: Join, word: str) -> None:
    ada = join().client
    make(ada, word)

    def upload(name: str, confirm: str = "") -> httpx2.Response:
        def part(field: str, content: bytes, more: str = "") -> bytes:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{more}\r\n\r\n'
            return head.encode() + content + b"\r\n"

        body = part("name", name.encode()) + part("confirm_name", confirm.encode())
        body += part("file", onnx(), '; filename="m.onnx"') + END
        return ada.post(f"{MODELS}/upload", content=body, headers={"Content-Type": CONTENT_TYPE})

    problem(upload(word.upper(), "true"), 409, "name_confusable")
    problem(upload(word + "z"), 409, "name_unconfirmed")
    assert upload(word + "z", "true").status_code == 202
    assert upload(word).status_code == 202


def test_of_two_that_look_the_same_at_once_only_one_is_made(join: Join, word: str) -> None:
    """Each of several people makes a public model; whoever is first has the name, whatever the order."""
    shapes = (word, word.upper(), f"{word[:4]}-{word[4:]}", f"{word}_")
    people = [join() for _ in shapes]
    start = threading.Barrier(len(shapes))
    answers: list[int] = []

    def attempt(person: Person, name: str) -> None:
        start.wait()
        answers.append(person.client.post(MODELS, json={"name": name, "visibility": "public"}).status_code)

    threads = [threading.Thread(target=attempt, args=pair) for pair in zip(people, shapes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 409, 409, 409]


# Rated


def test_others_rate_a_model_once_each_and_it_shows_the_average(join: Join, word: str) -> None:
    ada, grace, alan = join(), join(), join()
    made = make(ada.client, word, visibility="public")
    path = f"{MODELS}/{made['id']}"
    problem(ada.client.put(f"{path}/rating", json={"score": 5}), 403, "own_model")
    for score in (0, 6, "five"):
        problem(grace.client.put(f"{path}/rating", json={"score": score}), 422, "invalid_field")
    problem(grace.client.put(f"{path}/rating", json={"score": 4, "version": "9"}), 404, "version_not_found")
    said = grace.client.put(f"{path}/rating", json={"score": 1, "review": "Not yet."}).json()
    assert (said["user"], said["score"], said["review"]) == (grace.username, 1, "Not yet.")
    assert grace.client.put(f"{path}/rating", json={"score": 4}).json()["created_at"] == said["created_at"]
    assert alan.client.put(f"{path}/rating", json={"score": 5}).status_code == 200
    assert (ada.client.get(path).json()["rating"], ada.client.get(path).json()["ratings"]) == (4.5, 2)
    first = ada.client.get(f"{path}/ratings", params={"limit": 1})
    assert (first.json()["items"][0]["user"], first.json()["average"], first.json()["count"]) == (alan.username, 4.5, 2)
    assert ada.client.get(first.links["next"]["url"]).json()["items"][0]["user"] == grace.username
    assert alan.client.delete(f"{path}/rating").status_code == 204
    problem(alan.client.delete(f"{path}/rating"), 404, "rating_not_found")
    assert ada.client.get(path).json()["rating"] == 4


# Deleted


def test_a_deleted_model_is_gone_until_it_is_restored(join: Join, word: str, begin: Begin) -> None:
    ada, admin = join(*ALL), join("admin")
    made = make(ada.client, word, visibility="public")
    path = f"{MODELS}/{made['id']}"
    problem(join().client.delete(path), 403, "forbidden")
    problem(join(*ALL).client.delete(path), 403, "not_granted")
    gone = ada.client.delete(path).json()
    assert gone["name"] == word
    assert gone["restorable_until"] > gone["deleted_at"]
    problem(ada.client.get(path), 404, "model_not_found")
    assert names(ada.client, search=word) == names(admin.client, search=word) == []
    assert names(ada.client, deleted=True) == [word]
    assert names(join().client, deleted=True) == []
    problem(ada.client.post(MODELS, json={"name": word}), 409, "name_in_use_by_deleted")
    problem(join(*ALL).client.post(f"{path}:restore"), 404, "model_not_found")
    assert ada.client.post(f"{MODELS}/{word}:restore").json()["deleted_at"] is None
    assert ada.client.get(path).json()["name"] == word
    problem(ada.client.post(f"{path}:restore"), 404, "model_not_found")

    assert ada.client.delete(path).status_code == 200
    sql(begin, "UPDATE models SET deleted_at = now() - interval '31 days' WHERE id = :id", id=made["id"])
    problem(ada.client.post(f"{path}:restore"), 409, "retention_over")
    problem(ada.client.delete(path, params={"purge": True}), 403, "forbidden")
    assert admin.client.delete(path, params={"purge": True}).json()["restorable_until"] is None
    assert names(ada.client, deleted=True) == []
    make(ada.client, word)
    trail = admin.client.get("/api/v1/audit", params={"subject": made["id"]}).json()["items"]
    assert [entry["action"] for entry in trail] == [
        "model.purged",
        "model.deleted",
        "model.restored",
        "model.deleted",
        "model.created",
    ]


def test_a_purge_names_the_runs_that_have_to_be_cancelled_first(submit: Submit, join: Join, word: str) -> None:
    admin, run_id = join("admin").client, submit(model=word)
    path = f"{MODELS}/{admin.get(f'/api/v1/runs/{run_id}').json()['links']['model'].rsplit('/', 1)[1]}"
    for _ in ("live", "deleted"):
        told = problem(admin.delete(path, params={"purge": True}), 409, "runs_under_way")
        assert (told["details"], "/cancel" in told["hint"]) == ([str(run_id)], True)
        admin.delete(path)
    assert admin.post(f"/api/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
    assert admin.delete(path, params={"purge": True}).json()["name"] == word
    problem(admin.get(f"/api/v1/runs/{run_id}"), 404, "run_not_found")


def test_what_is_live_or_has_an_alias_is_not_deleted(
    submit: Submit, owner: UUID, url: str, parts: Any, begin: Begin, word: str
) -> None:
    from tests.integration.api_fixtures import signed_in

    sql(begin, "UPDATE users SET permissions = permissions || '{models:delete}' WHERE id = :id", id=owner)
    runs = [submit(model=word) for _ in range(2)]
    with begin() as session:
        first = store.version_of(session, runs[0])
    with signed_in(url, parts.tokens.issue(str(owner))) as ada:
        model = ada.get(f"{MODELS}/{word}").json()["id"]
        ids = {"model": model, "version": first, "by": owner}
        sql(
            begin,
            "INSERT INTO aliases (model_id, name, version_id) VALUES (:model, 'default', :version)",
            model=model,
            version=first,
        )
        refused = problem(ada.delete(f"{MODELS}/{word}/versions/1.0.0"), 409, "version_has_alias")
        assert refused["details"] == ["default"]
        sql(begin, "DELETE FROM aliases WHERE model_id = :model", model=model)
        sql(
            begin,
            "INSERT INTO deployments (model_id, version_id, target, deployed_by) VALUES (:model, :version, 'production', :by)",
            **ids,
        )
        assert ada.get(f"{MODELS}/{word}").json()["stages"] == ["production"]
        problem(ada.delete(f"{MODELS}/{word}/versions/1.0.0"), 409, "version_deployed")
        archive = {"status": "archived", "reason": "old"}
        problem(ada.put(f"{MODELS}/{word}/versions/1.0.0/status", json=archive), 409, "version_deployed")
        assert problem(ada.delete(f"{MODELS}/{word}"), 409, "model_deployed")["details"] == ["production"]
        assert names(ada, stage="production") == [word]
        sql(begin, "UPDATE deployments SET status = 'ended', ended_at = now() WHERE model_id = :model", model=model)

        assert ada.delete(f"{MODELS}/{word}/versions/1.1.0").json()["name"] == "1.1.0"
        problem(ada.get(f"{MODELS}/{word}/versions/1.1.0"), 404, "version_not_found")
        assert ada.get(f"{MODELS}/{word}").json()["latest"]["version"] == "1.0.0"
        assert ada.post(f"{MODELS}:query", json=[{"name": word}]).json()["total"] == 1
        problem(ada.post(f"{MODELS}/{word}/versions/1.0.0:restore"), 404, "version_not_found")
        assert ada.post(f"{MODELS}/{word}/versions/2:restore").json()["version"] == "1.1.0"
        assert ada.delete(f"{MODELS}/{word}/versions/1.0.0").status_code == 200
        submit(model=word)
        assert ada.get(f"{MODELS}/{word}").json()["latest"]["version"] == "1.2.0"  # numbers are never used again


# With the client


def test_the_client_keeps_models_from_the_first_to_the_last(
    join: Join, word: str, url: str, parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from slipway import Client, Conflict
    from slipway.cli import app as commands
    from typer.testing import CliRunner

    ada, grace = join(*ALL), join()

    def slipway(*arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, without the log of the server, which is a thread here."""
        done = CliRunner().invoke(commands, arguments, prog_name="slipway")
        lines = done.stdout.splitlines(keepends=True)
        return done.exit_code, "".join(line for line in lines if "http.request" not in line), done.stderr

    monkeypatch.setenv("SLIPWAY_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("SLIPWAY_URL", url)
    monkeypatch.setenv("SLIPWAY_TOKEN", parts.tokens.issue(str(ada.id)))
    (tmp_path / "card.md").write_text("# Reads digits")
    made = slipway("model", "create", word, "--licence", "mit", "--tag", "demo", "--public", "-q")
    assert made == (0, f"{word}\n", "")
    assert slipway("model", "create", word.upper())[0] == 6
    assert slipway("model", "change", word)[0] == 2
    changed = slipway("model", "change", word, "--card", str(tmp_path / "card.md"), "--description", "Digits", "--json")
    assert json.loads(changed[1])["revision"] == 2
    assert slipway("model", "card", word, "-q")[1] == "# Reads digits\n"
    for found in (("--search", "digits", "--tag", "demo"), (word[:8],), ("--regex", f"^{word}$", "--sort", "rating")):
        assert slipway("models", *found, "-q")[1] == f"{word}\n", found

    with Client(url, parts.tokens.issue(str(grace.id))) as client:
        theirs = f"{ada.username}/{word}"
        assert client.models.rate(theirs, 4, review="Fine.").score == 4
        assert [rating.review for rating in client.models.ratings(theirs)] == ["Fine."]
        assert client.model(theirs).rating == 4
        client.models.withdraw_rating(theirs)
        assert client.models.check_name(word.upper()).outcome == "block"
        assert list(client.models.find_versions([{"name": theirs}])) == []
        seen = client.models.create(f"{word}-grace-s")
        client.models.change(seen.name, expected=seen.etag, tags=["a"])
        with pytest.raises(Conflict, match="changed since you read it"):
            client.models.change(seen.name, expected=seen.etag, tags=["b"])

    gone = slipway("model", "delete", word)
    assert (gone[0], f"slipway model restore {word}" in gone[2]) == (0, True)
    assert slipway("models", "--deleted", "-q")[1] == f"{word}\n"
    assert slipway("model", "restore", word)[0] == 0
    assert "Digits" in slipway("show", word)[1]
