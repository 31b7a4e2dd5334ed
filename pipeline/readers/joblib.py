"""joblib writes the numbers of an array right behind the wrapper that describes it, into the middle of the pickle.

Who does not know that reads numbers as opcodes, or opcodes as numbers: so the wrapper must be exact, nothing may
stand between it and the numbers, and the numbers must be harmless for an unpickler that does not know joblib, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.readers.arrays import joblib_aligned, joblib_array
from pipeline.readers.gadgets import is_gadget
from pipeline.readers.inspection import Malformed, Severity
from pipeline.readers.symbols import Global, Made, Mark, Thing

if TYPE_CHECKING:
    from pipeline.readers.machine import Machine

_ARRAY = Global("numpy", "ndarray")
_WIDEST_PADDING = 64
_NAME = re.compile(r"[A-Za-z_][\w.]{0,200}")
_CALLING = ("pickle.arguments", "pickle.state", "pickle.unvetted_call", "pickle.tool")


def read_array(machine: Machine, wrapper: Made, state: object) -> None:
    """The wrapper on the stack has got its state: read the array that follows and put it in the wrapper's place."""
    described = joblib_array(wrapper, state)
    if described is None:
        raise Malformed("joblib.wrapper", "joblib does not describe its arrays like this.", machine.at)
    (width, objects), count = described
    start = machine.cursor.position
    if machine.frame_end > start:
        raise Malformed(
            "joblib.frame", "Opcodes hide between an array's description and its numbers.", start, Severity.MALICIOUS
        )
    if not machine.probing and not objects and machine.result.arrays == 0:
        _read_on_as_pickle(machine)
    if objects:
        _read_objects(machine)
    else:
        if joblib_aligned(state):
            padding = machine.cursor.byte()
            if padding > _WIDEST_PADDING or machine.cursor.take(padding).strip(b"\xff"):
                raise Malformed("joblib.padding", "Something else than padding stands before an array.", start)
        machine.cursor.skip(width * count)
        machine.result.arrays += machine.cursor.position - start
        machine.inspection.credit("joblib", machine.cursor.position - start)
    machine.pop()
    machine.push(Made(_ARRAY))


def _read_objects(machine: Machine) -> None:
    """A whole pickle stands between two opcodes of this one."""
    with machine.inspection.deeper():
        done = machine.beside(machine.source, machine.path, machine.cursor.position).run()
    machine.result.calls += done.calls
    machine.result.arrays += done.arrays
    machine.cursor.skip(done.end - machine.cursor.position)


def _read_on_as_pickle(machine: Machine) -> None:
    """What an unpickler would do that takes the numbers for opcodes."""
    other = machine.probe(machine.source, machine.cursor.position)
    other.stack = [one if isinstance(one, Mark | str | Global) else Thing("value") for one in machine.stack]
    other.memo = {at: one if isinstance(one, str | Global) else Thing("value") for at, one in machine.memo.items()}
    other.attempt()
    for found in other.result.names:
        if not machine.allowed.knows(found.pair) and _NAME.fullmatch(found.module) and _NAME.fullmatch(found.name):
            severity = Severity.MALICIOUS if is_gadget(found.module, found.name) else Severity.UNKNOWN
            message = f"Read as a plain pickle, the array's numbers name {found}."
            machine.inspection.note(severity, "joblib.polyglot", machine.path, machine.at, message)
    if any(finding.rule in _CALLING for finding in other.inspection.findings):
        machine.unknown("joblib.polyglot", "Read as a plain pickle, the array's numbers call something.")
