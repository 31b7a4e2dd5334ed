"""What an answer says beside its findings: every rule that stopped the file, and the names that lists let pass."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from pipeline.readers import examine, replay
from pipeline.readers.allowed import Allowed
from pipeline.reading import well_formed


@pytest.fixture(scope="module")
def answers(benign: dict[str, Path]) -> dict[str, dict[str, Any]]:
    return {name: examine(str(path), name) for name, path in benign.items()}


def test_the_rules_of_today_find_nothing_in_what_they_let_pass(answers: dict[str, dict[str, Any]]) -> None:
    for name, answer in answers.items():
        assert well_formed(answer), name
        assert answer["stops"] == {}
        assert replay(answer["summary"]["names"]) == [], name
    assert {"reader": "onnx", "name": "::Conv", "path": "light_resnet50.onnx"} in answers["light_resnet50.onnx"][
        "summary"
    ]["names"]
    assert any(each["name"] == "torch._utils _rebuild_tensor_v2" for each in answers["rich.pt"]["summary"]["names"])
    assert {each["reader"] for each in answers["light_resnet50.onnx"]["summary"]["parts"]} == {"onnx"}


def test_a_list_that_became_shorter_is_held_against_the_names(
    answers: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = answers["light_resnet50.onnx"]["summary"]["names"]
    monkeypatch.setattr("pipeline.readers.onnx._is_listed", lambda *_: False)
    assert {hit["severity"] for hit in replay(names)} == {"unknown"}
    monkeypatch.setattr("pipeline.readers.pickle.frameworks", Allowed)
    for name in ("TENSORS", "SCRIPT"):
        monkeypatch.setattr(f"pipeline.readers.pickle.{name}", Allowed())
    hits = replay([{"reader": "pickle", "name": each, "path": "p"} for each in ("acme.layers Gate", "os system")])
    assert [hit["severity"] for hit in hits] == ["unknown", "malicious"]
    assert replay([{"reader": "a reader that is gone", "name": "x", "path": "p"}]) == []


def test_a_refused_name_is_no_name_that_was_let_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cacme.layers\nGate\n(tR.")
    answer = examine(str(path), "model.pkl")
    assert answer["summary"]["names"] == []
    assert set(answer["stops"].values()) == {"unknown"}


def test_every_rule_that_stops_a_file_is_named_though_its_findings_are_left_out(tmp_path: Path) -> None:
    """Else a waiver for what is shown would let pass what is not."""
    path = tmp_path / "model.pkl"
    names = b"".join(b"cacme.layers%d\nGate\n0" % number for number in range(300))
    path.write_bytes(names + b"cacme.layers\nGate\n(tR." + b"\x93nobody knows these bytes")
    answer = examine(str(path), "model.pkl", {"findings": 1})
    assert answer["left_out"] > 0
    assert {finding["rule"] for finding in answer["findings"]} < set(answer["stops"])
    assert well_formed(answer)


def test_a_summary_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([OrderedDict() for _ in range(5000)], 2))
    assert len(examine(str(path), "model.pkl")["summary"]["names"]) == 1
