"""Which model names people would take for one another. Pure: knows no row and no database.

Two names are *alike* where they fold to the same text: they differ in case, look-alike letters (Unicode TS 39), accents,
separators, or in digits for letters. They are *near* where one or two typing mistakes lead from one to the other.
Siblings are neither, however near: `yolo11n` and `yolo11s`, `net-v1` and `net-v2`, `bert` and `bert-large`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

Outcome = Literal["fine", "warn", "block"]
Relation = Literal["looks_the_same", "one_typo_away", "two_typos_away", "same_name"]

_DIGITS = str.maketrans("0152", "olsz")
"""Digits that are read as letters. No two digits become the same letter: `v1` and `v5` must stay two names."""
_STROKES = str.maketrans({"i": "l", "|": "l", "!": "l"})
_PAIRS = (("rn", "m"), ("vv", "w"))
_SIZES = frozenset(
    [
        "pico",
        "nano",
        "tiny",
        "mini",
        "micro",
        "small",
        "medium",
        "base",
        "large",
        "big",
        "huge",
        "giant",
        "xs",
        "xl",
        "xxl",
        "xxs",
        "lite",
        "light",
        "fast",
        "full",
        "pro",
        "turbo",
    ]
)
_TOKEN = re.compile(r"\d+|[^\W\d_]+")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
_SEPARATOR = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w.]|_")


@dataclass(frozen=True, kw_only=True)
class Known:
    """A name that somebody has already, with what it folds to."""

    name: str
    folded: str
    owner: str
    mine: bool


@dataclass(frozen=True, kw_only=True)
class Similar:
    """A name that another one is like, and how."""

    name: str
    owner: str
    relation: Relation


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """`block`: it would be taken for a name that is there. `warn`: it may be a mistake for one."""

    outcome: Outcome
    similar: tuple[Similar, ...]


def judge(name: str, known: Iterable[Known]) -> Judgement:
    """What to think of a new name beside those that its maker may see. Never compares it with itself (same owner)."""
    folded = fold(name)
    limit = typos(folded)
    similar: list[Similar] = []
    for each in known:
        if each.mine and each.name == name:
            continue
        relation = _relation(name, folded, each, limit)
        if relation is not None:
            similar.append(Similar(name=each.name, owner=each.owner, relation=relation))
    similar.sort(key=lambda each: (_ORDER.index(each.relation), each.owner, each.name))
    relations = {each.relation for each in similar}
    if "looks_the_same" in relations:
        return Judgement(outcome="block", similar=tuple(similar))
    near = relations & {"one_typo_away", "two_typos_away"}
    return Judgement(outcome="warn" if near else "fine", similar=tuple(similar))


_ORDER: tuple[Relation, ...] = ("looks_the_same", "one_typo_away", "two_typos_away", "same_name")


def fold(name: str) -> str:
    """The name as eyes read it. A separator between two digits stays: 1.1 is not 11."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    latin = "".join(_latin(letter) for letter in plain).casefold()
    bare = "".join(each for each in unicodedata.normalize("NFKD", latin) if unicodedata.category(each) != "Mn")
    text = _SEPARATOR.sub("", _BETWEEN_DIGITS.sub(".", bare.translate(_STROKES))).translate(_DIGITS)
    for pair, letter in _PAIRS:
        text = text.replace(pair, letter)
    return text or plain


def siblings(one: str, other: str) -> bool:
    """Whether two names say themselves that they are different: by a number, a size, a single letter, or one part more."""
    first, second = _tokens(one), _tokens(other)
    words, numbers = [
        [[token for token in tokens if token.isdigit() == digits] for tokens in (first, second)]
        for digits in (False, True)
    ]
    if words[0] == words[1] and numbers[0] != numbers[1]:
        return True
    if len(first) == len(second):
        return all(a == b or _told_apart(a, b) for a, b in zip(first, second, strict=True))
    short, long = sorted((first, second), key=len)
    return long[: len(short)] == short and all(_is_mark(token) for token in long[len(short) :])


def typos(folded: str) -> int:
    """How many mistakes make two names of this length near: none in short ones, where everything is near."""
    return 0 if len(folded) < 4 else 1 if len(folded) < 8 else 2


def distance(one: str, other: str, limit: int) -> int:
    """Damerau-Levenshtein distance in which no letter is edited twice (optimal string alignment).

    Beyond `limit` it is `limit + 1`, whatever it is, and found quickly: most names differ in more letters than that.
    """
    too_far = limit + 1
    if abs(len(one) - len(other)) > limit or len(set(one) ^ set(other)) > 2 * limit:
        return too_far
    before: list[int] = []
    row = [min(j, too_far) for j in range(len(other) + 1)]
    for i, letter in enumerate(one, start=1):
        two_before, before, row = before, row, [min(i, too_far)] + [too_far] * len(other)
        for j in range(max(1, i - limit), min(len(other), i + limit) + 1):
            opposite = other[j - 1]
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != opposite))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == opposite:
                cost = min(cost, two_before[j - 2] + 1)
            row[j] = min(cost, too_far)
    return row[-1]


def _relation(name: str, folded: str, known: Known, limit: int) -> Relation | None:
    if known.name == name:
        return "same_name"  # whose it is tells them apart: names are unique for each owner
    if known.folded == folded:
        return "looks_the_same"
    allowed = min(limit, typos(known.folded))
    away = distance(folded, known.folded, allowed)
    if away > allowed or siblings(name, known.name):
        return None
    return "one_typo_away" if away == 1 else "two_typos_away"


def _tokens(name: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", name).casefold())


def _told_apart(one: str, other: str) -> bool:
    if one.isdigit() or other.isdigit():
        return one.isdigit() and other.isdigit()
    return _is_mark(one) and _is_mark(other)


def _is_mark(token: str) -> bool:
    return token.isdigit() or len(token) == 1 or token in _SIZES


@cache
def _looks() -> dict[str, str]:
    """Letter → the ASCII text that it is confusable with."""
    from confusable_homoglyphs import confusables

    looks: dict[str, str] = {}
    for letter, glyphs in confusables.confusables_data.items():
        if letter.isascii():
            continue
        latin = [each["c"] for each in glyphs if each["c"].isascii() and each["c"].isalnum()]
        if latin:
            looks[letter] = min(latin, key=lambda text: (len(text), text))
    return looks


def _latin(letter: str) -> str:
    return letter if letter.isascii() else _looks().get(letter, letter)
