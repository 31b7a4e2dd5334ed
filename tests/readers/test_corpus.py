"""The whole corpus against the readers: nothing hostile is clean, everything benign is, and nothing is ever run."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.readers import examine
from tests.corpus import CANARY, Sample, benign, hostile

HOSTILE = hostile()
BENIGN = benign()
SECONDS = 20
"""Of the processor: how busy the machine is says nothing about a reader, which waits for nobody."""

MEMORY = 256 << 20


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[Sample], dict[str, Any]]:
    def judge(sample: Sample) -> dict[str, Any]:
        path = sample.write(tmp_path)
        CANARY.unlink(missing_ok=True)  # a proof that was broken off may have left it
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, began = _memory("VmRSS"), time.process_time()
        answer = examine(str(path), sample.filename)
        assert time.process_time() - began < SECONDS
        assert _memory("VmHWM") - before < MEMORY
        assert not CANARY.exists()
        json.dumps(answer, allow_nan=False)
        return answer

    return judge


def _memory(which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.mark.parametrize("sample", HOSTILE, ids=lambda sample: sample.name)
def test_nothing_hostile_is_clean(judge: Any, sample: Sample) -> None:
    assert judge(sample)["verdict"] in ("malicious", "unknown"), sample.why


@pytest.mark.parametrize("sample", BENIGN, ids=lambda sample: sample.name)
def test_what_frameworks_write_is_clean(judge: Any, sample: Sample) -> None:
    answer = judge(sample)
    assert answer["verdict"] == "clean", answer["findings"]
    assert sum(answer["bytes"].values()) > 0


def test_corpus_is_as_large_as_it_claims() -> None:
    attacks = Counter(sample.attack for sample in HOSTILE)
    assert len(HOSTILE) > 900
    assert len(BENIGN) > 250
    assert min(attacks.values()) >= 5, attacks
