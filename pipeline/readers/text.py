"""Text: configurations, requirements, cards.

Looks for secrets, for tags that make a YAML loader build objects, for requirements that install from anywhere, and
for pickles that are written in letters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from pipeline.readers import pickle, strict_json
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Source
from pipeline.readers.words import words

_BINARY = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_LONGEST_REQUIREMENT = 1000
_BOM = b"\xef\xbb\xbf"

_SECRETS = (
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("an AWS secret key", re.compile(r"(?i)aws.{0,30}secret.{0,30}[=:]\s*[\"']?([0-9A-Za-z/+]{40})\b")),
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{50,})\b")),
    ("a GitLab token", re.compile(r"\bglpat-[0-9A-Za-z_-]{20,}\b")),
    ("a Hugging Face token", re.compile(r"\bhf_[0-9A-Za-z]{30,}\b")),
    ("an OpenAI or Anthropic key", re.compile(r"\bsk-(?:ant-|proj-)?[0-9A-Za-z_-]{32,}\b")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a Google service account", re.compile(r"\"type\"\s*:\s*\"service_account\"")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}\b")),
    ("a Stripe key", re.compile(r"\b[rs]k_live_[0-9A-Za-z]{20,}\b")),
    ("an npm or PyPI token", re.compile(r"\b(?:npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,})\b")),
    ("a Slipway key", re.compile(r"\bslw_[0-9A-Za-z_-]{20,}\b")),
    ("a JSON web token", re.compile(r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{20,}")),
    ("an Azure storage key", re.compile(r"AccountKey=([0-9A-Za-z+/=]{60,})")),
    ("a password in a URL", re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,80}:([^\s/:@]{6,80})@[\w.-]")),
)
_OBJECT_TAG = re.compile(
    r"!!(?:python|ruby|java|javax|perl|php|js|net)[/.:]|!<?tag:yaml\.org,2002:python", re.IGNORECASE
)
_PLAIN_TAGS = words("!!str !!int !!float !!bool !!null !!map !!seq !!set !!omap !!binary !!timestamp")
_TAG = re.compile(r"(?:^|[\s\[{,:-])(!(?:<[^>]*>|[A-Za-z!][^\s,\]}]*|(?=\s|$)))")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"(?:\(?\s*(?:[<>=!~]{1,3}\s*(?:[0-9]+!)?[A-Za-z0-9.*+_-]+\s*,?\s*)*\)?)?\s*(?:;.*)?"
)
_HASH = re.compile(r"\s*\\?\s*--hash=[a-z0-9]+:[0-9a-f]+")


def examine(source: Source, path: str, inspection: Inspection) -> None:
    if source.size > inspection.limits.text:
        raise Malformed("text.oversized", f"{source.size:,} bytes of text are more than any configuration needs.")
    _look_for_pickle(source, path, inspection)
    name = path.rsplit("/", 1)[-1].rsplit("!", 1)[-1].lower()
    yaml, requirements = name.endswith((".yaml", ".yml")), "requirements" in name
    if name.endswith(".json"):
        strict_json.parse(source.read(0, source.size).removeprefix(_BOM))
    for offset, line in _lines(source):
        _check_secrets(line, offset, path, inspection)
        if ("!" in line and "tag" in line) or "!!" in line or yaml:
            _check_tags(line, offset, path, inspection, strict=yaml)
        if requirements and not yaml:
            _check_requirement(line, offset, path, inspection)
        inspection.tick()
    inspection.credit("text", source.size)


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    """Lines with the byte offset at which each begins; raises when this is no text after all."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest, offset = "", 0
    for chunk in (*source.chunks(), b""):
        try:
            rest += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            raise Malformed("text.binary", "The text turns into bytes that are not text.", offset) from None
        *whole, rest = rest.split("\n")
        for line in (*whole, rest) if not chunk else whole:
            if _BINARY.search(line):
                raise Malformed("text.binary", "The text holds control characters.", offset)
            yield offset, line
            offset += len(line.encode()) + 1


def _check_secrets(line: str, offset: int, path: str, inspection: Inspection) -> None:
    for what, pattern in _SECRETS:
        match = pattern.search(line)
        if match is not None:
            sample = match.group(match.lastindex or 0)
            inspection.unknown(
                "secret",
                path,
                offset + len(line[: match.start()].encode()),
                f"This looks like {what}: {sample[:4]}… ({len(sample)} characters).",
                "Revoke the secret, remove it from the file and upload again.",
            )


def _check_tags(line: str, offset: int, path: str, inspection: Inspection, *, strict: bool) -> None:
    """Tags make YAML loaders build objects. In other text only the notorious ones count."""
    if _OBJECT_TAG.search(line):
        inspection.malicious("yaml.object_tag", path, offset, "A YAML tag builds objects of a programming language.")
    elif strict:
        if line.startswith("%"):
            inspection.unknown("yaml.directive", path, offset, "A YAML directive can rename tags.")
        quoteless = re.sub(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|(?:^|\s)#.*", " ", line)
        for match in _TAG.finditer(quoteless):
            if match.group(1) not in _PLAIN_TAGS:
                inspection.unknown("yaml.tag", path, offset, f"The YAML tag {match.group(1)[:60]!r} is not plain data.")


def _check_requirement(line: str, offset: int, path: str, inspection: Inspection) -> None:
    """Only `name==1.2; marker` lines: no options, addresses, paths or editable installs."""
    bare = re.sub(r"(?:^|\s)#.*", "", line).strip().removesuffix("\\").strip()
    bare = _HASH.sub("", bare).strip()
    if bare and (
        len(bare) > _LONGEST_REQUIREMENT or "://" in bare or " @ " in bare or _REQUIREMENT.fullmatch(bare) is None
    ):
        inspection.unknown(
            "requirements.source",
            path,
            offset,
            f"The requirement {bare[:60]!r} names an option, an address or a path instead of a package.",
            "List plain packages with versions only.",
        )


def _look_for_pickle(source: Source, path: str, inspection: Inspection) -> None:
    if pickle.would_act(source):
        pickle.examine(source, path, inspection)
        inspection.unknown("text.pickle", path, 0, "The text is a pickle, too.")


def _recognises(glimpse: Glimpse) -> bool:
    """Decodes as text as far as can be seen; a character cut at the end of the glimpse is forgiven."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(glimpse.head)
    except UnicodeDecodeError:
        return False
    return _BINARY.search(text) is None


READER = Reader(name="text", recognises=_recognises, examine=examine, rank=9)
