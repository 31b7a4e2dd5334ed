"""What a version promises, what breaks the promise, and which number that takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.contracts import Contract, Port, claimed, compare, honest, needed, predecessor, refuse_unless_honest
from registry.errors import Conflict

IMAGE = Port(name="image", dtype="float32", shape=(None, 1, 8, 8))
SCORES = Port(name="scores", dtype="float32", shape=(None, 3))
BASE = Contract(inputs=(IMAGE,), outputs=(SCORES,), classes=("a", "b", "c"))


def port(base: Port, **changed: Any) -> Port:
    return Port(**{"name": base.name, "dtype": base.dtype, "shape": base.shape} | changed)


def contract(**changed: Any) -> Contract:
    return Contract(**{"inputs": BASE.inputs, "outputs": BASE.outputs, "classes": BASE.classes} | changed)


@pytest.mark.parametrize(
    ("after", "bump", "said"),
    [
        (contract(), "patch", None),
        (contract(outputs=(port(SCORES, name="probs"),)), "major", "output scores is called probs now"),
        (contract(outputs=()), "major", "output scores is gone"),
        (contract(outputs=(SCORES, port(SCORES, name="boxes", shape=(None, 4)))), "minor", "output boxes is new"),
        (contract(outputs=(port(SCORES, dtype="float64"),)), "major", "output scores was float32 and is float64"),
        (contract(outputs=(port(SCORES, shape=(None, 1, 3)),)), "major", "output scores was [?, 3] and is [?, 1, 3]"),
        (contract(outputs=(port(SCORES, shape=None),)), "patch", None),
        (contract(inputs=(IMAGE, port(IMAGE, name="mask"))), "major", "input mask is new"),
        (contract(inputs=()), "major", "input image is gone"),
        (
            contract(inputs=(port(IMAGE, shape=(1, 1, 8, 8)),)),
            "major",
            "input image was [?, 1, 8, 8] and is [1, 1, 8, 8]",
        ),
        (
            contract(inputs=(port(IMAGE, shape=(None, 1, None, None)),)),
            "minor",
            "input image was [?, 1, 8, 8] and is [?, 1, ?, ?]",
        ),
        (contract(classes=("a", "c", "b")), "major", "class 1 was b and is c"),
        (contract(classes=("a", "b")), "major", "class 2, c, is gone"),
        (contract(classes=()), "minor", "its classes are no longer named"),
    ],
)
def test_every_change_takes_its_number(after: Contract, bump: str, said: str | None) -> None:
    changes = compare(BASE, after)
    assert [each.what for each in changes] == ([] if said is None else [said])
    assert needed(changes) == bump


def test_classes_that_are_appended_may_widen_the_scores() -> None:
    wider = contract(outputs=(port(SCORES, shape=(None, 5)),), classes=("a", "b", "c", "d", "e"))
    assert needed(compare(BASE, wider)) == "minor"
    assert needed(compare(BASE, contract(outputs=wider.outputs))) == "major"
    assert needed(compare(BASE, contract(outputs=wider.outputs, classes=("a", "b", "c", "d")))) == "major"


def test_a_number_that_says_less_than_the_change_is_refused_with_the_one_that_it_takes() -> None:
    changes = compare(BASE, contract(outputs=(port(SCORES, name="probs"),)))
    with pytest.raises(Conflict) as caught:
        refuse_unless_honest("1.4.2", "1.4.3", changes)
    assert caught.value.code == "version_breaks_contract"
    assert caught.value.message == (
        "1.4.3 says that it is a patch change of 1.4.2, but output scores is called probs now: that takes 2.0.0."
    )
    assert caught.value.details["number"] == "2.0.0"  # type: ignore[index]
    refuse_unless_honest("1.4.2", "2.0.0-rc.1", changes)
    refuse_unless_honest("0.4.2", "0.4.3", changes)  # before 1.0.0 anything may change


@pytest.mark.parametrize(
    ("version", "others", "found"),
    [
        ("1.0.1", ["1.0.0", "2.0.0"], "1.0.0"),
        ("1.0.0", ["2.0.0"], None),
        ("2.0.0", ["2.0.0-rc.1", "1.9.0"], "1.9.0"),
        ("2.0.0-rc.2", ["2.0.0-rc.1", "1.9.0"], "1.9.0"),
        ("1.10.0", ["1.9.0", "1.2.0"], "1.9.0"),
    ],
)
def test_a_version_is_measured_by_the_highest_release_below_it(
    version: str, others: list[str], found: str | None
) -> None:
    assert predecessor(version, others) == found


def test_what_is_declared_of_the_next_version_takes_the_place_of_what_was() -> None:
    assert BASE.declaring({}) == BASE
    assert BASE.declaring({"input_shape": [1, 8, 8]}) == BASE  # without the batch, as people write it
    assert BASE.declaring({"input_shape": [4, 1, 8, 8]}) == BASE  # one batch of those that it takes
    assert needed(compare(BASE, BASE.declaring({"input_shape": [-1, 3, 8, 8]}))) == "major"
    assert needed(compare(BASE, BASE.declaring({"output_shape": {"scores": [None, 4]}}))) == "major"
    assert needed(compare(BASE, BASE.declaring({"input_shape": {"image": [1, 1, 8, 8], "mask": [1]}}))) == "major"
    assert needed(compare(BASE, BASE.declaring({"classes": ["c", "b", "a"]}))) == "major"


def test_a_contract_is_read_from_what_validation_found() -> None:
    facts = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [None, 1, 8, 8], "example": [1, 1, 8, 8]}],
        "outputs": [{"name": "scores", "dtype": "float32", "shape": [None, 3]}],
        "classes": [],
        "declared": {"classes": ["x", "y", "z"]},
    }
    assert Contract.read(facts, {"classes": ["a", "b", "c"]}) == BASE
    assert Contract.read(facts, {}).classes == ("x", "y", "z")


names = st.sampled_from(["a", "b", "c"])
sizes = st.one_of(st.none(), st.integers(1, 4))
ports = st.lists(
    st.builds(
        Port,
        name=names,
        dtype=st.sampled_from(["float32", "int64"]),
        shape=st.one_of(st.none(), st.lists(sizes, max_size=3).map(tuple)),
    ),
    max_size=3,
    unique_by=lambda port: port.name,
).map(tuple)
contracts = st.builds(
    Contract, inputs=ports, outputs=ports, classes=st.lists(names, unique=True, max_size=3).map(tuple)
)
numbers = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)).map(
    lambda parts: ".".join(map(str, parts))
)


@given(contracts, contracts, numbers)
def test_a_new_major_number_is_always_honest_and_nothing_changes_in_no_change(
    before: Contract, after: Contract, number: str
) -> None:
    assert compare(before, before) == []
    changes = compare(before, after)
    major = f"{int(number[0]) + 1}.0.0"
    assert claimed(number, major) == "major"
    assert honest(number, major, changes)
    assert honest(number, number, changes) == (needed(changes) == "patch" or number.startswith("0."))


@given(contracts, contracts)
def test_what_a_caller_of_the_old_version_needs_is_there_unless_it_takes_a_new_major(
    before: Contract, after: Contract
) -> None:
    """Every output that was read, every class where it was, and no input that was never filled."""
    if needed(compare(before, after)) == "major":
        return
    assert {port.name for port in before.outputs} <= {port.name for port in after.outputs}
    assert {port.name for port in before.inputs} == {port.name for port in after.inputs}
    assert not after.classes or after.classes[: len(before.classes)] == before.classes
    types = {port.name: port.dtype for port in after.outputs}
    assert all(types[port.name] == port.dtype for port in before.outputs)
