"""GPUs as the driver lists them. What `nvidia-smi` prints is recorded; no GPU is asked."""

from __future__ import annotations

import pytest

from workers.devices import VISIBLE, parse, pin, visible

LISTED = """0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559, 81008, 9.0
1, GPU-bbbb-2, NVIDIA A100-SXM4-40GB, 40960, 40000, 8.0
"""


def test_memory_is_told_in_bytes_and_the_architecture_as_an_sm() -> None:
    first, second = parse(LISTED)
    assert (first.sm, first.memory, first.free) == ("sm90", 81559 << 20, 81008 << 20)
    assert second.facts() == {"index": 1, "name": "NVIDIA A100-SXM4-40GB", "memory": 40960 << 20, "sm": "sm80"}
    assert parse("") == []


@pytest.mark.parametrize(
    ("chosen", "left"),
    [(None, [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-bbbb", [1]), ("", []), ("-1", []), ("0,7,1", [0])],
)
def test_a_worker_keeps_to_the_devices_that_it_was_given(chosen: str | None, left: list[int]) -> None:
    assert [one.index for one in visible(parse(LISTED), chosen)] == left


def test_each_child_has_one_device_and_sees_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    import os

    found = parse(LISTED)
    for child, uuid in ((0, "GPU-aaaa-1"), (1, "GPU-bbbb-2"), (2, "GPU-aaaa-1")):
        device = pin(child, found)
        assert device is not None
        assert (device.uuid, os.environ[VISIBLE]) == (uuid, uuid)
    assert pin(0, []) is None
