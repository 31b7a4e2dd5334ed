"""Outside bytes are read by a child that has nothing to steal: no network, no credentials, no way out.

`Zygote` starts such children (`pipeline.stage.Sandbox`), `supported` says what this machine enforces, `new_scratch` is
where they work, `safe_file` and `discard` treat what one left behind. `cgroup.prepare` makes a worker's own group ready for theirs.
"""

from pipeline.sandbox import cgroup
from pipeline.sandbox.answer import ChildFailed
from pipeline.sandbox.host import Support, Zygote, supported
from pipeline.sandbox.scratch import PASSABLE, discard, forget_dead_scratch, new_scratch, safe_file

__all__ = [
    "PASSABLE",
    "ChildFailed",
    "Support",
    "Zygote",
    "cgroup",
    "discard",
    "forget_dead_scratch",
    "new_scratch",
    "safe_file",
    "supported",
]
