"""Which files a component is made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.bundles import compare
from registry.components import COMPONENTS, Piece, choose
from registry.store import Artifact

ROLES = (
    "canonical",
    "variant",
    "config",
    "requirements",
    "card",
    "calibration",
    "sample",
    "evidence",
    "manifest",
    "source",
)
PIECES = st.lists(
    st.builds(Piece, name=st.uuids().map(str), role=st.sampled_from(ROLES)), max_size=12, unique_by=lambda one: one.name
)
WANTED = st.sets(st.sampled_from(COMPONENTS), min_size=1)


@given(PIECES, WANTED, st.booleans())
def test_a_component_is_either_there_or_missing_and_full_is_everything(
    pieces: list[Piece], wanted: set[str], packed: bool
) -> None:
    best = next((one.name for one in pieces if one.kind == "weights"), None)
    choice = choose(wanted, pieces, best=best, packed=packed)  # type: ignore[arg-type]
    kinds = {one.kind for one in pieces if one.name in choice.names}
    asked = set(COMPONENTS) - {"full"} if "full" in wanted else wanted
    assert {each for each in asked if each in kinds} == asked - choice.missing.keys()
    if "full" in wanted:
        assert list(choice.names) == [one.name for one in pieces]
    else:
        assert kinds <= wanted
        assert [name for name in choice.names if name == best] == ([best] if "weights" in wanted and best else [])
        assert sum(one.kind == "weights" for one in pieces if one.name in choice.names) <= 1


def artifact(name: str, sha256: str, **toolchain: str) -> Artifact:
    meta = {"toolchain": toolchain} if toolchain else {}
    return Artifact(name=name, role="variant", key="", sha256=sha256, size=1, media_type="", meta=meta)


def test_forms_of_two_instances_are_compared_by_digest_and_toolchain() -> None:
    theirs = [
        {"name": "a", "sha256": "1", "toolchain": {"onnx": "1"}},
        {"name": "b", "sha256": "2", "toolchain": {"onnx": "1"}},
        {"name": "c", "sha256": "3", "toolchain": None},
        {"name": "d", "sha256": "4", "toolchain": {"onnx": "1"}},
    ]
    ours = [artifact("a", "1", onnx="1"), artifact("b", "9", onnx="2"), artifact("c", "3", onnx="1")]
    found = [(one.name, one.outcome, one.toolchain_same) for one in compare(theirs, ours)]
    assert found == [("a", "same", True), ("b", "different", False), ("c", "same", None), ("d", "absent", None)]
