"""Every model of the zoo, pushed as its owner would: promoted with evidence that holds, or stored and the reason said."""

from __future__ import annotations

from pathlib import Path

import pytest
from slipway import Client

from benchmarks import formats
from tests.zoo import SAMPLES, Sample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*:FutureWarning"),
]

_LOST = 0.02
"""The most accuracy, as a share of all samples, that the best variant may cost."""


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_sample_ends_as_its_owner_expects(sample: Sample, client: Client, tmp_path: Path) -> None:
    if sample.missing:
        pytest.skip(f"not installed: {', '.join(sample.missing)}")
    arrival = formats.send(client, sample, tmp_path)
    assert arrival.run.status == "succeeded", arrival.reason
    assert client.version(f"{arrival.run.model}@latest").format == sample.format
    if not sample.served:
        assert arrival.best is None
        assert arrival.run.facts("validate")["warnings"]
        return
    assert arrival.promoted
    assert arrival.verification["verified"] is True
    assert arrival.speed["speedup"] > 0
    if arrival.accuracy is not None:
        before, after = arrival.accuracy
        assert before > 0.85
        assert after > before - _LOST
