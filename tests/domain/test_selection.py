"""The best variant is chosen by evidence, unless somebody has pinned another."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.selection import best, runs_on

FAST, CANONICAL, ENGINE = "onnx-int8-dynamic", "onnx-fp32", "tensorrt-fp16@sm90"
VERIFIED = [{"name": FAST, "verified": True, "withheld": False}, {"name": ENGINE, "verified": True}]
MEASURED = [
    {"name": "source", "speedup": 9.0},
    {"name": CANONICAL, "speedup": 1.4},
    {"name": FAST, "speedup": 2.1},
    {"name": ENGINE, "speedup": 30.0, "device": "sm90"},
]


def chosen(variants: list[Any], rows: list[Any], **more: Any) -> str | None:
    return best([CANONICAL, FAST, ENGINE], variants, rows, **{"pins": {}, **more})


@pytest.mark.parametrize(
    ("variants", "rows", "expected"),
    [
        (VERIFIED, MEASURED, FAST),
        ([{"name": FAST, "verified": False}], MEASURED, CANONICAL),
        ([{"name": FAST, "verified": True, "withheld": True}], MEASURED, CANONICAL),
        (VERIFIED, [{"name": CANONICAL, "speedup": 3.0}, {"name": FAST, "speedup": 2.1}], CANONICAL),
        (VERIFIED, [{"name": FAST, "speedup": None}], None),
        (VERIFIED, [], None),
    ],
)
def test_the_fastest_that_is_verified_is_the_best(variants: list[Any], rows: list[Any], expected: str | None) -> None:
    assert chosen(variants, rows) == expected


def test_what_was_said_last_of_a_variant_counts() -> None:
    again = [{"name": FAST, "verified": False, "withheld": True}, *VERIFIED]
    assert chosen(again, MEASURED) == FAST
    assert chosen(VERIFIED, [*MEASURED, {"name": FAST, "speedup": 1.1}]) == CANONICAL


def test_every_device_has_its_own_best() -> None:
    assert chosen(VERIFIED, MEASURED, device="sm90") == ENGINE
    assert chosen(VERIFIED, MEASURED, device="sm80") is None


def test_a_pin_outweighs_the_measurements_on_its_device_only() -> None:
    pins = {"cpu": CANONICAL}
    assert chosen(VERIFIED, MEASURED, pins=pins) == CANONICAL
    assert chosen(VERIFIED, MEASURED, pins=pins, device="sm90") == ENGINE
    assert chosen(VERIFIED, MEASURED, pins={"cpu": "gone"}) == FAST


def test_an_engine_runs_where_it_was_built_and_onnx_everywhere() -> None:
    assert runs_on(ENGINE, "sm90")
    assert not runs_on(ENGINE, "sm80")
    assert not runs_on(ENGINE, "cpu")
    assert runs_on(CANONICAL, "cpu")
    assert runs_on(CANONICAL, "sm90")
