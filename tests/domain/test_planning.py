"""Which stages a run gets, by what it is for."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import planning
from pipeline.run import Purpose
from pipeline.stage import Report, Stage, discover

STAGES = discover()


def a_stage(name: str, **more: Any) -> Stage:
    return Stage(name=name, run=lambda ctx: Report(), **more)


PLANNED = [
    a_stage("scan"),
    a_stage("convert", after=("scan",), servable_only=True, purposes=(Purpose.INTAKE, Purpose.REBUILD)),
    a_stage("optimize", after=("convert",), servable_only=True, offers=("onnx-int8",)),
    a_stage("engine", after=("optimize",), servable_only=True, offers=("engine-fp16",), optional=True, queue="gpu"),
    a_stage("benchmark", after=("optimize",), servable_only=True),
    a_stage("compare", after=("convert",), purposes=(Purpose.REBUILD,)),
    a_stage("promote", after=("scan", "optimize", "engine", "benchmark")),
]


def names(steps: Any) -> list[str]:
    return [step.stage for step in steps]


def test_an_intake_has_all_but_what_belongs_to_other_runs() -> None:
    steps = planning.intake(PLANNED, servable=True)
    assert names(steps) == ["scan", "convert", "optimize", "engine", "benchmark", "promote"]
    assert [step.stage for step in steps if step.optional] == ["engine"]
    assert names(planning.intake(PLANNED, servable=False)) == ["scan", "promote"]
    assert "engine" not in names(planning.intake(PLANNED, servable=True, without=["engine"]))


def test_an_addition_has_what_makes_the_variants_and_what_follows_that() -> None:
    assert names(planning.addition(PLANNED, ["onnx-int8"], queues={})) == ["optimize", "benchmark", "promote"]
    engine = planning.addition(PLANNED, ["engine-fp16"], queues={})
    assert names(engine) == ["engine", "promote"]
    assert not any(step.optional for step in engine), "what was asked for is waited for"
    assert names(planning.addition(PLANNED, ["onnx-int8", "engine-fp16"], queues={})) == [
        "optimize",
        "engine",
        "benchmark",
        "promote",
    ]


def test_the_stages_of_this_installation_make_these_plans() -> None:
    assert names(planning.rebuild(STAGES, queues={})) == ["convert", "optimize", "compare"]
    assert names(planning.addition(STAGES, ["onnx-int8-dynamic"], queues={})) == ["optimize", "benchmark", "promote"]
    assert "compare" not in names(planning.intake(STAGES, servable=True))
    assert "onnx-int8-dynamic" in planning.offered(STAGES)


@pytest.mark.parametrize(
    ("policy", "asked", "served", "left_out"),
    [
        ("auto", [], ["cpu"], ["engine"]),
        ("auto", [], ["cpu", "gpu"], []),
        ("auto", ["engine-fp16"], [], []),
        ("auto", ["onnx-int8"], [], ["engine"]),
        ("always", [], [], []),
        ("never", ["engine-fp16"], ["gpu"], ["engine"]),
    ],
)
def test_an_optional_stage_is_planned_where_asked_for_or_where_it_can_be_carried_out(
    policy: Any, asked: list[str], served: list[str], left_out: list[str]
) -> None:
    assert planning.unwanted(PLANNED, policy=policy, asked=asked, served=served) == left_out


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"targets": ["tensorrt-fp16"]}, ["tensorrt-fp16"]),
        ({"targets": "tensorrt-fp16"}, ["tensorrt-fp16"]),
        ({"targets": [1, None, "a"]}, ["a"]),
        ({"targets": {"a": 1}}, []),
        ({}, []),
        (None, []),
        ("text", []),
    ],
)
def test_targets_are_read_from_whatever_a_config_holds(config: Any, found: list[str]) -> None:
    assert planning.targets({"config": config}) == found
