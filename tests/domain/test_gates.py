"""What gates say of evidence: only what is known and good enough passes, and a refusal names the least that would do."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.demands import bounded, smallest
from registry.errors import Invalid
from registry.gates import ALWAYS, Gate, checked, facts, promotability, rivals_asked
from registry.rules import RULES, VALID, Evidence, Form, Metric, Rival

FORM = Form(name="onnx-fp32", size=1000, verified=True, p99_ms={"cpu": 5.3})
KNOWN = Evidence(
    target="production",
    version="1.1.0",
    uploader="ada",
    verdict="clean",
    published=True,
    status="approved",
    size=4000,
    licence="MIT",
    forms=(FORM,),
    best={"cpu": "onnx-fp32"},
    metrics=(Metric(name="accuracy", value=0.9, dataset="holdout"), Metric(name="loss", value=0.4)),
    approved_by=frozenset({"grace"}),
    seal=VALID,
    rivals={"production": Rival(version="1.0.0", metrics=[Metric(name="accuracy", value=0.92, dataset="holdout")])},
)


def gate(rule: str, target: str = "*", **parameters: Any) -> Gate:
    return Gate(id=uuid4(), rule=rule, target=target, parameters=parameters, scope="model")


def said(evidence: Evidence, rule: str, **parameters: Any) -> tuple[str, str | None]:
    """State, and what would do, of one gate."""
    (outcome,) = promotability(evidence, [gate(rule, **parameters)]).outcomes[len(ALWAYS) :]
    return outcome.state, outcome.needed


@pytest.mark.parametrize(
    ("changes", "rule", "parameters", "state", "needed"),
    [
        ({}, "verified", {}, "passed", None),
        (
            {"forms": [replace(FORM, verified=False, reason="12 flips")]},
            "verified",
            {},
            "failed",
            "verification of the servable forms: onnx-fp32 is not: 12 flips → within budget",
        ),
        (
            {"forms": [replace(FORM, verified=None)]},
            "verified",
            {},
            "unknown",
            "verification of the servable forms: unknown (nobody compared onnx-fp32 with the source) → within budget",
        ),
        ({}, "p99_below", {"ms": 5.3}, "passed", None),
        ({}, "p99_below", {"ms": 4}, "failed", "p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms"),
        (
            {},
            "p99_below",
            {"ms": 4, "device": "sm90"},
            "unknown",
            "p99 of the best form on sm90: unknown (nothing of it was measured on sm90) → ≤ 4 ms",
        ),
        (
            {},
            "p99_below",
            {"ms": 4, "variant": "onnx-int8"},
            "unknown",
            "p99 of onnx-int8 on cpu: unknown (it has no onnx-int8) → ≤ 4 ms",
        ),
        ({}, "size_below", {"bytes": 1000}, "passed", None),
        ({}, "size_below", {"bytes": 999}, "failed", "size of onnx-fp32: 1000 bytes → ≤ 999 bytes"),
        (
            {"forms": (), "best": {}},
            "size_below",
            {"bytes": 999},
            "failed",
            "size of the uploaded file: 4000 bytes → ≤ 999 bytes",
        ),
        ({}, "metric_at_least", {"metric": "accuracy", "value": 0.9}, "passed", None),
        ({}, "metric_at_least", {"metric": "accuracy", "value": 0.95}, "failed", "accuracy: 0.9 → ≥ 0.95"),
        (
            {},
            "metric_at_least",
            {"metric": "accuracy", "value": 0.9, "dataset": "field"},
            "unknown",
            "accuracy on field: unknown (none was recorded for 1.1.0) → ≥ 0.9",
        ),
        ({}, "metric_at_most", {"metric": "loss", "value": 0.4}, "passed", None),
        ({}, "metric_not_worse", {"metric": "accuracy", "by": 0.02}, "passed", None),
        ({}, "metric_not_worse", {"metric": "accuracy"}, "failed", "accuracy on holdout: 0.9 → ≥ 0.92"),
        (
            {},
            "metric_not_worse",
            {"metric": "loss", "better": "lower"},
            "unknown",
            "loss: unknown (1.0.0, which is production, has no such metric) → known",
        ),
        ({"rivals": {}}, "metric_not_worse", {"metric": "accuracy"}, "passed", None),
        ({"version": "1.0.0"}, "metric_not_worse", {"metric": "accuracy"}, "passed", None),
        (
            {},
            "metric_not_worse",
            {"metric": "accuracy", "than": "champion"},
            "unknown",
            "accuracy on holdout: unknown (there is no champion to compare with) → known",
        ),
        ({}, "licence_in", {"licences": ["mit", "ISC"]}, "passed", None),
        ({"licence": "MIT OR GPL-3.0-only"}, "licence_in", {"licences": ["MIT"]}, "passed", None),
        ({"licence": "apache 2.0 AND mit"}, "licence_in", {"licences": ["MIT", "Apache License 2.0"]}, "passed", None),
        (
            {"licence": "MIT AND GPL-3.0-only"},
            "licence_in",
            {"licences": ["MIT"]},
            "failed",
            "licence: MIT AND GPL-3.0-only → MIT",
        ),
        ({"licence": "((("}, "licence_in", {"licences": ["MIT"]}, "failed", "licence: ((( → MIT"),
        (
            {"licence": None},
            "licence_in",
            {"licences": ["MIT"]},
            "unknown",
            "licence: unknown (none was declared) → MIT",
        ),
        ({}, "approved", {}, "passed", None),
        (
            {"approved_by": frozenset({"ada", "grace"})},
            "approved",
            {"count": 2},
            "failed",
            "approvals for production by people other than ada: 1 → ≥ 2",
        ),
        ({}, "signed", {}, "passed", None),
        (
            {"seal": "manifest.json is not signed"},
            "signed",
            {},
            "failed",
            "signature of the manifest: manifest.json is not signed → valid",
        ),
        ({"seal": None}, "signed", {}, "unknown", "signature of the manifest: unknown (nobody looked at it) → valid"),
    ],
)
def test_a_rule_says_what_it_found_and_what_would_do(
    changes: dict[str, Any], rule: str, parameters: dict[str, Any], state: str, needed: str | None
) -> None:
    assert said(replace(KNOWN, **changes), rule, **parameters) == (state, needed)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "malicious"},
        {"verdict": "unknown"},
        {"waiver_over": True},
        {"published": False},
        {"deleted": True},
        {"status": "deprecated"},
        {"status": "archived"},
        {"model_active": False},
    ],
)
def test_some_things_count_without_any_gate(changes: dict[str, Any]) -> None:
    assert promotability(KNOWN, ()).promotable
    judged = promotability(replace(KNOWN, **changes), ())
    assert not judged.promotable
    assert len(judged.failing) == len(judged.to_change) == 1


def test_two_gates_about_one_fact_ask_for_one_change_as_strict_as_the_strictest() -> None:
    gates = [
        gate("p99_below", ms=4),
        gate("p99_below", ms=3),
        gate("p99_below", ms=9),
        gate("approved", count=2),
        gate("approved", count=3),
        gate("licence_in", licences=["ISC", "0BSD"]),
        gate("licence_in", licences=["MIT", "ISC"]),
    ]
    judged = promotability(KNOWN, gates)
    assert judged.to_change == (
        "p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 3 ms",
        "approvals for production by people other than ada: 1 → ≥ 3",
        "licence: MIT → ISC",
    )
    assert [outcome.state for outcome in judged.outcomes[len(ALWAYS) :]] == [
        "failed",
        "failed",
        "passed",
        "failed",
        "failed",
        "failed",
        "passed",
    ]


def test_gates_that_cannot_both_be_met_say_so() -> None:
    gates = [
        gate("metric_at_least", metric="loss", value=0.5),
        gate("metric_at_most", metric="loss", value=0.45),
        gate("licence_in", licences=["MIT"]),
        gate("licence_in", licences=["ISC"]),
    ]
    assert promotability(KNOWN, gates).to_change == (
        "loss: 0.4 → ≥ 0.5 and ≤ 0.45, which cannot be both",
        "licence: MIT → nothing that all gates allow",
    )


@pytest.mark.parametrize("strange", [gate("of_another_release"), gate("p99_below", milliseconds=4)])
def test_a_gate_that_this_release_cannot_read_refuses(strange: Gate) -> None:
    judged = promotability(KNOWN, [strange])
    assert (judged.promotable, judged.outcomes[-1].state) == (False, "unknown")
    assert strange.rule in judged.to_change[-1]


@pytest.mark.parametrize(
    ("rule", "parameters", "target"),
    [
        ("p99_below", {}, "*"),
        ("p99_below", {"ms": 0}, "*"),
        ("p99_below", {"ms": float("nan")}, "*"),
        ("p99_below", {"ms": 4, "seconds": 1}, "*"),
        ("approved", {"count": 0}, "*"),
        ("licence_in", {"licences": []}, "*"),
        ("exec", {}, "*"),
        ("signed", {}, "Production"),
        ("signed", {}, ""),
    ],
)
def test_what_no_rule_takes_is_not_kept(rule: str, parameters: dict[str, Any], target: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked(rule, parameters, target)
    assert caught.value.code == "invalid_gate"


def test_what_is_kept_has_its_defaults_and_names_whom_it_compares_with() -> None:
    assert checked("approved", {}, "production") == {"count": 1}
    kept = checked("metric_not_worse", {"metric": "f1", "than": "champion"}, "*")
    assert rivals_asked([gate("metric_not_worse", **kept), gate("signed")]) == {"champion"}


unknown = st.fixed_dictionaries(
    {},
    optional={
        "forms": st.just(()),
        "best": st.just({}),
        "metrics": st.just(()),
        "licence": st.none(),
        "seal": st.none(),
        "approved_by": st.just(frozenset()),
    },
)
anything = st.lists(
    st.sampled_from(
        [
            gate("verified"),
            gate("p99_below", ms=4),
            gate("p99_below", ms=9),
            gate("size_below", bytes=5000),
            gate("metric_at_least", metric="accuracy", value=0.9),
            gate("metric_at_least", metric="accuracy", value=0.99),
            gate("metric_not_worse", metric="accuracy"),
            gate("licence_in", licences=["MIT"]),
            gate("approved"),
            gate("signed"),
        ]
    ),
    max_size=6,
)


@given(unknown, anything)
def test_who_knows_less_passes_no_more_and_a_refusal_always_says_what_to_change(
    less: dict[str, Any], gates: list[Gate]
) -> None:
    whole, partly = promotability(KNOWN, gates), promotability(replace(KNOWN, **less), gates)
    about_size = {"size_below"}  # of the uploaded file where nothing is served
    for known, lesser in zip(whole.outcomes, partly.outcomes, strict=True):
        assert known.state == "passed" or lesser.state != "passed" or known.gate.rule in about_size
    for judged in (whole, partly):
        assert judged.promotable == (not judged.to_change) == (not judged.failing)
        assert all((outcome.needed is None) == (outcome.state == "passed") for outcome in judged.outcomes)
        assert len(judged.to_change) <= len(judged.failing)
        assert all(facts(outcome)["state"] == outcome.state for outcome in judged.outcomes)


@given(st.floats(), st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_none_passes_nothing_and_merging_asks_for_no_less(
    found: float, one: float, other: float
) -> None:
    demands = [bounded("x", found, at_most=one), bounded("x", found, at_most=other)]
    if found != found or found in (float("inf"), float("-inf")):
        assert [demand.state for demand in demands] == ["unknown", "unknown"]
    for demand in smallest(demands):
        assert demand.at_most == min(one, other)


def test_every_rule_says_what_it_asks() -> None:
    assert {"scan_clean", "verified", "p99_below", "size_below", "metric_at_least", "metric_not_worse"} <= RULES.keys()
    assert all(rule.about and rule.parameters.model_json_schema()["type"] == "object" for rule in RULES.values())
    assert {field.name for field in fields(Evidence)} >= {"seal", "rivals", "approved_by"}
