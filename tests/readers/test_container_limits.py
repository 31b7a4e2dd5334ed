"""Bombs end at the limits in flat memory, and whatever the bytes of a container are, there is an answer in time."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import discover, seven_zip, tar, zip_archive
from pipeline.readers.archive import Archive
from pipeline.readers.inspection import Inspection, Limits
from pipeline.readers.source import of_bytes
from tests.readers.container_files import (
    COMPRESSORS,
    DATA,
    FILES,
    LZ4_LINKED,
    LZ4_PICKLE,
    flipped,
    judge,
    packed_7z,
    rules,
    tarred,
    zipped,
)

# Bombs


ZEROS = bytes(10 << 20)
TENFOLD = [f"m{number:02}" for number in range(30)]
BOMBS: dict[str, Callable[[int], bytes]] = {
    "gzip": lambda times: gzip.compress(ZEROS) * times,
    "bzip2": lambda times: bz2.compress(ZEROS) * times,
    "xz": lambda times: lzma.compress(ZEROS) * times,
    "zlib": lambda times: zlib.compress(ZEROS * times, 1),
    "zip": lambda times: zipped(dict.fromkeys(TENFOLD[:times], ZEROS)),
    "7z": lambda times: packed_7z(dict.fromkeys(TENFOLD[:times], ZEROS), "deflate"),
    "7z, packed one by one": lambda times: packed_7z(dict.fromkeys(TENFOLD[:times], ZEROS), "bzip2", solid=False),
    "lz4": lambda times: lz4_zeros(3 * times),
    "tar.gz": lambda times: gzip.compress(tarred({"m": ZEROS})) * times,
}


def lz4_zeros(blocks: int) -> bytes:
    """Blocks of four MB, each one zero and a copy of it."""
    ones, rest = divmod((4 << 20) - 1 - 5 - 4 - 15, 255)
    block = b"\x1f\0\x01\0" + b"\xff" * ones + bytes([rest]) + b"\x50" + bytes(5)
    return b"\x04\x22\x4d\x18\x60\x70\x73" + (struct.pack("<L", len(block)) + block) * blocks + bytes(4)


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_stopped_by_its_ratio(name: str) -> None:
    content = BOMBS[name](4)
    assert len(content) < 1 << 20
    answer = judge(content)
    assert answer["verdict"] == "unknown"
    small_members = {"content.unrecognised"}  # members of ten MB each, which are zeros and nothing else
    assert rules(answer) == (small_members if name in ("zip", "7z, packed one by one") else {"limit.ratio"})


def test_bombs_are_stopped_in_flat_memory_when_the_limits_allow_them_hundreds_of_megabytes(tmp_path: Path) -> None:
    """They unpack to 300 MB, of which 250 are let through: what memory the reading takes must not follow."""
    for name in ("gzip", "zip", "7z", "lz4"):
        (tmp_path / name).write_bytes(BOMBS[name](30))
        assert (tmp_path / name).stat().st_size < 2 << 20
    # Not ru_maxrss: that begins with what the parent had when it forked.
    code = (
        "import json, re, sys; from pathlib import Path; from pipeline.readers import examine, discover; discover();"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "before = peak();"
        "limits = {'ratio': 1 << 30, 'inflated': 250 << 20};"
        "rules = [sorted({f['rule'] for f in examine(p, 'm', limits)['findings']}) for p in sys.argv[1:]];"
        "print(json.dumps([rules, peak() - before]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(str(path) for path in sorted(tmp_path.iterdir()))],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    found, grown = json.loads(done.stdout)
    assert [rules for rules in found if "limit.inflated" not in rules] == []
    assert grown < 64 << 10  # KiB


def test_containers_within_containers_end_at_a_depth() -> None:
    for wrap in (
        gzip.compress,
        lzma.compress,
        lambda content: tarred({"inner": content}),
        lambda content: packed_7z({"a": content}),
    ):
        content = DATA
        for _ in range(12):
            content = wrap(content)
        assert rules(judge(content)) == {"limit.depth"}


def test_members_and_time_are_limited() -> None:
    many: dict[str, bytes | None] = {f"m{number}": b"text" for number in range(50)}
    for content in (tarred(many), packed_7z(many), packed_7z(many, solid=False)):
        assert judge(content)["verdict"] == "clean"
        assert rules(judge(content, members=49)) == {"limit.members"}
        assert rules(judge(content, seconds=0.0)) == {"limit.time"}
    assert rules(judge(gzip.compress(DATA), seconds=0.0)) >= {"limit.time"}
    together = tarred({f"{number}.tar": tarred(many) for number in range(4)})
    assert judge(together, members=204)["verdict"] == "clean"
    assert rules(judge(together, members=203)) == {"limit.members"}


def test_content_that_outgrows_the_files_of_the_sandbox_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(BOMBS["gzip"](4))
    code = (
        "import json, resource, signal, sys; from pipeline.readers import examine;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 20 << 20));"
        "print(json.dumps([f['rule'] for f in examine(sys.argv[1], 'm', {'ratio': 1 << 30})['findings']]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "upload")],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(done.stdout) == ["limit.file"]


def test_names_are_limited_too() -> None:
    """A few kilobytes of compressed headers can hold gigabytes of names, and each name a hundred folders."""
    long = {f"{number:04}/" + "/".join(["d" * 30] * 120): b"" for number in range(400)}
    assert rules(judge(gzip.compress(tarred(long)), ratio=10_000)) == {"limit.members"}
    assert rules(judge(zipped({"d/" * 200 + "a": b"text"}))) == {"zip.name"}
    assert rules(judge(packed_7z({"a" * 5000: b"text"}))) == {"7z.name"}


# Whatever the bytes


SEEDS = {
    "tar, gnu": tarred({**FILES, "a" * 60 + "/" + "b" * 80: b"long"}, tarfile.GNU_FORMAT),
    "tar, pax": tarred({"d" * 200 + "/ü.txt": b"long"}, tarfile.PAX_FORMAT, mtime=1.5),
    "zip": zipped({"a.txt": b"text " * 30, "b/c.pkl": DATA}),
    "7z": packed_7z(FILES, solid=False, attributes=[0x20] * 4),
    "7z, packed tables": packed_7z(FILES, "bcj", packed_header=True),
    **{name: compress(DATA) for name, compress in COMPRESSORS.items()},
    "old joblib": b"ZF" + hex(len(DATA)).ljust(19).encode() + zlib.compress(DATA),
    "lz4": LZ4_LINKED,
    "lz4, pickled": LZ4_PICKLE,
}
CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete", "cut", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=9)),
    min_size=1,
    max_size=4,
)  # fmt: skip


def mutated(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, value in changes:
        at = int(place * max(len(content) - 1, 0))
        match kind:
            case "flip":
                content = content[:at] + value + content[at + len(value) :]
            case "insert":
                content = content[:at] + value + content[at:]
            case "delete":
                content = content[:at] + content[at + len(value) :]
            case "cut":
                content = content[:at]
            case _:
                content = content[:at] + content[at : at + 600] + content[at:]
    return content


def repaired(content: bytes) -> bytes:
    """Put the checksums of the outermost headers right, so that what is behind them is reached."""
    if content[:6] == b"7z\xbc\xaf\x27\x1c" and len(content) > 32:
        offset, size = struct.unpack("<QQ", content[12:28])
        table = content[32 + offset : 32 + offset + size] if offset < len(content) else b""
        content = flipped(content, 28, struct.pack("<L", zlib.crc32(table)))
        content = flipped(content, 8, struct.pack("<L", zlib.crc32(content[12:32])))
    elif content[257:262] == b"ustar":
        for at in range(0, len(content) - 511, 512):
            block = content[at : at + 512]
            if block[257:262] == b"ustar":
                total = sum(block[:148]) + 256 + sum(block[156:])
                content = content[: at + 148] + b"%06o\0 " % total + content[at + 156 :]
    return content


@pytest.mark.parametrize("name", SEEDS)
def test_whatever_the_bytes_there_is_an_answer_in_time(name: str) -> None:
    limits = {"seconds": 5.0, "inflated": 64 << 20, "findings": 20}

    @settings(max_examples=60)
    @given(changes=CHANGES, repair=st.booleans())
    def check(changes: list[tuple[str, float, bytes]], repair: bool) -> None:
        content = mutated(SEEDS[name], changes)
        started = time.process_time()
        answer = judge(repaired(content) if repair else content, **limits)
        assert time.process_time() - started < 8
        assert answer["verdict"] in ("clean", "unknown", "malicious")
        assert (answer["verdict"] == "clean") == (
            not any(f["severity"] in ("unknown", "malicious") for f in answer["findings"])
        )

    check()


def _ours(read: Callable[..., Archive], content: bytes) -> dict[str, bytes] | None:
    readers, layouts = discover()
    inspection = Inspection(limits=Limits(), readers=readers, layouts=layouts)
    found: dict[str, bytes] = {}

    def work() -> None:
        archive = read(of_bytes(content), "m", inspection)
        for name in archive.members:
            source = archive.open(name)
            found[name] = source.read(0, source.size)

    inspection.guarded("m", work)
    return found if inspection.verdict == "clean" else None


@settings(max_examples=250)
@given(changes=CHANGES, repair=st.booleans(), kind=st.sampled_from(["tar, gnu", "tar, pax"]))
def test_tar_that_passes_holds_for_python_what_it_holds_for_us(
    changes: list[tuple[str, float, bytes]], repair: bool, kind: str
) -> None:
    content = mutated(SEEDS[kind], changes)
    content = repaired(content) if repair else content
    ours = _ours(tar.read, content)
    if ours is not None:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            theirs = {entry.name: archive.extractfile(entry) for entry in archive}
        read = {name: file.read() if file else b"" for name, file in theirs.items()}
        assert read == {name.rstrip("/"): data for name, data in ours.items()}


@settings(max_examples=250)
@given(changes=CHANGES)
def test_zip_that_passes_holds_for_python_what_it_holds_for_us(changes: list[tuple[str, float, bytes]]) -> None:
    content = mutated(SEEDS["zip"], changes)
    ours = _ours(zip_archive.read, content)
    if ours is not None:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == ours


def test_7z_gives_back_what_was_packed() -> None:
    for packer in ("copy", "lzma", "bcj", "delta", "deflate", "bzip2"):
        for solid in (True, False):
            program = {"a": bytes(range(256)) * 600 + b"\xe8\x01\x02\x03\x00" * 99, "b": None, "c": DATA, "d": b""}
            found = _ours(seven_zip.read, packed_7z(program, packer, solid=solid))
            assert found == {"a": program["a"], "b/": b"", "c": DATA, "d": b""}
