"""Real models measured in real sandbox children: what is told of them, what is kept, and what happens when time is short."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from pipeline import device
from pipeline.errors import Rejected
from pipeline.reading import read
from pipeline.stages import benchmark, convert, optimize, validate
from tests.integration.test_formats import Begin, Intake, begin, onnx_file, refusal

RNG = np.random.default_rng(11)
VERDICTS = {"faster", "same", "slower", "inconclusive"}


def layers(folder: Path, number: int, width: int = 128) -> Path:
    """So many equal matrix products, one after the other."""
    names = [f"h{index}" for index in range(number)]
    nodes = [
        helper.make_node("MatMul", [before, f"w{index}"], [after])
        for index, (before, after) in enumerate(zip(["x", *names[:-1]], [*names[:-1], "y"], strict=True))
    ]
    weights = {f"w{index}": RNG.standard_normal((width, width)) / width**0.5 for index in range(number)}
    return onnx_file(folder, nodes, weights, shape=("n", width), out=("n", width))


@pytest.fixture
def converted(begin: Begin, tmp_path: Path) -> Intake:
    intake = begin(layers(tmp_path, 12), config={"max_batch": 16})
    intake.run(validate, convert)
    intake.options["benchmark_rounds"] = 4
    return intake


def test_forms_are_measured_at_every_batch_size_and_with_every_thread_and_the_samples_are_kept(
    converted: Intake,
) -> None:
    facts = converted.run(benchmark).facts
    source, canonical = facts["rows"]
    assert (source["name"], canonical["name"], canonical["runtime"]) == ("source", "onnx-fp32", "onnxruntime")
    assert set(canonical["batches"]) == {"1", "8", "16"}
    assert set(canonical["threads"]) == {str(one) for one in {1, device.cores()}}
    for one in (*canonical["batches"].values(), *canonical["threads"].values()):
        assert one["verdict"] in VERDICTS
        assert one["p50_ms_ci"][0] <= one["p50_ms"] <= one["p50_ms_ci"][1]
        assert one["throughput_per_s_ci"][0] <= one["throughput_per_s"] <= one["throughput_per_s_ci"][1]
    for share in ("p50_ms", "p90_ms", "p99_ms"):
        assert canonical[f"{share}_ci"][0] <= canonical[share] <= canonical[f"{share}_ci"][1]
    assert canonical["speedup_clock"] == facts["control"]["clock"] == "cpu"
    assert 0 < canonical["cpu_ms"] <= canonical["p99_ms"]
    assert canonical["threads"].get("2", {}).get("speedup_clock", "wall") == "wall"
    assert facts["protocol"]["inputs"] == "drawn"
    assert facts["incumbent"] is None

    kept = next(one for one in converted.earlier["benchmark"].files if one.role == "evidence")
    content = Path(kept.key).read_bytes()
    assert facts["evidence"]["sha256"] == kept.sha256 == hashlib.sha256(content).hexdigest()
    evidence = json.loads(gzip.decompress(content))
    main = next(one for one in evidence["measured"] if (one["batch"], one["threads"]) == (1, 1))
    assert set(main["forms"]) == {"source", "control", "onnx-fp32"}
    turns = main["forms"]["onnx-fp32"]
    assert len(turns) == facts["protocol"]["rounds"]
    assert sum(len(sample) for turn in turns for sample in turn["wall_ns"]) == canonical["iterations"]
    converted.scratch = converted.folder / "reading"
    converted.scratch.mkdir()
    found = read(converted, kept.name, Path(kept.key))
    assert (found["verdict"], found["findings"]) == ("clean", [])


def test_the_quality_of_what_would_be_served_is_told_with_its_terms(converted: Intake) -> None:
    facts = converted.run(benchmark).facts
    assert facts["quality"]["of"] == "onnx-fp32"
    assert {one["term"] for one in facts["quality"]["terms"]} == {"error", "speed", "size", "warnings", "agreement"}
    assert 70 <= facts["quality"]["score"] <= 100
    assert facts["rows"][1]["quality"]["terms"] == facts["quality"]["terms"]


def test_a_form_is_held_against_what_is_served_today(converted: Intake, begin: Begin, tmp_path: Path) -> None:
    """A model four times as deep is served now: the new version is faster than that, and says so."""
    before = begin(layers(tmp_path, 48))
    before.run(validate, convert)
    served = before.files()["onnx-fp32"]
    converted.served = replace(served, meta={**served.meta, "version": "1.0.0"})
    facts = converted.run(benchmark).facts
    assert [row["name"] for row in facts["rows"]] == ["source", "onnx-fp32"]
    beside = facts["rows"][1]["against_incumbent"]
    assert beside["verdict"] == "faster"
    assert 2 < beside["speedup"] < 6
    assert (facts["incumbent"]["version"], facts["incumbent"]["verdict"]) == ("1.0.0", "slower")


def test_what_is_served_today_is_left_out_where_it_takes_something_else(
    converted: Intake, begin: Begin, tmp_path: Path
) -> None:
    before = begin(layers(tmp_path, 2, width=64))
    before.run(validate, convert)
    served = before.files()["onnx-fp32"]
    converted.served = replace(served, meta={**served.meta, "version": "1.0.0"})
    facts = converted.run(benchmark).facts
    assert facts["incumbent"]["reason"] == "It takes or gives something else."
    assert "against_incumbent" not in facts["rows"][1]


def test_what_is_served_today_and_does_not_open_any_more_does_not_stand_in_the_way(converted: Intake) -> None:
    served = converted.files()["onnx-fp32"]
    broken = Path(f"{served.key}-broken")
    broken.write_bytes(b"no model")
    converted.served = replace(served, key=str(broken), meta={**served.meta, "version": "1.0.0"})
    facts = converted.run(benchmark).facts
    assert "ONNX Runtime" in facts["incumbent"]["reason"]
    assert facts["rows"][1]["verdict"] in VERDICTS


def test_the_users_own_samples_are_what_is_measured_on(begin: Begin, tmp_path: Path) -> None:
    intake = begin(layers(tmp_path, 4))
    samples = intake.folder / "samples.npz"
    np.savez(samples, anything=RNG.standard_normal((5, 128)).astype(np.float32), labels=np.arange(5))
    intake.side_files = {"calibration": samples}
    intake.options["benchmark_rounds"] = 4
    facts = intake.run(validate, convert, benchmark).facts
    assert facts["protocol"]["inputs"] == "calibration"
    assert set(facts["rows"][0]["batches"]) == {"1", "8", "32", "128"}


def test_short_of_time_fewer_rounds_are_run_and_nothing_is_claimed(converted: Intake) -> None:
    converted.options["benchmark_rounds"] = 100_000
    facts = within_the_least(converted)
    assert facts["protocol"]["stopped"] == "time"
    assert 0 < facts["protocol"]["rounds"] < 100_000
    assert facts["rows"][1]["p50_ms"] > 0
    if facts["protocol"]["rounds"] < 8:
        assert facts["rows"][1]["speedup_ci"] is None
        assert facts["rows"][1]["verdict"] == "inconclusive"


def within_the_least(intake: Intake) -> Mapping[str, Any]:
    """The facts of a benchmark that hardly had the time: how long it takes to open a model is the machine's affair."""
    for seconds in (1, 2, 4, 8, 16, 32, 64):
        intake.options["benchmark_timeout"] = seconds
        try:
            return intake.run(benchmark).facts
        except Rejected as refusal:
            if refusal.code != "benchmark_timeout":
                raise
    raise AssertionError("nothing could be measured in a minute")


def test_only_where_nothing_could_be_measured_the_model_is_refused(converted: Intake) -> None:
    converted.options["benchmark_timeout"] = 0.001
    error = refusal(converted, benchmark)
    assert error.code == "benchmark_timeout"
    assert "0.001 s" in error.message
