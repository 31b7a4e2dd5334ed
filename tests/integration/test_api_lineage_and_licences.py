"""Lineage, licence checks and net scores as clients see them, with a real endpoint that plays GitHub."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx2
import pytest
from slipway import Client
from sqlalchemy import text

from pipeline import engine, store
from pipeline.run import Purpose, Step
from registry import audit
from registry.scoring import WEIGHTS
from shared.db import Begin
from shared.settings import Settings
from tests.integration.api_fixtures import (
    Person,
    ada,
    app,
    join,
    parts,
    problem,
    served,
    url,
)
from tests.integration.github_endpoint import endpoint
from tests.integration.test_api_models import CANONICAL, FAST, PUBLISHED, entry
from tests.integration.test_api_runs import move
from tests.integration.upload_fixtures import onnx

Submit = Callable[..., UUID]


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Iterator[Settings]:
    with endpoint() as (address, _):
        yield Settings(github_api_url=address, github_private=True, project_licence="Apache-2.0")


def at(model: str, version: str = "1.0.0") -> str:
    return f"/api/v1/models/{model}/versions/{version}/lineage"


def declare(client: httpx2.Client, child: str, parent: str, relation: str = "derived-from") -> httpx2.Response:
    name, _, version = child.partition("@")
    return client.post(at(name, version or "1.0.0"), json={"relation": relation, "parent": parent})


def drawn(client: httpx2.Client, model: str, **wanted: Any) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """Names by depth, and the edges by name."""
    answer = client.get(at(model), params=wanted)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    names = {node["id"]: node["name"] or node["id"] for node in body["nodes"]}
    assert len(names) == len(body["nodes"])
    edges = {(names[edge["child"]], names[edge["parent"]]) for edge in body["edges"]}
    return {names[node["id"]]: node["depth"] for node in body["nodes"]}, edges


def test_a_family_is_drawn_up_and_down_as_deep_as_one_asks(ada: httpx2.Client, submit: Submit) -> None:
    for name in ("base", "middle", "side", "leaf"):
        submit(model=name)
    for child, parent in (("middle", "base@1.0.0"), ("side", "base@1"), ("leaf", "middle"), ("leaf", "side@latest")):
        assert declare(ada, child, parent).status_code == 201
    dataset = {"relation": "dataset", "reference": "https://data.example/digits", "note": "cleaned"}
    assert ada.post(at("base"), json=dataset).status_code == 201

    family = {("middle", "base"), ("side", "base"), ("leaf", "middle"), ("leaf", "side")}
    told = ("base", dataset["reference"])
    assert drawn(ada, "leaf") == (
        {"leaf": 0, "middle": 1, "side": 1, "base": 2, dataset["reference"]: 3},
        family | {told},
    )
    assert drawn(ada, "base", direction="down") == ({"base": 0, "middle": -1, "side": -1, "leaf": -2}, family)
    assert drawn(ada, "middle") == (
        {"middle": 0, "base": 1, dataset["reference"]: 2, "leaf": -1},
        {("middle", "base"), ("leaf", "middle"), told},
    )
    assert drawn(ada, "leaf", depth=1)[0] == {"leaf": 0, "middle": 1, "side": 1}
    assert [ada.get(at("leaf"), params={"depth": depth}).json()["complete"] for depth in (1, 2)] == [False, True]
    listed = ada.get(at("leaf"), params={"direction": "up"}).json()["lineage"]
    assert [(one["name"], one["version"], one["depth"]) for one in listed] == [
        ("leaf", "1.0.0", 0),
        ("middle", "1.0.0", 1),
        ("side", "1.0.0", 1),
        ("base", "1.0.0", 2),
    ]
    problem(ada.get(at("leaf"), params={"depth": 0}), 422, "invalid_field")


def test_a_parent_is_taken_back_and_both_are_in_the_audit_trail(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    submit(model="base")
    submit(model="leaf")
    edge = declare(ada, "leaf", "base@1.0.0", "fine-tuned-from").json()
    problem(declare(ada, "leaf", "base@1.0.0", "fine-tuned-from"), 409, "edge_exists")
    assert declare(ada, "leaf", "base@1.0.0").status_code == 201  # another relation is another edge
    problem(ada.delete(f"{at('base')}/{edge['id']}"), 404, "edge_not_found")
    assert ada.delete(f"{at('leaf')}/{edge['id']}").status_code == 204
    problem(ada.delete(f"{at('leaf')}/{edge['id']}"), 404, "edge_not_found")
    with begin() as session:
        told = [(row.action, row.details["relation"]) for row in audit.entries(session, subject=edge["child"])]
    assert told == [
        ("lineage.removed", "fine-tuned-from"),
        ("lineage.declared", "derived-from"),
        ("lineage.declared", "fine-tuned-from"),
    ]


def test_what_makes_no_sense_as_a_parent_is_refused(ada: httpx2.Client, submit: Submit) -> None:
    submit(model="leaf")
    for body in (
        {"relation": "dataset", "parent": "leaf@1.0.0"},
        {"relation": "derived-from"},
        {"relation": "derived-from", "parent": "leaf@1.0.0", "reference": "https://hub.example/base"},
        {"relation": "derived-from", "parent": "nothing@1.0.0"},
        {"relation": "derived-from", "parent": "leaf@9.0.0"},
        {"relation": "code", "reference": "javascript:alert(1)"},
    ):
        problem(ada.post(at("leaf"), json=body), 422, "invalid_parent")
    problem(ada.post(at("leaf"), json={"relation": "friend", "parent": "leaf"}), 422, "invalid_field")


def test_a_circle_is_refused_with_its_path(ada: httpx2.Client, submit: Submit) -> None:
    for name in ("a", "b", "c"):
        submit(model=name)
    assert declare(ada, "b", "a@1.0.0").status_code == 201
    assert declare(ada, "c", "b@1.0.0").status_code == 201
    refused = problem(declare(ada, "a", "c@1.0.0"), 409, "lineage_cycle")
    owner = ada.get("/api/v1/models/a").json()["owner"]
    assert refused["details"] == {"path": [f"{owner}/{name}@1.0.0" for name in ("a", "c", "b", "a")]}
    problem(declare(ada, "a", "a@1.0.0"), 409, "lineage_cycle")


def test_two_who_would_close_a_circle_together_are_not_both_let(ada: httpx2.Client, submit: Submit, url: str) -> None:
    names = [f"ring-{number}" for number in range(4)]
    for name in names:
        submit(model=name)

    def add(number: int) -> int:
        with httpx2.Client(base_url=url, headers=ada.headers, timeout=20) as client:
            return declare(client, names[number], f"{names[(number + 1) % 4]}@1.0.0").status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(add, range(4))) == [201, 201, 201, 409]


def test_what_one_may_not_see_has_no_name_and_hides_what_lies_behind_it(
    ada: httpx2.Client, submit: Submit, begin: Begin, join: Callable[..., Person]
) -> None:
    for name in ("root", "secret", "open"):
        submit(model=name)
    assert declare(ada, "secret", "root@1.0.0").status_code == 201
    note = {"relation": "derived-from", "parent": "secret@1.0.0", "note": "said by its owner"}
    assert ada.post(at("open"), json=note).status_code == 201
    ids = {name: ada.get(f"/api/v1/models/{name}").json()["id"] for name in ("root", "secret", "open")}
    with begin() as session:
        public = text("UPDATE models SET visibility = 'public' WHERE id IN (:open, :root)")
        session.execute(public, {"open": ids["open"], "root": ids["root"]})
    helper = join()
    stranger = join().client
    seen = stranger.get(at(ids["open"]))
    assert drawn(stranger, ids["open"]) == ({"open": 0, "hidden-1": 1}, {("open", "hidden-1")})
    hidden = next(node for node in seen.json()["nodes"] if node["hidden"])
    assert set(hidden.values()) == {"hidden-1", "version", 1, None}
    assert "secret" not in seen.text
    assert ada.get(at("secret")).json()["id"] not in seen.text
    below = stranger.get(at(ids["root"]), params={"direction": "down"}).json()
    assert [node["hidden"] for node in below["nodes"]] == [False, True]  # and open, which comes from it, is not told
    assert "said by its owner" not in str(below)

    problem(declare(stranger, ids["open"], "root@1.0.0"), 403, "not_granted")
    problem(stranger.get(at(ids["secret"])), 404, "model_not_found")
    with begin() as session:  # a circle through what one may not see is one too
        grant = text(
            "INSERT INTO grants (model_id, user_id, permission, granted_by) VALUES (:model, :user, :may, :user)"
        )
        session.execute(grant, {"model": ids["root"], "user": helper.id, "may": "models:upload"})
    refused = problem(declare(helper.client, ids["root"], f"{ids['open']}@1.0.0"), 409, "lineage_cycle")
    assert refused["details"]["path"][2] == "(not yours)"


def test_what_is_deleted_is_hidden_from_its_owner_too(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    submit(model="base")
    submit(model="leaf")
    assert declare(ada, "leaf", "base@1.0.0").status_code == 201
    with begin() as session:
        gone = text("UPDATE models SET deleted_at = now() WHERE id = :id")
        session.execute(gone, {"id": ada.get("/api/v1/models/base").json()["id"]})
    assert drawn(ada, "leaf")[0] == {"leaf": 0, "hidden-1": 1}


def test_parents_are_declared_with_the_upload_too(ada: httpx2.Client, submit: Submit) -> None:
    submit(model="digits")
    said = {
        "name": "digits",
        "parent": "digits@latest",
        "model_url": "https://huggingface.co/org/base",
        "dataset_url": "https://data.example/digits",
        "code_url": "https://github.com/org/training",
    }
    files = {"model_file": ("digits.onnx", onnx(), "application/octet-stream")}
    sent = ada.post("/api/v1/models/upload", data=said, files=files)
    assert sent.status_code == 202, sent.text
    body = ada.get(at("digits", "1.1.0")).json()
    names = {node["id"]: node["version"] or node["name"] for node in body["nodes"]}
    assert {(edge["relation"], names[edge["parent"]]) for edge in body["edges"]} == {
        ("derived-from", "1.0.0"),
        ("derived-from", said["model_url"]),
        ("dataset", said["dataset_url"]),
        ("code", said["code_url"]),
    }
    before = len(ada.get("/api/v1/models/digits/versions").json()["items"])
    lost = ada.post("/api/v1/models/upload", data=said | {"parent": "nothing@1.0.0"}, files=files)
    problem(lost, 422, "invalid_parent")
    assert len(ada.get("/api/v1/models/digits/versions").json()["items"]) == before


def test_artifacts_are_drawn_by_digest_from_the_upload_down(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    source, canonical, fast, typed, engine_ = (letter * 64 for letter in "cbdef")
    made = [
        (CANONICAL, "canonical", canonical, source),
        ("onnx-fp32-optimized", "variant", canonical, canonical),  # nothing was left to optimise
        (FAST, "variant", fast, canonical),
        ("tensorrt-fp16@sm90", "variant", engine_, typed),  # of a graph that was not kept
    ]
    published = [
        entry(name, role, f"sha256/{name}") | {"sha256": sha256, "meta": {"parent": parent}}
        for name, role, sha256, parent in made
    ]
    run_id = submit("scan", "promote", model="digits", sha256=source)
    move(begin, run_id, "scan", {"facts": {"verdict": "clean"}, "files": []})
    move(begin, run_id, "promote", {"facts": {"published": published}, "files": []})
    body = ada.get(at("digits")).json()
    assert {(node["kind"], node["name"], node["sha256"]) for node in body["nodes"]} == {
        ("version", "digits", source),
        ("artifact", "source", source),
        ("artifact", f"{CANONICAL}, onnx-fp32-optimized", canonical),
        ("artifact", FAST, fast),
        ("artifact", None, typed),
        ("artifact", "tensorrt-fp16@sm90", engine_),
    }
    edges = {(edge["id"], edge["child"], edge["parent"], edge["relation"]) for edge in body["edges"]}
    assert edges == {
        (None, f"sha256:{child}", f"sha256:{parent}", "converted-from")
        for child, parent in ((canonical, source), (fast, canonical), (engine_, typed))
    }


CHECK = "/api/v1/licence-check"
HUB = "https://github.com/ada"


@pytest.fixture
def model(ada: httpx2.Client, submit: Submit, begin: Begin) -> str:
    """A model of ada's under the MIT licence, by its id."""
    submit(model="digits")
    found: str = ada.get("/api/v1/models/digits").json()["id"]
    with begin() as session:
        session.execute(text("UPDATE models SET licence = 'MIT' WHERE id = :id"), {"id": found})
    return found


def check(client: httpx2.Client, model: str, **body: Any) -> dict[str, Any]:
    answer = client.post(CHECK, json=body | {"model_id": model})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_repository_s_licence_is_held_against_the_model_s(ada: httpx2.Client, model: str) -> None:
    body = {"github_url": f"{HUB}/sorter", "model_id": model}
    answer = ada.post(CHECK, json=body)
    assert answer.json() == {
        "answer": "compatible",
        "compatible": True,
        "project_licence": "GPL-3.0-only",
        "model_licence": "MIT",
        "model_families": ["permissive"],
        "model_id": model,
        "reason": "MIT may be part of a work under GPL-3.0-only.",
        "warnings": ["Keep the model's copyright and licence notices."],
    }
    here = ada.post("/api/v1/models/digits/licence-check", json={"github_url": f"{HUB}/sorter"})
    assert here.json() == answer.json()
    assert check(ada, model, github_url=f"{HUB}/own-text")["project_licence"] == "MIT"
    assert check(ada, model, github_url=f"{HUB}/unrecognised")["compatible"] is None


def test_a_licence_may_be_given_by_name_or_as_its_text(ada: httpx2.Client, model: str, begin: Begin) -> None:
    assert check(ada, "digits", licence="gpl-2.0 or mit")["project_licence"] == "GPL-2.0-only OR MIT"
    assert check(ada, model, text="SPDX-License-Identifier: ISC")["project_licence"] == "ISC"
    lost = check(ada, model, text="Do as you please.")
    assert (lost["answer"], lost["compatible"], lost["project_licence"]) == ("unknown", None, None)
    with begin() as session:
        said = text('UPDATE versions SET declared = \'{"licence": "GPL-3.0"}\' WHERE model_id = :id')
        session.execute(said, {"id": model})
    refused = check(ada, model, licence="MIT", version="1.0.0")  # what the version says counts more
    assert (refused["answer"], refused["compatible"], refused["model_licence"]) == (
        "incompatible",
        False,
        "GPL-3.0-only",
    )
    with begin() as session:
        session.execute(text("UPDATE versions SET declared = '{}' WHERE model_id = :id"), {"id": model})
        session.execute(text("UPDATE models SET licence = NULL WHERE id = :id"), {"id": model})
    assert "declares no licence" in check(ada, model, licence="MIT")["reason"]


def test_questions_that_cannot_be_answered_say_whose_fault_that_is(
    ada: httpx2.Client, model: str, join: Callable[..., Person]
) -> None:
    for body in (
        {},
        {"licence": "MIT", "text": "MIT"},
        {"licence": "MIT or"},
        {"github_url": "https://gitlab.com/a/b"},
    ):
        problem(ada.post(CHECK, json=body | {"model_id": model}), 422, "invalid_field")
    problem(ada.post(CHECK, json={"github_url": f"{HUB}/nothing", "model_id": model}), 422, "repository_unknown")
    away = ada.post(CHECK, json={"github_url": f"{HUB}/limited", "model_id": model})
    problem(away, 503, "github_unavailable")
    assert away.headers["retry-after"]
    problem(ada.post(CHECK, json={"licence": "MIT", "model_id": "nothing"}), 404, "model_not_found")
    problem(ada.post(CHECK, json={"licence": "MIT", "model_id": model, "version": "9"}), 404, "version_not_found")
    problem(join().client.post(CHECK, json={"licence": "MIT", "model_id": model}), 404, "model_not_found")


SCORE = "/api/v1/models/digits/versions/{}/score"


def scored(client: httpx2.Client, version: str = "1.0.0") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    answer = client.get(SCORE.format(version))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body, {one["name"]: one for one in body["sub_scores"]}


def test_a_score_says_what_it_stands_on_and_grows_with_the_evidence(
    ada: httpx2.Client, model: str, owner: UUID, begin: Begin, submit: Submit, join: Callable[..., Person]
) -> None:
    bare, subs = scored(ada)
    assert (subs["licence"]["value"], subs["performance_claims"]["value"], subs["lineage"]["value"]) == (1, None, None)
    assert subs["licence"]["because"] == "MIT may be part of works under any licence, Apache-2.0 too"
    assert bare["known"] < 1

    accuracy = {"samples": 300, "reference": 0.97, "candidate": 0.96}
    measured = {
        "scan": {"verdict": "clean", "stops": []},
        "convert": {"verification": {"accuracy": accuracy}},
        "optimize": {
            "variants": [{"name": FAST, "verified": True, "verification": {"accuracy": accuracy | {"candidate": 0.95}}}]
        },
        "benchmark": {"rows": [{"name": FAST, "speedup": 2.0, "verdict": "faster"}]},
        "promote": {"published": [one | {"meta": {"toolchain": {"onnx": "1"}}, "size": 1 << 20} for one in PUBLISHED]},
    }
    run_id = submit(*measured, model="digits")
    for stage, facts in measured.items():
        move(begin, run_id, stage, {"facts": facts, "files": []})
    reviewer = join().id
    with begin() as session:
        version_id = store.version_of(session, run_id)
        given = {"version": version_id, "model": model, "owner": owner, "reviewer": reviewer}
        for statement in (
            "INSERT INTO metrics (version_id, name, value, dataset, recorded_by) VALUES (:version, 'accuracy', 0.975, 'digits', :owner)",
            "INSERT INTO approvals (version_id, target, approved_by) VALUES (:version, 'production', :reviewer), (:version, '*', :owner)",
            "INSERT INTO ratings (model_id, user_id, score) VALUES (:model, :reviewer, 5), (:model, :owner, 4)",
        ):
            session.execute(text(statement), given)
    for body in (
        {"relation": "dataset", "reference": "https://data.example/digits"},
        {"relation": "code", "reference": "https://git.example/training"},
        {"relation": "fine-tuned-from", "parent": "digits@1.0.0"},
    ):
        assert ada.post("/api/v1/models/digits/versions/1.1.0/lineage", json=body).status_code == 201
    full, subs = scored(ada, "1.1.0")
    assert subs["dataset_and_code"]["value"] == 1
    assert subs["performance_claims"]["because"] == "accuracy 0.975 claimed, 0.95 measured on 300 samples"
    assert subs["performance_claims"]["value"] == 0.5
    assert subs["size"]["because"] == "its best form has 1,048,576 bytes"
    assert subs["reviewedness"]["because"].startswith("1 approval, 0 waivers")
    assert subs["reviewedness"]["parts"]["ratings"] == pytest.approx(0.25 * 3.5 / 4, abs=1e-3)
    assert subs["lineage"]["value"] == scored(ada)[0]["net_score"]
    assert subs["reproducibility"]["because"].startswith("nobody has rebuilt it")
    assert (full["known"], full["net_score"] > bare["net_score"]) == (1, True)


def test_a_rebuild_that_gave_the_same_bytes_counts(
    ada: httpx2.Client, submit: Submit, begin: Begin, owner: UUID
) -> None:
    run_id = submit("scan", "promote", model="digits")
    for stage, facts in (("scan", {"verdict": "clean"}), ("promote", {"published": PUBLISHED})):
        move(begin, run_id, stage, {"facts": facts, "files": []})
    assert scored(ada)[1]["reproducibility"]["value"] == 0
    with begin() as session:
        version_id = store.version_of(session, run_id)
        plan = [Step(stage="compare", queue="default", max_attempts=1, time_limit=60)]
        again = engine.submit(session, version_id=version_id, owner_id=owner, plan=plan, purpose=Purpose.REBUILD).id
    move(begin, again, "compare", {"facts": {"same": True, "artifacts": [], "toolchain": {}}, "files": []})
    found = scored(ada)[1]["reproducibility"]
    assert (found["value"], found["because"].partition(";")[0]) == (0.5, "a rebuild gave the same bytes")


def test_the_client_understands_all_of_it(ada: httpx2.Client, model: str, submit: Submit, url: str) -> None:
    submit(model="base")
    with Client(url, ada.headers["Authorization"].removeprefix("Bearer ")) as slipway:
        edge = slipway.lineage.declare("digits@1.0.0", "fine-tuned-from", parent="base@1.0.0", note="two epochs")
        found = slipway.lineage.read("digits", direction="up")
        assert [(node.name, node.depth, node.hidden) for node in found.nodes] == [
            ("digits", 0, False),
            ("base", 1, False),
        ]
        assert found.edges == (edge,)
        slipway.lineage.remove("digits@latest", edge.id or "")
        assert slipway.lineage.read("digits").edges == ()
        answer = slipway.licences.check("digits", github_url=f"{HUB}/sorter")
        assert (answer.answer, answer.project_licence, answer.model_licence) == ("compatible", "GPL-3.0-only", "MIT")
        score = slipway.scores.read("digits@1")
        assert (score.version, {one.name for one in score.sub_scores}) == ("1.0.0", set(WEIGHTS))
        assert 0 < score.net_score < score.known < 1
