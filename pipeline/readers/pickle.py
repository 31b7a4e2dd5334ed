"""Reads files that are pickles, one behind the other.

A payload counts even when the pickle breaks after it, because a real unpickler would have run it by then.
"""

from __future__ import annotations

from pipeline.readers.allowed import SCRIPT, TENSORS, Allowed, frameworks
from pipeline.readers.gadgets import is_gadget
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.machine import PROBE, Machine, Walk
from pipeline.readers.source import Source, of_bytes
from pipeline.readers.symbols import HIGHEST


def examine(source: Source, path: str, inspection: Inspection, allowed: Allowed | None = None) -> None:
    """Judge all pickles of a file, one behind the other."""
    allowed = allowed or frameworks()
    offset, arrays = 0, 0
    while offset < source.size:
        done = walk(source, path, inspection, allowed, offset=offset)
        offset, arrays = done.end, arrays + done.arrays
        if offset < source.size and source.read(offset, 1) != b"\x80":
            rest = source.part(offset, source.size - offset)
            if would_act(rest):
                walk(source, path, inspection, allowed, offset=offset)
            raise Malformed("pickle.trailing", f"{rest.size:,} bytes follow the pickle.", offset)
        inspection.tick()
    inspection.credit("pickle", source.size - arrays)


def walk(source: Source, path: str, inspection: Inspection, allowed: Allowed, *, offset: int = 0) -> Walk:
    """Interpret one pickle up to its STOP."""
    return Machine(source, path, inspection, allowed, offset).run()


def would_act(source: Source) -> bool:
    """Whether an unpickler would call something before it noticed that this is no pickle, or import if it is one."""
    return _probed(source).acts


def _probed(source: Source) -> Machine:
    """A machine that went as far as it could and told nobody."""
    machine = Machine(source, "", Inspection(limits=PROBE, readers=()), frameworks(), 0, probing=True)
    machine.attempt()
    return machine


def _recognises(glimpse: Glimpse) -> bool:
    head = glimpse.head
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= HIGHEST:
        return True
    machine = _probed(of_bytes(head))
    whole = machine.result.end == glimpse.size
    begun = machine.cut and glimpse.size > len(head) and len(machine.memo) > 0
    return machine.acts or whole or begun


def _recall(name: str) -> Severity | None:
    """Of `module name`, once allowed: what is on no list any more, or has become a gadget."""
    module, _, attribute = name.partition(" ")
    if any(each.knows((module, attribute)) for each in (frameworks(), TENSORS, SCRIPT)):
        return None
    return Severity.MALICIOUS if is_gadget(module, attribute) else Severity.UNKNOWN


READER = Reader(name="pickle", recognises=_recognises, examine=examine, version=2, rank=5, recall=_recall)
