"""How variants are made, repaired and chosen, as far as that needs no model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import racing, recipes, repairing, selection
from pipeline.benchmarking import Turn
from pipeline.errors import Rejected
from pipeline.stages.optimize import wanted

CHAIN = {"python": "3.11", "machine": "x86_64", "cpu": "avx2 fma", "onnxruntime": "1.31.1"}


@given(st.integers(2, 200), st.data())
def test_a_repair_keeps_the_fewest_layers_where_the_ranking_is_right(layers: int, data: st.DataObject) -> None:
    ranking = [f"layer-{number}" for number in range(layers)]
    needed = data.draw(st.integers(1, layers - 1))
    found = repairing.search(ranking, lambda kept: set(ranking[:needed]) <= set(kept), most_trials=1000)
    assert found.kept == tuple(ranking[:needed])


@given(st.sets(st.integers(0, 30), min_size=1, max_size=20))
def test_what_a_wrong_ranking_kept_for_nothing_is_given_back(needed: set[int]) -> None:
    ranking = [f"layer-{number}" for number in range(40)]
    culprits = {f"layer-{number}" for number in needed}
    found = repairing.search(ranking, lambda kept: culprits <= set(kept), most_trials=1000)
    assert set(found.kept or ()) == culprits


@given(st.integers(1, 60), st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_repair_asks_no_more_often_than_it_may_and_answers_only_with_what_it_tried(
    layers: int, trials: int, chance: Any
) -> None:
    asked: dict[frozenset[str], bool] = {}

    def meets(kept: Collection[str]) -> bool:
        assert 0 < len(kept) < layers
        assert frozenset(kept) not in asked
        asked[frozenset(kept)] = chance.random() < 0.5
        return asked[frozenset(kept)]

    found = repairing.search([str(number) for number in range(layers)], meets, most_trials=trials)
    assert found.trials == len(asked) <= trials
    assert found.kept is None or asked[frozenset(found.kept)]


def test_a_model_that_nothing_helps_is_not_repaired() -> None:
    found = repairing.search(["a", "b", "c"], lambda _: False)
    assert (found.kept, found.trials) == (None, 2)


def row(name: str, speedup: float | None, verdict: str = "faster", **other: Any) -> dict[str, Any]:
    return {"name": name, "speedup": speedup, "verdict": verdict, "size": 100} | other


def variant(name: str, precision: str, *, withheld: bool = False) -> dict[str, Any]:
    return {"name": name, "precision": precision, "verified": not withheld, "withheld": withheld}


SERVABLE = ["fp32", "fp16", "int8", "mixed", "onnx", "tensorrt-fp16"]
VARIANTS = [variant("fp32", "fp32"), variant("fp16", "fp16"), variant("int8", "int8"), variant("mixed", "mixed")]


@pytest.mark.parametrize(
    ("variants", "rows", "chosen"),
    [
        (VARIANTS, [row("fp32", 1.4), row("int8", 3.0)], "int8"),
        ([variant("int8", "int8", withheld=True)], [row("fp32", 1.4), row("int8", 3.0)], "fp32"),
        (VARIANTS, [row("fp32", 2.95), row("int8", 3.0)], "fp32"),  # a tie: the more exact
        (VARIANTS, [row("mixed", 2.95), row("int8", 3.0)], "mixed"),
        (VARIANTS, [row("fp32", 1.0, size=9), row("onnx", 1.0, size=8)], "onnx"),  # as exact: the smaller
        (VARIANTS, [row("fp32", 1.0, "same"), row("int8", 1.02, "slower")], "fp32"),
        (VARIANTS, [row("fp32", 0.5, "slower"), row("int8", 0.7, "slower")], "int8"),  # something must be served
        (VARIANTS, [row("fp32", 2.0), row("int8", 9.0, device="gpu")], "fp32"),
        (VARIANTS, [row("source", 9.0), row("fp32", 2.0)], "fp32"),
        (VARIANTS, [row("fp32", None)], None),
        ([], [], None),
    ],
)
def test_the_best_is_the_fastest_and_a_tie_goes_to_the_more_exact(
    variants: list[dict[str, Any]], rows: list[dict[str, Any]], chosen: str | None
) -> None:
    assert selection.best(SERVABLE, variants, rows) == chosen
    assert selection.best(reversed(SERVABLE), reversed(variants), reversed(rows)) == chosen


def test_each_device_has_a_best_of_its_own() -> None:
    rows = [row("fp32", 2.0), row("tensorrt-fp16", 9.0, device="cuda:sm90")]
    assert selection.best(SERVABLE, [], rows, device="cuda:sm90") == "tensorrt-fp16"
    assert selection.best(SERVABLE, [], rows) == "fp32"


def test_a_pin_stands_above_the_evidence_as_long_as_it_is_published() -> None:
    rows = [row("fp32", 2.0), row("int8", 9.0)]
    assert selection.best(SERVABLE, VARIANTS, rows, pins={"cpu": "fp32"}) == "fp32"
    assert selection.best(SERVABLE, VARIANTS, rows, pins={"cpu": "gone", "cuda": "fp32"}) == "int8"


def test_a_fingerprint_changes_with_all_that_shapes_the_bytes_and_with_nothing_else() -> None:
    recipe = recipes.find("onnx-int8-static")
    first = recipes.fingerprint(recipe, CHAIN)
    assert first == recipes.fingerprint(replace(recipe), dict(reversed(CHAIN.items())))
    assert len({first} | {recipes.fingerprint(recipe, CHAIN | {one: "other"}) for one in CHAIN}) == len(CHAIN) + 1
    assert recipes.fingerprint(replace(recipe, options={**recipe.options, "per_channel": False}), CHAIN) != first


def test_recipes_are_found_by_their_name_or_that_of_their_repair() -> None:
    assert recipes.find("onnx-mixed-static") is recipes.find("onnx-int8-static")
    with pytest.raises(Rejected, match="onnx-int8-static") as caught:
        recipes.find("onnx-int4")
    assert caught.value.code == "unknown_recipe"


def test_what_takes_up_the_file_of_another_recipe_comes_after_it() -> None:
    order = [one.name for one in recipes.discover()]
    made = {name: order.index(name) for name in order}
    made |= {one.repair: made[one.name] for one in recipes.discover() if one.repair}
    for one in recipes.discover():
        assert all(made[other] < made[one.name] for other in one.of)


def test_only_what_the_machine_can_do_is_offered() -> None:
    recipe = recipes.find("openvino-bf16")
    assert not recipe.offered(CHAIN, installed=True)
    assert recipe.offered(CHAIN | {"cpu": "avx2 avx512_bf16 fma"}, installed=True)
    assert not recipe.offered(CHAIN | {"cpu": "avx512_bf16"}, installed=False)


def test_forms_whose_ranges_were_fixed_on_samples_are_judged_within_these() -> None:
    ranged = {one.name for one in recipes.discover() if one.ranged}
    assert ranged == {"onnx-int8-static", "openvino-int8"}


def test_a_run_may_ask_for_some_recipes_only() -> None:
    assert [one.name for one in wanted(["onnx-fp16", "onnx-mixed-static"])] == [
        "onnx-fp16",
        "onnx-int8-static",
    ]
    assert next(one.name for one in wanted(["openvino-int8"])) == "onnx-int8-static"
    assert {"onnx-fp32-optimized", "onnx-int8-dynamic", "onnx-int8-static"} <= {one.name for one in wanted(None)}


def test_a_setting_is_preferred_only_where_it_is_clearly_faster() -> None:
    steady = [1.0] * 9
    assert racing.winner([steady, [0.8] * 9, None, [0.9] * 9]) == (1, [1.0, 1.25, None, 1.111])
    assert racing.winner([steady, [0.98] * 9])[0] == 0  # too little
    assert racing.winner([steady, [0.5] * 5 + [1.5] * 4])[0] == 0  # too rarely


def test_a_busy_neighbour_does_not_choose_the_setting() -> None:
    """The second takes half the CPU time, and somebody else had the processor all the while."""
    first = Turn(samples=[[1000]] * 3, cpu=[1000] * 3, waits=0)
    robbed = Turn(samples=[[4000]] * 3, cpu=[500] * 3, waits=0)
    waiting = Turn(samples=[[4000]] * 3, cpu=[500] * 3, waits=3)
    assert racing.winner([*racing.seconds({0: [first] * 9, 1: [robbed] * 9}).values()])[0] == 1
    assert racing.winner([*racing.seconds({0: [first] * 9, 1: [waiting] * 9}).values()])[0] == 0


@pytest.mark.parametrize("times", [[], [None, [1.0]], [[1.0], [1.0, 2.0]], [[0.0], [1.0]], [[1.0], ["1"]], [[1.0]]])
def test_times_out_of_form_are_no_answer(times: Any) -> None:
    with pytest.raises(Rejected) as caught:
        racing.Times.by({"times": times}, 2)
    assert caught.value.code == "answer_invalid"
