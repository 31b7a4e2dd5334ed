"""Mutated model files: whatever the bytes are, a reader answers, soon, and in little memory.

`SLIPWAY_FUZZ_SECONDS` says for how long; a failure is shrunk and repeated by hypothesis.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import zipfile
import zlib
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.readers import examine
from tests.corpus import CANARY, benign, hostile
from tests.corpus.containers import members, zipped

SECONDS = float(os.environ.get("SLIPWAY_FUZZ_SECONDS", "10"))
LARGEST = 200_000
SLOW = 10.0
MEMORY = 256 << 20
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
TOKENS = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x80\x04", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", b"TFL3", b"[" * 500, b'{"a":', b"\x1f\x8b\x08\x00", b"cos\nsystem\n", b"\x8e" + b"\xff" * 8, b"\x95" + b"\xff" * 8)  # fmt: skip

# Every fifth hostile sample and one benign of each framework: all forms, and soon made.
_SEEDS = [sample for number, sample in enumerate(hostile()) if number % 5 == 0 and not sample.name.startswith("bomb")]
_SEEDS += list({sample.attack: sample for sample in reversed(benign()) if sample.attack != "export"}.values())

_edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "number", "token", "cut", "drop", "double", "splice"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 1 << 30),
    ),
    min_size=1,
    max_size=8,
)


@cache
def _seed(index: int) -> bytes:
    content = _SEEDS[index].make()
    return content if len(content) <= LARGEST else content[:LARGEST]


def _mutated(content: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    for what, where, number in edits:
        at = int(where * len(content))
        match what:
            case "flip":
                content = content[:at] + bytes([number & 0xFF]) + content[at + 1 :]
            case "number":
                width = (1, 2, 4, 8)[number % 4]
                value = NUMBERS[number // 4 % len(NUMBERS)] & ((1 << 8 * width) - 1)
                content = content[:at] + value.to_bytes(width, "little") + content[at + width :]
            case "token":
                content = content[:at] + TOKENS[number % len(TOKENS)] + content[at:]
            case "cut":
                content = content[:at]
            case "drop":
                content = content[:at] + content[at + number % 64 :]
            case "double":
                content = content[:at] + content[at : at + number % 4096] + content[at:]
            case "splice":
                other = _seed(number % len(_SEEDS))
                content = content[:at] + other[int(where * len(other)) :]
    return content[: 2 * LARGEST]


def _repacked(content: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    """One member changed and the archive written anew, so that the change is not stopped at the archive's door."""
    try:
        found = members(content)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return _mutated(content, edits)
    if not found:
        return content
    name = sorted(found)[edits[0][2] % len(found)]
    found[name] = _mutated(found[name], edits)
    return zipped(found)


@settings(
    max_examples=20,
    derandomize=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
@given(index=st.integers(0, len(_SEEDS) - 1), edits=_edits, inside=st.booleans())
def _one(index: int, edits: list[tuple[str, float, int]], inside: bool) -> None:
    content = (_repacked if inside else _mutated)(_seed(index), edits)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        Path("/proc/self/clear_refs").write_text("5")
        before, began = _memory("VmRSS"), time.process_time()
        answer = examine(file.name, "model.bin", {"seconds": 5})
    assert answer["verdict"] in ("clean", "malicious", "unknown")
    assert time.process_time() - began < SLOW
    assert _memory("VmHWM") - before < MEMORY
    assert not CANARY.exists()


def test_no_bytes_crash_hang_or_swell_a_reader() -> None:
    CANARY.unlink(missing_ok=True)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        _one()


def _memory(which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10
