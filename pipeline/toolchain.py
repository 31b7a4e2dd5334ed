"""What shapes the bytes that we make of a model: versions of libraries and abilities of the CPU. Imports none of them."""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "onnxslim", "protobuf", "torch")
_FLAGS = ("amx_bf16", "amx_int8", "asimddp", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "fma", "i8mm")
"""Abilities that change how sums are rounded, and with them folded constants and calibrated ranges."""


@functools.cache
def toolchain() -> Mapping[str, str]:
    """Versions by package, and `cpu`: the abilities, in alphabetical order, that arithmetic here depends on."""
    made_here = {"python": platform.python_version(), "machine": platform.machine(), "cpu": " ".join(sorted(_flags()))}
    return made_here | {one: version(one) for one in _TOOLS}


@functools.cache
def installed(package: str) -> bool:
    """Whether a package is there."""
    with contextlib.suppress(PackageNotFoundError):
        return bool(version(package))
    return False


def _flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return set(value.split()) & set(_FLAGS)
    return set()
