"""The net score: what it is made of, what moves it, and that it makes nothing up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.scoring import DEVICES, WEIGHTS, Claim, Evidence, NetScore, score

CARD = """# digits
## Usage
```python
client.pull("digits@latest")
```
## Training data
## Evaluation
## Limitations
"""
FULL = Evidence(
    description="Handwritten digits, 8 x 8 pixels",
    card=CARD,
    interface=True,
    licence="Apache-2.0",
    rebuilt=True,
    toolchain=True,
    training_config=True,
    requirements=True,
    datasets=1,
    code=1,
    metrics_with_dataset=1,
    claims=(Claim(name="accuracy", claimed=0.97, measured=0.98, samples=300),),
    size=1 << 20,
    approvals=1,
    rating=5.0,
    ratings=3,
    parents=(1.0,),
)


def values(evidence: Evidence) -> dict[str, float | None]:
    return {one.name: one.value for one in score(evidence).sub_scores}


def moved(**changes: object) -> dict[str, float | None]:
    """The sub-scores that differ from those of a version that has everything."""
    full, other = values(FULL), values(replace(FULL, **changes))  # type: ignore[arg-type]
    return {name: value for name, value in other.items() if value != full[name]}


def test_a_version_that_has_everything_has_a_score_of_one() -> None:
    found = score(FULL)
    assert (found.net_score, found.known) == (1.0, 1.0)
    assert all(one.value == 1 and one.because for one in found.sub_scores)


def test_each_sub_score_moves_with_its_own_evidence() -> None:
    assert moved(card=None) == {"ramp_up": 0.3}
    assert moved(card=None, card_file=True) == {"ramp_up": 0.5}
    assert moved(card=CARD.replace("Limitations", "Thanks")) == {"ramp_up": 0.925}
    assert moved(licence=None) == {"licence": 0.0}
    assert moved(licence="ours alone (C)") == {"licence": 0.25}
    assert moved(licence="LicenseRef-ours") == {"licence": 0.5}
    assert moved(licence="CC-BY-NC-4.0", wanted_licence="MIT") == {"licence": 0.0}
    assert moved(licence="MIT", wanted_licence="GPL-3.0-only") == {}
    assert moved(rebuilt=False) == {"reproducibility": 0.5}
    assert moved(rebuilt=None) == {}  # what is there counts alone
    assert moved(rebuilt=None, training_config=False) == {"reproducibility": 0.6}
    assert moved(datasets=0, code=0) == {"dataset_and_code": 0.2}
    assert moved(claims=()) == {"performance_claims": None}
    assert moved(size=None) == {"size": None}
    assert moved(size=1 << 40) == {"size": 0.0}
    assert moved(approvals=0) == {"reviewedness": 0.5}
    assert moved(waivers=2) == {"reviewedness": 0.875}
    assert moved(rating=1.0) == {"reviewedness": 0.75}
    assert moved(parents=(0.5, 0.7)) == {"lineage": 0.6}


@pytest.mark.parametrize(("claimed", "value"), [(0.9, 1.0), (0.98, 1.0), (1.005, 0.5), (1.03, 0.0)])
def test_a_claim_above_what_was_measured_loses_its_worth(claimed: float, value: float) -> None:
    claim = Claim(name="accuracy", claimed=claimed, measured=0.98, samples=300)
    assert values(replace(FULL, claims=(claim,)))["performance_claims"] == pytest.approx(value)


def test_what_nothing_is_known_of_does_not_count() -> None:
    found = score(replace(FULL, claims=(), size=None, parents=()))
    assert (found.net_score, found.known) == (1.0, 0.7)
    bare = score(Evidence())
    assert bare.net_score < 0.2
    assert [one.name for one in bare.sub_scores if one.value is None] == ["performance_claims", "size", "lineage"]


def test_a_size_is_judged_by_class_of_device() -> None:
    (size,) = (one for one in score(replace(FULL, size=3 << 30)).sub_scores if one.name == "size")
    assert list(size.parts) == list(DEVICES)
    assert size.parts["raspberry_pi"] == 0
    assert 0 < size.parts["jetson_nano"] < size.parts["desktop_pc"] < size.parts["aws_server"] == 1


def test_the_weights_are_a_whole() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)


EVIDENCE = st.builds(
    Evidence,
    description=st.text(max_size=40),
    card=st.none() | st.text(max_size=40) | st.just(CARD),
    licence=st.none() | st.sampled_from(["MIT", "other", "MIT or", "CC-BY-NC-4.0"]),
    wanted_licence=st.none() | st.sampled_from(["MIT", "Proprietary"]),
    rebuilt=st.none() | st.booleans(),
    toolchain=st.booleans(),
    claims=st.lists(
        st.builds(
            Claim, name=st.just("accuracy"), claimed=st.floats(-10, 1e9), measured=st.floats(0, 1), samples=st.just(1)
        ),
        max_size=2,
    ),
    size=st.none() | st.integers(0, 1 << 50),
    approvals=st.integers(0, 3),
    rating=st.none() | st.floats(1, 5),
    waivers=st.integers(0, 9),
    parents=st.lists(st.floats(0, 1), max_size=3),
)


@given(EVIDENCE)
def test_every_figure_is_a_share_with_a_reason_and_the_whole_lies_between_its_parts(evidence: Evidence) -> None:
    found: NetScore = score(evidence)
    known = [one.value for one in found.sub_scores if one.value is not None]
    assert all(0 <= value <= 1 for value in known)
    assert all(one.because for one in found.sub_scores)
    assert min(known) - 0.005 <= found.net_score <= max(known) + 0.005
    assert 0 < found.known <= 1
