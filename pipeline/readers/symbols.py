"""What stands on the symbolic machine's stack in place of real objects. Knows neither opcodes nor what is allowed.

Numbers, short strings, booleans, None and tuples of symbols stand for themselves; everything else is a `Thing`.
"""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[str, str]
HIGHEST = 5
"""The newest protocol."""
KEPT_ITEMS = 1 << 16
ALWAYS_KEPT = 64
"""So many items of a list or entries of a dict are kept; of what is longer, a check cannot see all and refuses it."""


@dataclass(frozen=True)
class Global:
    """A name that a pickle looked up."""

    module: str
    name: str

    @property
    def pair(self) -> Pair:
        return self.module, self.name

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Mark:
    """The mark on the stack."""


class Thing:
    """A value whose content does not matter: a number out of range, a long text, a tensor's storage."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class Bytes(Thing):
    """Bytes of the pickle: `length` of them at offset `start`; `content` only while they are few."""

    __slots__ = ("content", "length", "start")

    def __init__(self, start: int, length: int, content: bytes | None) -> None:
        super().__init__("bytes")
        self.start = start
        self.length = length
        self.content = content


class Text(Thing):
    """A long text: `length` bytes of UTF-8 at offset `start`."""

    __slots__ = ("length", "start")

    def __init__(self, start: int, length: int) -> None:
        super().__init__("text")
        self.start = start
        self.length = length


class Elements(Thing):
    """A tensor's storage: so many numbers, or bytes where it is `untyped`."""

    __slots__ = ("count", "untyped")

    def __init__(self, count: int, *, untyped: bool) -> None:
        super().__init__("storage")
        self.count = count
        self.untyped = untyped


class Items(Thing):
    """A list or a set. `whole` is false once it got more items than are kept."""

    __slots__ = ("values", "whole")

    def __init__(self, what: str, values: list[object] | None = None) -> None:
        super().__init__(what)
        self.values: list[object] = []
        self.whole = True
        self.add(values or [])

    def add(self, values: list[object], most: int = KEPT_ITEMS) -> None:
        room = max(0, most - len(self.values))
        self.whole = self.whole and len(values) <= room
        self.values += values[:room]


class Table(Thing):
    """A dict. `entries` has the ones whose keys are short strings; `odd` says that some other key was set.

    `whole` is false once there were more entries than are kept; a special name that got lost so makes the dict odd.
    """

    __slots__ = ("entries", "odd", "whole")

    def __init__(self) -> None:
        super().__init__("dict")
        self.entries: dict[str, object] = {}
        self.odd = False
        self.whole = True

    def set(self, key: object, value: object, most: int = KEPT_ITEMS) -> None:
        if not isinstance(key, str):
            self.odd = True
        elif len(self.entries) < most or key in self.entries:
            self.entries[key] = value
        else:
            self.whole = False
            self.odd = self.odd or is_special(key)


class Made(Thing):
    """What a vetted call or a vetted class made. `done` once its state is set: no pickler touches it after that."""

    __slots__ = ("arguments", "done", "kind", "state")

    def __init__(self, kind: Global, arguments: tuple[object, ...] = ()) -> None:
        super().__init__(f"result of {kind}")
        self.kind = kind
        self.arguments = arguments
        self.state: object = None
        self.done = False


def is_special(name: str) -> bool:
    """Whether Python itself gives a meaning to an attribute of this name."""
    return name.startswith("__") and name.endswith("__")
