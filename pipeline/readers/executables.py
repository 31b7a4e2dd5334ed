"""Names what has no business in a model, or cannot be read here, so that findings say plainly what a file is.

Programs and libraries are malicious: no format of ours holds native code. Scripts, byte code and formats that nobody
here reads are unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.readers.inspection import Glimpse, Inspection, Reader, Severity
from pipeline.readers.source import Source

_NATIVE = "The file is native code that a loader would run: {}."
_CODE = "The file is code: {}."
_UNREADABLE = "The file is {}, which nobody here can look into."
_ADVICE = {
    _NATIVE: "Do not open this file anywhere; a model needs no programs. Find out where it came from.",
    _CODE: "Leave programs out of the upload.",
    _UNREADABLE: "Unpack it, and upload the model or a zip archive instead.",
}


@dataclass(frozen=True)
class _Kind:
    rule: str
    sentence: str
    what: str
    pattern: re.Pattern[bytes]

    @property
    def severity(self) -> Severity:
        return Severity.MALICIOUS if self.sentence == _NATIVE else Severity.UNKNOWN


def _kinds(rule: str, sentence: str, table: dict[str, bytes]) -> tuple[_Kind, ...]:
    return tuple(_Kind(rule, sentence, what, re.compile(pattern, re.DOTALL)) for what, pattern in table.items())


_KINDS = (
    *_kinds(
        "content.native_code",
        _NATIVE,
        {
            "a Linux program or library (ELF)": rb"\x7fELF",
            "a Windows program or library (PE)": rb"MZ.{58}(?=(?P<at>.{4}))",
            "a macOS program or library (Mach-O)": rb"\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba[\xbe\xbf]\0\0\0[\x01-\x1e]",
            "a library of object files (ar)": rb"!<(?:arch|thin)>\n",
            "a WebAssembly module": rb"\0asm[\x01\x0d]\0[\0\x01]\0",
            "a program for Android (DEX)": rb"(?:dex|cdex|oat)\n\d{3}\0",
            "GPU code (CUDA fat binary)": rb"\x50\xed\x55\xba\x01\0",
            "LLVM bitcode": rb"BC\xc0\xde|\xde\xc0\x17\x0b",
        },
    ),
    *_kinds(
        "content.code",
        _CODE,
        {
            "a Java class": rb"\xca\xfe\xba\xbe\0[\0-\x04]\0[\x2d-\x80]",
            "compiled Python (.pyc)": rb"[\x80-\xff\0-\x7f][\x03-\x0f]\r\n[\0-\x03]\0\0\0",
            "compiled Lua": rb"\x1bL(?:ua|J)",
            "a script": rb"(?:\xef\xbb\xbf)?#![ \t]*/",
            "a PHP script": rb"(?:\xef\xbb\xbf)?\s*<\?php\b",
            "a batch file": rb"(?:\xef\xbb\xbf)?(?i:@echo off)\s",
            "a Windows shortcut": rb"L\0\0\0\x01\x14\x02\0",
            "a DOS program": rb"MZ(?=.{0,62}\0)",
        },
    ),
    *_kinds(
        "content.unreadable",
        _UNREADABLE,
        {
            "compressed by Zstandard": rb"\x28\xb5\x2f\xfd|[\x20-\x27]\xb5\x2f\xfd",
            "a skippable frame of LZ4 or Zstandard": rb"[\x50-\x5f]\x2a\x4d\x18",
            "compressed by an old LZ4": rb"\x02\x21\x4c\x18",
            "compressed by lzip": rb"LZIP[\0\x01]",
            "compressed by lzop": rb"\x89LZO\0\r\n\x1a\n",
            "compressed by Snappy": rb"\xff\x06\0\0sNaPpY",
            "compressed by compress or pack": rb"\x1f[\x9d\xa0\x1e]",
            "a RAR archive": rb"Rar!\x1a\x07",
            "a Windows cabinet": rb"MSCF\0\0\0\0|ISc\(",
            "an LHA archive": rb"..-l(?:h[\dd]|z[s45])-",
            "a cpio archive": rb"07070[127][0-7A-Fa-f]{64}|\xc7\x71|\x71\xc7",
            "an xar archive": rb"xar!\0\x1c",
            "a file system image": rb"hsqs|sqsh|\x45\x3d\xcd\x28",
            "a part of a split or appended zip archive": rb"PK(?:\x07\x08|00PK\x03\x04|\x01\x02|\x06\x06)",
            "encrypted": rb"age-encryption\.org/|-----BEGIN (?:PGP MESSAGE|AGE ENCRYPTED FILE)|Salted__|-----BEGIN CMS",
            "an Office document": rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1|\{\\rtf",
            "a PDF document": rb"%PDF-",
            "an SQLite database": rb"SQLite format 3\0",
            "a picture": rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP",
            "sound or video": rb"RIFF.{4}(?:WAVE|AVI )|ID3[\x02-\x04]\0|OggS|fLaC|.{4}ftyp|\x1aE\xdf\xa3",
            "a table of columns (Parquet or Arrow)": rb"PAR1\x15|ARROW1\0\0",
            "a GGUF or GGML model": rb"GGUF[\x01-\x04]\0\0\0|(?:lmgg|fmgg|tjgg)[\0-\x04]\0\0\0",
        },
    ),
)


def _kind(head: bytes) -> _Kind | None:
    for kind in _KINDS:
        match = kind.pattern.match(head)
        if match is not None and ("at" not in kind.pattern.groupindex or _is_windows(head, match["at"])):
            return kind
    return None


def _is_windows(head: bytes, pointer: bytes) -> bool:
    at = int.from_bytes(pointer, "little")
    return head[at : at + 4] == b"PE\0\0"


def examine(source: Source, path: str, inspection: Inspection) -> None:
    kind = _kind(source.head(4096))
    if kind is not None:
        message = kind.sentence.format(kind.what)
        inspection.note(kind.severity, kind.rule, path, 0, message, advice=_ADVICE[kind.sentence])


# Asked after the readers that account for every byte: a length that spells `MZ` begins a safetensors file.
def _recognises(glimpse: Glimpse) -> bool:
    return _kind(glimpse.head) is not None


READER = Reader(name="executables", recognises=_recognises, examine=examine, rank=1)
