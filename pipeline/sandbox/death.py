"""How a child died, and whose fault that is. Pure: judges the report that the zygote's wait4(2) gave."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pipeline.errors import Rejected, SlipwayError, Unavailable
from pipeline.stage import Limits

_TOO_MUCH_MEMORY = "The model needs more memory than a step may use."


@dataclass(frozen=True, kw_only=True)
class Death:
    """`signal` is 0 when the process ended itself with `exit`; `cpu` in seconds, `peak` in bytes."""

    signal: int
    exit: int
    cpu: float
    peak: int


def judge(death: Death | None, *, limits: Limits, output: str, out_of_memory: bool) -> SlipwayError:
    """The error to raise for a child that died without our doing; None means that the zygote died with it.

    `out_of_memory`: the kernel killed it at the limit of its own cgroup.
    """
    if death is None:
        return Unavailable("sandbox_killed", "The sandbox was killed from outside.")
    if death.signal == signal.SIGKILL and out_of_memory:
        return Rejected("memory_limit", _TOO_MUCH_MEMORY)
    if death.signal == signal.SIGXCPU or (death.signal == signal.SIGKILL and death.cpu >= limits.cpu):
        return Rejected(
            "time_limit", f"The model used more than the {limits.cpu} seconds of processor time it may use."
        )
    if death.signal == signal.SIGKILL:
        return Unavailable(
            "sandbox_killed", "The process that read the model was killed from outside, by want of memory?"
        )
    if death.signal == signal.SIGABRT and "bad_alloc" in output:
        return Rejected("memory_limit", _TOO_MUCH_MEMORY)
    if death.signal == signal.SIGXFSZ:
        return Rejected("file_limit", "The model makes a larger file than a step may write.")
    if death.signal:
        return Rejected("crashed", f"The process that read the model crashed with {_name(death.signal)}.")
    return Rejected("crashed", f"The process that read the model ended itself with status {death.exit}.")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
