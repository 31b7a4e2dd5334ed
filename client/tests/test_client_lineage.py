"""Lineage, licences and scores: what the SDK sends, and what the command line draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import slipway
from conditions import Harbour
from slipway import Client, InvalidRequest

VERSION = "/api/v1/models/digits/versions/1.0.0"
CHECK = "/api/v1/models/digits/licence-check"
SOURCE, ONNX = "c" * 64, "b" * 64

pytestmark = pytest.mark.usefixtures("signed_in")


def node(node_id: str, depth: int, **more: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "kind": "version",
        "depth": depth,
        "owner": "ada",
        "name": node_id,
        "version": "1.0.0",
    } | more


def edge(child: str, parent: str, relation: str = "derived-from", **more: Any) -> dict[str, Any]:
    return {"id": f"{child}-{parent}", "child": child, "parent": parent, "relation": relation, "note": ""} | more


FAMILY = {
    "id": "leaf",
    "lineage": [],
    "complete": False,
    "nodes": [
        node("leaf", 0, sha256=SOURCE),
        node("left", 1),
        node("right", 1),
        node("base", 2),
        node("hidden-1", 3, hidden=True, owner=None, name=None, version=None),
        node("child", -1),
        {"id": "reference:d", "kind": "reference", "depth": 3, "name": "https://data.example/\x1b[2Jd"},
        {"id": f"sha256:{SOURCE}", "kind": "artifact", "depth": 0, "name": "source", "sha256": SOURCE},
        {"id": f"sha256:{ONNX}", "kind": "artifact", "depth": 0, "name": "onnx-fp32", "sha256": ONNX},
    ],
    "edges": [
        edge("leaf", "left", note="20 epochs"),
        edge("leaf", "right"),
        edge("left", "base"),
        edge("right", "base"),
        edge("base", "hidden-1"),
        edge("base", "reference:d", "dataset"),
        edge("child", "leaf", "fine-tuned-from"),
        edge(f"sha256:{ONNX}", f"sha256:{SOURCE}", "converted-from", id=None),
    ],
}


def test_a_family_is_drawn_as_trees(server: Harbour) -> None:
    server.answers[f"GET {VERSION}/lineage"] = FAMILY
    done = slipway("lineage", "digits@1.0.0", "--depth", "3")
    assert done.exit_code == 0, done.stderr
    assert server.bodies == [{"direction": "both", "depth": "3"}]
    drawn = [line.rstrip() for line in done.stdout.splitlines()]
    assert drawn == [
        "comes from",
        "ada/leaf@1.0.0",
        "├── ada/left@1.0.0  derived-from  20 epochs",
        "│   └── ada/base@1.0.0  derived-from",
        "│       ├── (not yours)  derived-from",
        "│       └── https://data.example/\\x1b[2Jd  dataset",
        "└── ada/right@1.0.0  derived-from",
        "    └── ada/base@1.0.0  derived-from",  # drawn above already
        "led to",
        "ada/leaf@1.0.0",
        "└── ada/child@1.0.0  fine-tuned-from",
        "was converted to",
        "source cccccccccccc",
        "└── onnx-fp32 bbbbbbbbbbbb  converted-from",
    ]
    assert "--depth goes further" in done.stderr
    listed = slipway("lineage", "digits@1.0.0", "-q").stdout.split()
    assert listed == [f"ada/{name}@1.0.0" for name in ("left", "right", "base", "child")]
    assert json.loads(slipway("lineage", "digits@1.0.0", "--json").stdout) == FAMILY
    assert slipway("lineage", "digits@1.0.0", "--direction", "sideways").exit_code == 2


def test_a_parent_is_declared_and_taken_back(server: Harbour, client: Client) -> None:
    server.answers[f"POST {VERSION}/lineage"] = edge("leaf", "base")
    server.answers[f"DELETE {VERSION}/lineage/leaf-base"] = None
    added = slipway("parent", "add", "digits@1.0.0", "grace/base@2", "-r", "fine-tuned-from", "-q")
    assert (added.exit_code, added.stdout) == (0, "leaf-base\n")
    slipway("parent", "add", "digits@1.0.0", "https://data.example/d", "--relation", "dataset", "--note", "cleaned")
    slipway("parent", "add", "digits@1.0.0", "org/base", "--elsewhere")
    assert slipway("parent", "remove", "digits@1.0.0", "leaf-base").exit_code == 0
    assert [[body.get(key) for key in ("relation", "parent", "reference", "note")] for body in server.bodies[:3]] == [
        ["fine-tuned-from", "grace/base@2", None, ""],
        ["dataset", None, "https://data.example/d", "cleaned"],
        ["derived-from", None, "org/base", ""],
    ]
    assert slipway("parent", "add", "digits@1.0.0", "x", "-r", "friend").exit_code == 2
    assert client.lineage.declare("digits@1.0.0", "code", reference="https://git.example/c").parent == "base"
    with pytest.raises(InvalidRequest):
        client.lineage.read("@1.0.0")


@pytest.mark.parametrize(
    ("answer", "compatible", "code"), [("compatible", True, 0), ("incompatible", False, 3), ("unknown", None, 1)]
)
def test_a_licence_check_exits_as_it_comes_out(
    server: Harbour, answer: str, compatible: bool | None, code: int, tmp_path: Path
) -> None:
    said = {
        "answer": answer,
        "compatible": compatible,
        "project_licence": "MIT",
        "model_licence": "llama3",
        "reason": "Because.",
        "warnings": ["Say so."],
    }
    server.answers[f"POST {CHECK}"] = said
    done = slipway("licence", "check", "digits@1.0.0", "--licence", "MIT")
    assert (done.exit_code, done.stdout.splitlines()) == (
        code,
        [f"{answer}  MIT ← llama3", "Because.", "heed: Say so."],
    )
    text = tmp_path / "LICENSE"
    text.write_text("Do as you please.", encoding="utf-8")
    slipway("licence", "check", "digits", "--text", text)
    slipway("licence", "check", "digits", "--github", "https://github.com/ada/sorter")
    assert server.bodies == [
        {"version": "1.0.0", "licence": "MIT"},
        {"version": "latest", "text": "Do as you please."},
        {"version": "latest", "github_url": "https://github.com/ada/sorter"},
    ]
    assert slipway("licence", "check", "digits").exit_code == 2


def test_a_score_says_what_it_is_made_of(server: Harbour, client: Client) -> None:
    parts = [
        {"name": "licence", "weight": 0.15, "value": 1.0, "because": "MIT is declared and known", "parts": {}},
        {"name": "size", "weight": 0.1, "value": None, "because": "its size is not known", "parts": {}},
    ]
    server.answers[f"GET {VERSION}/score"] = {"version": "1.0.0", "net_score": 0.815, "known": 0.6, "sub_scores": parts}
    done = slipway("score", "digits@1.0.0")
    assert "version 1.0.0, from evidence for 60% of the weight" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["licence", "1.00", "0.15", "MIT", "is", "declared", "and", "known"] in rows
    assert ["size", "–", "0.10", "its", "size", "is", "not", "known"] in rows
    assert slipway("score", "digits@1.0.0", "-q").stdout == "0.81\n"
    assert client.scores.read("digits@1.0.0").sub_scores[1].value is None
