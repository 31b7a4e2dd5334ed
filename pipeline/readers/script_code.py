"""Checks the code inside a TorchScript archive: which operators it can reach. Knows no archives and runs nothing.

The text is split into tokens by rules narrower than both Python's and TorchScript's, so that no string can be read
as code by one and as text by the other; then every dotted name must lead to a reviewed operator, a class of the
archive or a value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.readers.allowed import NATIVE_CLASSES
from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.torch_ops import FORBIDDEN, OPERATORS
from pipeline.readers.words import words

_TOKEN = re.compile(
    r"""(?P<space>[ \n]+|\#[^\n]*)"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?j?)"""
    r"""|(?P<mark>->|\*\*|//|<<|>>|[-+*/%@&|^~<>=!]=?|[()\[\]{},:;.])"""
)
_STATEMENTS = words("import from lambda global nonlocal exec async await yield with try except finally del")
_WORDY = ("name", "number", "string")
_DANGEROUS = frozenset(name.split("::")[1] for name in FORBIDDEN)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int


def check(text: str, path: str, inspection: Inspection) -> None:
    """Report everything in the code that could do more than compute."""
    tokens = list(_tokens(text))
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.kind == "name" and (index == 0 or tokens[index - 1].text != "."):
            length = _dotted(tokens, index)
            _check_name([part.text for part in tokens[index : index + length : 2]], token.offset, path, inspection)
            index += length
            continue
        if token.text == "." and index + 1 < len(tokens):
            _check_attribute(tokens[index + 1], path, inspection)
        if token.kind == "string" and _content(token) in _DANGEROUS:
            inspection.unknown(
                "torchscript.hidden_name", path, token.offset, f"The code holds {token.text} as a string."
            )
        index += 1


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    before = ""
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise Malformed("torchscript.code", f"The code cannot be read at {text[at : at + 20]!r}.", at)
        kind = match.lastgroup
        if before in _WORDY and kind in _WORDY:
            raise Malformed("torchscript.code", f"{match.group()[:20]!r} is glued to what stands before it.", at)
        if kind == "space" and "type:" in match.group():
            raise Malformed("torchscript.code", "A comment declares types.", at)
        if kind != "space":
            yield _Token(kind, match.group(), at)
        before = kind
        at = match.end()


def _content(token: _Token) -> str:
    """What a string says once its escapes are resolved."""
    try:
        return str(ast.literal_eval(token.text))
    except (ValueError, SyntaxError):
        raise Malformed("torchscript.code", "A string holds broken escapes.", token.offset) from None


def _dotted(tokens: list[_Token], index: int) -> int:
    """How many tokens form the dotted name that begins here."""
    end = index + 1
    while end + 1 < len(tokens) and tokens[end].text == "." and tokens[end + 1].kind == "name":
        end += 2
    return end - index


def _check_name(parts: list[str], offset: int, path: str, inspection: Inspection) -> None:
    root, name = parts[0], ".".join(parts)
    if root in _STATEMENTS:
        inspection.unknown("torchscript.statement", path, offset, f"TorchScript writes no {root!r} statement.")
    elif root == "torch" and len(parts) > 1:
        _check_operator("aten", parts[1], offset, path, inspection)
    elif root == "ops" and len(parts) > 2:
        _check_operator(parts[1], parts[2], offset, path, inspection)
    elif root in ("torch", "ops"):
        inspection.unknown("torchscript.namespace", path, offset, f"The code uses {name!r} as a value.")
    elif root == "__torch__":
        module, kind = ".".join(parts[:-1]), parts[-1]
        if name.startswith("__torch__.torch.classes.") and (module, kind) not in NATIVE_CLASSES:
            inspection.unknown("torchscript.native_class", path, offset, f"The code uses the native class {name!r}.")
    else:
        for attribute in parts[1:]:
            _check_attribute(_Token("name", attribute, offset), path, inspection)


def _check_operator(namespace: str, name: str, offset: int, path: str, inspection: Inspection) -> None:
    full = f"{namespace}::{name}"
    if full in FORBIDDEN:
        inspection.malicious(
            "torchscript.operator",
            path,
            offset,
            f"The code calls {full}, which reaches files, Python or other machines.",
        )
    elif name not in OPERATORS.get(namespace, ()):
        inspection.unknown(
            "torchscript.operator",
            path,
            offset,
            f"The code calls {full[:100]}, which nobody has vetted.",
            "Export to ONNX yourself, or have a reviewer look at the operator.",
        )


def _check_attribute(token: _Token, path: str, inspection: Inspection) -> None:
    """`value.save(…)` reaches `aten::save`: TorchScript looks methods of values up among the operators."""
    if token.text in _DANGEROUS:
        inspection.malicious(
            "torchscript.operator", path, token.offset, f"The code calls .{token.text}, which reaches files or Python."
        )
