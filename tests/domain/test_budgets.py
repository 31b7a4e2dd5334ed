"""What a model's config may say of what a precision costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from pipeline.budgets import BUDGETS, LIMITS, budget_for, max_batch, overridden, overrides
from pipeline.errors import Rejected


def config(budgets: Any) -> dict[str, Any]:
    return {"config": {"budgets": budgets}}


@pytest.mark.parametrize(
    "declared", [{}, {"config": None}, {"config": "yaml"}, {"config": {}}, config({}), config(None)]
)
def test_without_a_word_the_defaults_hold(declared: dict[str, Any]) -> None:
    assert [budget_for(one, declared) for one in BUDGETS] == list(BUDGETS.values())
    assert overridden("int8", declared) == {}


def test_what_is_said_of_one_precision_changes_that_one_and_is_told() -> None:
    declared = config({"int8": {"flips": 0.05, "accuracy": 0.01}})
    assert budget_for("int8", declared).flips == 0.05
    assert budget_for("fp16", declared) == BUDGETS["fp16"]
    assert overridden("int8", declared) == {
        "flips": {"default": 0.03, "used": 0.05},
        "accuracy": {"default": 0.02, "used": 0.01},
    }


def test_mixed_precision_goes_by_what_was_said_of_int8_unless_it_is_spoken_of_itself() -> None:
    assert budget_for("mixed", config({"int8": {"flips": 0.05}})).flips == 0.05
    assert budget_for("mixed", config({"int8": {"flips": 0.05}, "mixed": {"flips": 0}})).flips == 0


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        (["int8"], "config.budgets must map precisions to numbers"),
        ({"int8": 0.05}, "config.budgets must map precisions to numbers"),
        ({"int4": {"flips": 0.05}}, "config.budgets knows no precision int4; there are fp32, fp16, int8, mixed."),
        ({"int8": {"flip": 0.05}}, "config.budgets.int8.flip is unknown; there are rms_rel, max_rel, cosine, flips"),
        ({"int8": {"flips": "5%"}}, "config.budgets.int8.flips must be a number from 0 up."),
        ({"int8": {"flips": True}}, "must be a number"),
        ({"int8": {"flips": -1}}, "must be a number"),
        ({"int8": {"flips": float("nan")}}, "must be a number"),
        ({"int8": {"flips": 0.5}}, "config.budgets.int8.flips may be at most 0.1, not 0.5."),
        ({"fp32": {"cosine": 0.5}}, "config.budgets.fp32.cosine may be from 0.999 to 1, not 0.5."),
        ({"fp32": {"cosine": 2}}, "from 0.999 to 1"),
    ],
)
def test_what_is_unknown_or_too_loose_is_refused_by_its_name(budgets: Any, said: str) -> None:
    with pytest.raises(Rejected) as refusal:
        overrides(config(budgets))
    assert refusal.value.code == "invalid_budget"
    assert said in refusal.value.message


@pytest.mark.parametrize("precision", BUDGETS)
def test_every_default_lies_within_its_limits_and_no_limit_lets_a_silent_channel_pass(precision: str) -> None:
    assert overrides(config({precision: asdict(BUDGETS[precision])}))
    assert overrides(config({precision: asdict(LIMITS[precision])}))
    assert LIMITS[precision].channel < 1


def test_the_largest_batch_is_a_sensible_number() -> None:
    assert max_batch({}) is None
    assert max_batch({"config": {"max_batch": 64}}) == 64
    for odd in (0, -1, 1.5, True, "8", 1 << 20):
        with pytest.raises(Rejected, match="whole number from 1 to 1024"):
            max_batch({"config": {"max_batch": odd}})
