"""Text: configurations, requirements, cards.

Looks for secrets, for tags that make a YAML loader build objects, for requirements that install from anywhere, and
for pickles that are written in letters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from pipeline.readers import pickle, strict_json
from pipeline.readers.gadgets import is_gadget
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
    r"(?:\(?\s*(?:[<>=!~]{1,3}\s*(?:[0-9]+!)?[A-Za-z0-9.*+_-]+\s*,?\s*)*\)?)?\s*(?:;(?P<marker>.*))?"
)
_MARKER = re.compile(
    r"\s*(?:(?P<value>[a-z_]+(?:\.[a-z_]+)?(?![\w.])|'[^'\"]*'|\"[^'\"]*\")|(?P<mark><=|>=|===?|!=|~=|<|>|[()]))\s*"
)
_MARKER_WORDS = words("and or in not")
_TARGET = re.compile(r"(?<![A-Za-z0-9_])_target_[\"']?\s*[:=]\s*[\"']?([A-Za-z_][\w.]*)")
_ALIAS = re.compile(r"(?:^|[\s\[{,:-])([*&])([^\s,\[\]{}]+)")
_MOST_ALIASED = 1_000_000
_HASH = re.compile(r"\s*\\?\s*--hash=[a-z0-9]+:[0-9a-f]+")


def examine(source: Source, path: str, inspection: Inspection) -> None:
    if source.size > inspection.limits.text:
        raise Malformed("text.oversized", f"{source.size:,} bytes of text are more than any configuration needs.")
    _look_for_pickle(source, path, inspection)
    name = path.rsplit("/", 1)[-1].rsplit("!", 1)[-1].lower()
    yaml, requirements = name.endswith((".yaml", ".yml")), "requirements" in name
    if name.endswith(".json"):
        _check_document(strict_json.parse(source.read(0, source.size).removeprefix(_BOM)), path, inspection)
    aliases = _Aliases()
    for offset, line in _lines(source):
        _check_secrets(line, offset, path, inspection)
        if "_target_" in line and (match := _TARGET.search(line)) is not None:
            _check_target(match.group(1), offset, path, inspection)
        if yaml and ("*" in line or "&" in line):
            aliases.read(line, offset)
        if ("!" in line and "tag" in line) or "!!" in line or yaml:
            _check_tags(line, offset, path, inspection, strict=yaml)
        if requirements and not yaml:
            _check_requirement(line, offset, path, inspection)
        inspection.tick()
    inspection.credit("text", source.size)


def look_for_secrets(source: Source, path: str, inspection: Inspection) -> None:
    """Only this, for readers that understand what the text means."""
    for offset, line in _lines(source):
        _check_secrets(line, offset, path, inspection)


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
        for match in _TAG.finditer(_quoteless(line)):
            if match.group(1) not in _PLAIN_TAGS:
                inspection.unknown("yaml.tag", path, offset, f"The YAML tag {match.group(1)[:60]!r} is not plain data.")


def _check_requirement(line: str, offset: int, path: str, inspection: Inspection) -> None:
    """Only `name==1.2; marker` lines: no options, addresses, paths or editable installs."""
    bare = re.sub(r"(?:^|\s)#.*", "", line).strip().removesuffix("\\").strip()
    bare = _HASH.sub("", bare).strip()
    match = None if len(bare) > _LONGEST_REQUIREMENT else _REQUIREMENT.fullmatch(bare)
    if bare and ("://" in bare or " @ " in bare or match is None or not _is_marker(match["marker"] or "")):
        inspection.unknown(
            "requirements.source",
            path,
            offset,
            f"The requirement {bare[:60]!r} names an option, an address or a path instead of a package.",
            "List plain packages with versions only.",
        )


def _is_marker(text: str) -> bool:
    """A condition on the environment: names, texts and comparisons, nothing that could be called."""
    at, wanted = 0, True
    while at < len(text):
        match = _MARKER.match(text, at)
        if match is None:
            return False
        if match["value"] is not None and match["value"] not in _MARKER_WORDS:
            if not wanted:
                return False
            wanted = False
        elif match["mark"] not in ("(", ")"):
            wanted = True
        at = match.end()
    return True


def _check_document(document: object, path: str, inspection: Inspection) -> None:
    """Names in JSON by which libraries choose what to construct."""
    left = [document]
    while left:
        match left.pop():
            case dict() as found:
                for key, value in found.items():
                    if key.startswith("py/"):
                        inspection.unknown(
                            "json.construction", path, None, f"The key {key[:60]!r} makes jsonpickle act."
                        )
                    if key == "_target_" and isinstance(value, str):
                        _check_target(value, None, path, inspection)
                left += found.values()
            case list() as found:
                left += found
            case _:
                pass


def _check_target(target: str, offset: int | None, path: str, inspection: Inspection) -> None:
    """What `_target_` names, hydra calls: what would be a gadget in a pickle is one here."""
    module, _, name = target.rpartition(".")
    if target != "functools.partial" and is_gadget(module, name):
        inspection.unknown("text.target", path, offset, f"Who instantiates this configuration calls {target[:80]!r}.")


class _Aliases:
    """How large a YAML document becomes once its aliases are replaced by what they stand for."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._open = ""

    def read(self, line: str, offset: int) -> None:
        """Everything up to the next anchor is taken for content of the last one, which is never too little."""
        bare = _quoteless(line)
        for match in _ALIAS.finditer(bare):
            mark, name = match.groups()
            if mark == "&":
                self._open = name
                self._sizes[name] = 1
            else:
                self._sizes[self._open] = self._sizes.get(self._open, 1) + self._sizes.get(name, 1)
                if self._sizes[self._open] > _MOST_ALIASED:
                    raise Malformed("yaml.aliases", "The aliases stand for more than any configuration holds.", offset)


def _quoteless(line: str) -> str:
    return re.sub(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|(?:^|\s)#.*", " ", line)


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


READER = Reader(name="text", recognises=_recognises, examine=examine, version=2, rank=9)
