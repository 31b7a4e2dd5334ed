"""Containers are opened and what is in them counts as if it had been uploaded by itself; every byte is accounted for."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.readers import discover
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.inspection import Inspection, Limits, Reader
from pipeline.readers.source import of_bytes
from tests.readers.container_files import (
    COMPRESSORS,
    DATA,
    FILES,
    HOSTILE,
    LZ4_LINKED,
    LZ4_PICKLE,
    LZ4_PICKLE_SIZE,
    LZ4_TEXT,
    Payload,
    flipped,
    judge,
    packed_7z,
    rules,
    tar_file,
    tarred,
    zipped,
)

FOLDER_SIZES = sum(len(content or b"") for content in FILES.values())


# What common tools write is clean, and all of it is understood


BENIGN: dict[str, tuple[bytes, int]] = {
    **{
        f"tar, {name}": (tarred({**FILES, "a" * 60 + "/" + "b" * 80: b"long"}, kind, uname="ada", mtime=1e9), 0)
        for name, kind in {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items()
    },
    "tar, long names in gnu": (tarred({"d" * 200 + "/ü.txt": b"long"}, tarfile.GNU_FORMAT), 0),
    "tar, long names in pax": (tarred({"d" * 200 + "/ü.txt": b"long"}, tarfile.PAX_FORMAT, mtime=1.5), 0),
    "tar, of a folder": (tarred({".": None, "./a.txt": b"text", "./d": None, "./d/b.txt": b""}), 0),
    "tar, with a commit's name": (
        tar_file(b"pax_global_header", b"52 comment=" + b"a" * 40 + b"\n", b"g") + tar_file(b"a", b"text")  + bytes(1024),
        0,
    ),
    "zip, inside tar": (tarred({"inner.zip": zipped({"a.txt": b"text"}, zipfile.ZIP_STORED)}), 0),
    **{
        f"7z, {packer}{', solid' * solid}{', packed tables' * packed}": (
            packed_7z(FILES, packer, solid=solid, packed_header=packed),
            0 if packer == "copy" else FOLDER_SIZES,
        )
        for packer in ("copy", "lzma", "lzma2", "deflate", "bzip2", "bcj", "delta")
        for solid in (True, False)
        for packed in (True, False)
    },
    "7z, empty": (packed_7z({}), 0),
    "7z, with attributes": (packed_7z(FILES, attributes=[0x81A48020, 0x41ED8010, 0x20, 0x81A48020]), FOLDER_SIZES),
    **{name: (compress(DATA), len(DATA)) for name, compress in COMPRESSORS.items()},
    **{f"{name}, nothing": (compress(b""), 0) for name, compress in COMPRESSORS.items()},
    **{f"{name}, two streams": (COMPRESSORS[name](DATA[:50]) + COMPRESSORS[name](DATA[50:]), len(DATA)) for name in ("gzip", "bzip2", "xz")},
    "xz, padded": (lzma.compress(DATA) + bytes(8), len(DATA)),
    "xz, checked by SHA-256": (lzma.compress(DATA, check=lzma.CHECK_SHA256), len(DATA)),
    "xz, filtered": (
        lzma.compress(DATA, filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9}]),
        len(DATA),
    ),
    "lzma, of known length": (
        flipped(lzma.compress(DATA, lzma.FORMAT_ALONE), 5, struct.pack("<Q", len(DATA))),
        len(DATA),
    ),
    "zlib, best": (zlib.compress(DATA, 9), len(DATA)),
    "zlib, fastest": (zlib.compress(DATA, 1), len(DATA)),
    "joblib before 0.9.3": (b"ZF" + hex(len(DATA)).ljust(19).encode() + zlib.compress(DATA), len(DATA)),
    "lz4, linked blocks": (LZ4_LINKED, len(LZ4_TEXT)),
    "lz4, as joblib writes it": (LZ4_PICKLE, LZ4_PICKLE_SIZE),
    "lz4, two frames": (LZ4_LINKED + LZ4_LINKED, 2 * len(LZ4_TEXT)),
}  # fmt: skip


@pytest.mark.parametrize("name", BENIGN)
def test_what_common_tools_write_is_clean_and_every_byte_of_it_understood(name: str) -> None:
    content, inflated = BENIGN[name]
    answer = judge(content)
    assert answer["verdict"] == "clean", answer["findings"]
    assert sum(answer["bytes"].values()) == answer["seen"] == len(content) + inflated


def test_bytes_that_no_reader_claims_to_have_understood_are_not_clean() -> None:
    lazy = Reader(name="lazy", recognises=lambda glimpse: True, examine=lambda source, path, inspection: None)
    inspection = Inspection(limits=Limits(), readers=(lazy,))
    inspection.expect(len(DATA))
    inspection.examine(of_bytes(DATA), "m")
    inspection.settle("m")
    assert inspection.verdict == "unknown"
    assert [finding.rule for finding in inspection.findings] == ["content.unaccounted"]


def test_gzip_file_that_knows_its_name_is_clean(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "config.json.gz", "wb") as file:
        file.write(b'{"classes": 10}')
    content = (tmp_path / "config.json.gz").read_bytes()
    assert judge(content)["verdict"] == "clean"
    flags = flipped(content, 3, bytes([content[3] | 2]))
    end = flags.index(b"\0", 10) + 1
    with_checksum = flags[:end] + struct.pack("<H", zlib.crc32(flags[:end]) & 0xFFFF) + flags[end:]
    assert judge(with_checksum)["verdict"] == "clean"
    assert rules(judge(flipped(with_checksum, end, b"\0\0"))) == {"gzip.checksum"}


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_what_joblib_compresses_is_judged_by_what_it_is(tmp_path: Path, compress: tuple[str, int]) -> None:
    import joblib

    joblib.dump({"classes": list(range(3000))}, tmp_path / "benign", compress=compress)
    joblib.dump(Payload(), tmp_path / "hostile", compress=compress)
    benign = (tmp_path / "benign").read_bytes()
    assert judge(benign, "model.joblib")["verdict"] == "clean"
    answer = judge((tmp_path / "hostile").read_bytes(), "model.joblib")
    assert answer["verdict"] == "malicious"
    assert answer["findings"][0]["path"] == "model.joblib!content"


# What is inside counts


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    **COMPRESSORS,
    "tar": lambda content: tarred({"inner": content}),
    "zip": lambda content: zipped({"inner": content}),
    "7z": lambda content: packed_7z({"a.txt": b"first", "inner": content}),
    "tar.gz": lambda content: gzip.compress(tarred({"inner": content})),
    "tar.bz2": lambda content: bz2.compress(tarred({"inner": content})),
    "zip in tar.xz": lambda content: lzma.compress(tarred({"inner.zip": zipped({"inner": content})})),
    "7z in 7z": lambda content: packed_7z({"inner.7z": packed_7z({"inner": content}, "lzma"), "a": b"text"}),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_inside_is_judged_as_if_it_had_been_uploaded_by_itself(name: str) -> None:
    assert judge(WRAPPERS[name](DATA))["verdict"] == "clean"
    answer = judge(WRAPPERS[name](HOSTILE), "upload")
    assert answer["verdict"] == "malicious"
    assert answer["findings"][0]["rule"] == "pickle.gadget"
    assert answer["findings"][0]["path"].startswith("upload!")


@pytest.mark.parametrize("name", COMPRESSORS)
def test_payload_counts_even_where_the_stream_breaks_behind_it(name: str) -> None:
    padding = os.urandom(4000)
    packed = COMPRESSORS[name](HOSTILE + padding)
    answer = judge(packed[:-600])
    if name != "bzip2":  # which gives nothing away before a whole block is there
        assert answer["verdict"] == "malicious"
    assert rules(answer) >= {f"{name}.truncated"}


def test_layout_is_looked_for_in_its_own_containers_only() -> None:
    """A loader that expects a tar archive does not find its layout in a zip one."""
    seen: list[str] = []

    def layout_examine(archive: Archive, inspection: Inspection) -> None:
        seen.extend(f"{archive.kind}:{archive.path_of(name)}" for name in archive.members)
        assert archive.open("pickle").read(0, len(DATA)) == DATA

    readers, _ = discover()
    layout = Layout(
        name="legacy", recognises=lambda names: "pickle" in names, examine=layout_examine, containers=frozenset({"tar"})
    )
    for content in (tarred({"pickle": DATA}), zipped({"pickle": DATA}), packed_7z({"pickle": DATA})):
        inspection = Inspection(limits=Limits(), readers=readers, layouts=(layout,))
        inspection.examine(of_bytes(content), "m")
        assert inspection.verdict == "clean"
    assert seen == ["tar:m!pickle"]


def test_members_are_named_by_the_way_to_them() -> None:
    inner = gzip.compress(tarred({"deep/model.pkl": HOSTILE}))
    answer = judge(zipped({"set/data.tar.gz": inner}), "package.zip")
    assert answer["findings"][0]["path"] == "package.zip!set/data.tar.gz!data.tar!deep/model.pkl"
    answer = judge(gzip.compress(b"torch @ https://example.org/x.whl\n"), "requirements.txt.gz")
    assert rules(answer) == {"requirements.source"}


def test_antivirus_gets_everything_that_was_packed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    inner = {"one.txt": b"content one", "two.txt": b"content two"}
    upload = zipped({"a.7z": packed_7z(inner), "b.gz": gzip.compress(b"content three")}, zipfile.ZIP_STORED)
    assert judge(upload, unpack_to=scratch)["verdict"] == "clean"
    assert {path.read_bytes() for path in scratch.iterdir()} == {*inner.values(), b"content three"}
