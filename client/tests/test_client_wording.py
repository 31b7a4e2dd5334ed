"""Reports in words: nothing is rounded to look better than it is, and nothing unknown breaks the picture."""

from __future__ import annotations

from typing import Any

import pytest
import story
from slipway import InvalidRequest, Run, refs
from slipway.cli import wording
from slipway.cli.pushing import class_names, shape
from slipway.cli.screen import plain, whys


def test_one_flip_in_a_million_is_not_a_hundred_per_cent() -> None:
    found = wording.agreement(
        {"verified": True, "outputs": [{"decisions": {"compared": 1_000_000, "agreed": 999_999, "flips": 1}}]}
    )
    assert found is not None
    assert found.decisions == "99.99 % of 1000000"


def test_the_worst_output_speaks_for_a_verification() -> None:
    outputs = [
        {"max_abs": 1e-9, "decisions": None},
        {"max_abs": 2e-3, "decisions": {"compared": 4, "agreed": 3, "flips": 1}},
    ]
    found = wording.agreement({"verified": True, "outputs": outputs})
    assert found is not None
    assert (found.max_error, found.compared, found.flips) == (2e-3, 4, 1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (153_900, "154 kB"), (999_900, "1 MB"), (2_500_000_000, "2.5 GB")],
)
def test_sizes_take_the_unit_that_keeps_them_short(value: int, shown: str) -> None:
    assert wording.size(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.44, "0.4 s"), (75, "1 min 15 s"), (3700, "1 h 01 min"), (None, "")])
def test_durations_read_like_durations(value: float | None, shown: str) -> None:
    assert wording.seconds(value) == shown


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        ("scan", "clean, no findings, antivirus ClamAV 1.4"),
        ("validate", "onnx, opset 18, ?×1×8×8 → ?×10, 38,282 parameters, 1 warning"),
        ("convert", "exporter dynamo, max error 3e-07, 0 flips"),
        ("optimize", "1 variant kept, withheld: onnx-int8-dynamic"),
        ("benchmark", "onnx-fp32-optimized: 2.28× (2.20–2.35), faster"),
        ("promote", "3 files published, 2 of 2 gates passed"),
    ],
)
def test_every_stage_has_its_line(stage: str, shown: str) -> None:
    assert wording.summary(stage, story.REPORTS[stage]) == shown


def test_a_scan_without_an_antivirus_says_so() -> None:
    facts = {"verdict": "clean", "findings": [story.FINDING], "antivirus": None}
    assert wording.summary("scan", facts) == "clean, 1 finding, no antivirus"


def test_a_note_is_no_finding() -> None:
    note = {"rule": "antivirus.absent", "severity": "info", "message": "No daemon.", "path": "m.onnx"}
    assert (
        wording.summary("scan", {"verdict": "clean", "findings": [note]}) == "clean, no findings, 1 note, no antivirus"
    )


def test_a_version_that_is_only_stored_has_no_table() -> None:
    run = story.new_run("r1", "digits", "1.0.0") | {"status": "succeeded"}
    assert wording.variants(Run.read(run)) == []


def test_an_antivirus_that_saw_only_half_says_so() -> None:
    facts = {"verdict": "unknown", "findings": [], "antivirus": {"engine": "ClamAV", "complete": False}}
    assert wording.summary("scan", facts) == "unknown, no findings, antivirus ClamAV (incomplete)"


@pytest.mark.parametrize("facts", [{"verification": "soon"}, {"verification": {"outputs": [{"max_abs": "nan?"}]}}])
def test_a_report_of_another_shape_costs_its_line_and_nothing_else(facts: dict[str, Any]) -> None:
    assert "does not know" in wording.summary("convert", facts)


def test_a_stage_that_this_client_has_never_heard_of_has_no_line() -> None:
    assert wording.summary("quantise", {"bits": 4}) == ""


def _finished() -> Run:
    run = story.new_run("r1", "digits", "1.0.0")
    events: list[dict[str, Any]] = []
    for move in story.succeeded():
        story.apply(run, events, move)
    return Run.read(run)


def test_the_table_shows_what_was_published_beside_its_evidence() -> None:
    rows = {row.name: row for row in wording.variants(_finished())}
    assert list(rows) == ["source", "onnx-fp32", "onnx-fp32-optimized"], "the manifest is no form of the model"
    assert rows["source"].size == 160012
    best = rows["onnx-fp32-optimized"]
    assert (best.size, best.speedup, best.verdict) == (151000, "2.28× (2.20–2.35)", "faster")
    assert best.agreement is not None
    assert best.agreement.decisions == "100 % of 2048"


def test_a_withheld_variant_keeps_its_reason() -> None:
    assert wording.withheld(_finished()) == [("onnx-int8-dynamic", "12 of 2048 decisions flip, 2 are allowed")]


def test_names_chosen_by_a_model_cannot_drive_the_terminal() -> None:
    assert plain("a\x1b[2J\u202eb\nc\x9b1m") == "a\\x1b[2J\\u202eb\\nc\\x9b1m"


def test_field_errors_name_their_field() -> None:
    assert whys([{"loc": ["body", "version"], "msg": "is no SemVer"}, {"field": "name", "message": "is empty"}]) == [
        "body.version: is no SemVer",
        "name: is empty",
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("digits", ("digits", "latest")),
        ("digits@3", ("digits", "3")),
        ("digits@production", ("digits", "production")),
        ("ada/digits@v1.2.0-rc.1+b5", ("ada/digits", "v1.2.0-rc.1+b5")),
    ],
)
def test_a_reference_names_a_model_and_a_version(text: str, meant: tuple[str, str]) -> None:
    assert refs.parse(text) == meant


@pytest.mark.parametrize(
    "text", ["", "@1.0.0", "digits@", "digits@Newest", "digits@1.0.0/../2", "/digits", "ada/", "a/b/c"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        refs.parse(text)


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    assert refs.version_path("../keys?x=", "1.0.0") == "/api/v1/models/..~keys%3Fx%3D/versions/1.0.0"
    assert refs.model_path("ada/digits") == "/api/v1/models/ada~digits"


def test_shapes_are_read_with_and_without_names() -> None:
    assert shape(["1,1,8,8"]) == [1, 1, 8, 8]
    assert shape(["-1x3"]) == [-1, 3]
    assert shape(["image=1,3", "mask=1,1"]) == {"image": [1, 3], "mask": [1, 1]}


@pytest.mark.parametrize("given", [["1,b"], ["1,2", "3,4"], [""]])
def test_what_is_no_shape_is_a_usage_error(given: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        shape(given)


def test_class_names_come_from_the_option_or_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\n\ndog\n", encoding="utf-8")
    assert class_names("cat, dog") == class_names(f"@{path}") == ["cat", "dog"]
