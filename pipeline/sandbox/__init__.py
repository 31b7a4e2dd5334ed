"""Outside bytes are read by a child that has nothing to steal: no network, no credentials, no way out.

`Zygote` starts such children (`pipeline.stage.Sandbox`), `supported` says what this machine enforces, `safe_file` and
`discard` treat what a child left behind. `cgroup.prepare` makes a worker's own group ready for theirs.
"""

from pipeline.sandbox import cgroup
from pipeline.sandbox.answer import ChildFailed
from pipeline.sandbox.host import Support, Zygote, supported
from pipeline.sandbox.scratch import discard, safe_file

__all__ = ["ChildFailed", "Support", "Zygote", "cgroup", "discard", "safe_file", "supported"]
