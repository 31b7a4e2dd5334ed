"""Which licence a text is: recognised word for word, or not at all. Pure; holds digests of the texts, not the texts.

A text is compared without its title, copyright lines, punctuation, bullets and line breaks, and whoever the holder is. One word more
or less makes another licence (MIT's text with "for Good, not Evil" is not MIT), so it is not recognised. A GPL's text does
not say whether later versions will do too: it counts as `-only`. The digests are of the texts at https://choosealicense.com
and of those that Debian ships, whole and without what follows "END OF TERMS AND CONDITIONS".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

LONGEST = 256 << 10
"""Characters that a licence's text may have."""

_TOP = 1000
"""Characters at the beginning in which an identifier speaks for the whole."""
_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9 .+:()-]+)")
_LINE = re.compile(
    r"^[^\w\n]*(?:copyright[ \t]*(?:\(c\)|©|\d{4}|\[|<|by\b).*|\(c\)[ \t].*|©.*|all rights reserved[^\w\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\(?[0-9a-h][.)])[ \t]+", re.MULTILINE | re.IGNORECASE)
_ADDRESS = re.compile(r"\b(?:51 franklin street(?: fifth floor)?|59 temple place(?: suite 330)?) boston ma [0-9 ]+usa ")
_HOLDERS = (
    (re.compile(r"neither the name of .{1,150}? nor the names of its contributors"), "neither the name of holder"),
    (
        re.compile(r"this software is provided by .{1,150}? as is and any express"),
        "this software is provided by holder",
    ),
    (re.compile(r"in no event shall .{1,150}? be liable for any direct"), "in no event shall holder"),
)
_END = " end of terms and conditions"
_TITLES = (
    *("the mit license mit ", "mit license ", "the mit license ", "mit "),
    *("bsd 2 clause license ", "bsd 3 clause license ", "the bsd 3 clause license ", "the 3 clause bsd license "),
    *("new bsd license ", "isc license ", "the isc license ", "license ", "unlicense ", "the unlicense "),
)


def identify(text: str) -> str | None:
    """The SPDX expression that the text names at its top in an `SPDX-License-Identifier`, or the licence that it is; else None."""
    named = {str(found).strip() for found in _TAG.findall(text[:_TOP])}
    if len(named) == 1:
        return named.pop()
    words = _plain(text)
    return next((found for part in (words, words.partition(_END)[0]) if (found := _DIGESTS.get(_digest(part)))), None)


def _plain(text: str) -> str:
    kept = _BULLET.sub("", _LINE.sub("", text))
    words = " ".join(re.findall(r"[a-z0-9]+", re.sub(r"https?://", "", kept.lower()))) + " "
    words = _ADDRESS.sub("", words)
    for pattern, instead in _HOLDERS:
        words = pattern.sub(instead, words)
    title = next((one for one in _TITLES if words.startswith(one)), "")
    return words.removeprefix(title)


def _digest(words: str) -> str:
    return hashlib.sha256(words.strip().encode()).hexdigest()[:32]


_DIGESTS: Mapping[str, str] = {
    "9c842909bcc85365ba7f0d106fccdc3a": "0BSD",
    "fb5ed549ac92cdc58fb2c8ae76c59110": "AGPL-3.0-only",
    "63f9eff717efa380da1915d651109446": "AGPL-3.0-only",
    "f9ed8d7146994f3f5c2e26b474d3a517": "Apache-2.0",
    "185248543270a7c38dc4faa595185e2e": "Apache-2.0",
    "b3b8e49e9de45daf8f3252404ecfd545": "Artistic-2.0",
    "491740ee73290c8d8aab08d08b5931ec": "BSD-2-Clause",
    "505743ae369f3ef536b3b17063ee433f": "BSD-3-Clause",
    "4dec031a59443a0c72f26cef90429cad": "BSD-4-Clause",
    "5fcf89bde8c0c2deb999f4cc626e1aeb": "BSL-1.0",
    "7ca9478c2cf83a4d718116cf07e6927e": "CC-BY-4.0",
    "d161534a4a2ea868e84c742815fb29d0": "CC-BY-SA-4.0",
    "b0fc18a015ac75b80d4ada9c70af34a6": "CC0-1.0",
    "8a7d0e63aa72070e16da6936db1070bb": "EPL-2.0",
    "86417828b0ba1c8ebb661aa7c669f95a": "EUPL-1.2",
    "f5aaf82baeac3d30aea12b206894440d": "GPL-2.0-only",
    "47d37f8c92368be60151a6e19de1dc75": "GPL-2.0-only",
    "3e478b3a82999a4f8b47809b70f8a028": "GPL-3.0-only",
    "be53f71ca80e2cb615383fa0d7e6006f": "GPL-3.0-only",
    "217da0747cec63a2e734185db11cbaa8": "ISC",
    "8ab0b753b43125806e00a809f855fead": "LGPL-2.1-only",
    "dd0af7668152e941d9ea4747001cb069": "LGPL-2.1-only",
    "cb8c0f424bdd5c42a0b18285893829d9": "LGPL-3.0-only",
    "0cf21bdfd1964a97a8615e1285348458": "MIT",
    "8a5c5745b5e345a7a2c5dfef42f9e96c": "MIT-0",
    "b07bd0ed826d61a18db2b6a77dca45b2": "MPL-2.0",
    "788cc8843bf483eb3ea3b5f6c317b955": "Unlicense",
    "817ada4f55d1504532ea1bff322c571b": "WTFPL",
    "6639a2a838439b2f70d60db893a595ac": "Zlib",
}
