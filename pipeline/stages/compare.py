"""Hold what a rebuild has made against what the registry has recorded: same input, same toolchain, same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import Rejected
from pipeline.recipes import NO_GAIN
from pipeline.run import Purpose
from pipeline.stage import Context, File, Json, Report, Stage
from pipeline.stages.promote import variant_name


def run(ctx: Context) -> Report:
    """Facts: `same`, `artifacts` with both digests each, and `toolchain`, where the two differ: recorded and present versions.

    A variant that is built on a device (`tensorrt-fp16@sm90`) is not made again here and does not count; nor does one that
    is only kept where it is faster, and was not this time: that depends on the machine, not on the bytes.
    """
    idle = {
        each["name"]
        for passage in ctx.earlier.values()
        if passage.own
        for each in passage.facts.get("variants", ())
        if str(each.get("reason")).startswith(f"{NO_GAIN}:")
    }
    rebuilt = {variant_name(file): file for passage in ctx.earlier.values() if passage.own for file in passage.files}
    artifacts: list[Json] = []
    toolchain: dict[str, Json] = {}
    for recorded in ctx.options["recorded"]:
        name, file = recorded["name"], rebuilt.get(recorded["name"])
        if "@" in name or name in idle:
            continue
        artifacts.append(
            {
                "name": name,
                "recorded": recorded["sha256"],
                "rebuilt": None if file is None else file.sha256,
                "same": file is not None and file.sha256 == recorded["sha256"],
            }
        )
        if file is not None:
            toolchain |= _differences(recorded["toolchain"], file)
    if not artifacts:
        raise Rejected("nothing_to_compare", "The version has no artifact that is made by converting.")
    same = all(each["same"] for each in artifacts)
    for each in artifacts:
        ctx.log(f"{each['name']}: {'same bytes' if each['same'] else 'differs'}")
    return Report(facts={"same": same, "artifacts": artifacts, "toolchain": toolchain})


def _differences(recorded: Mapping[str, Any], file: File) -> dict[str, Json]:
    present: Mapping[str, Any] = file.meta.get("toolchain", {})
    return {
        tool: {"recorded": recorded.get(tool), "present": present.get(tool)}
        for tool in sorted({*recorded, *present})
        if recorded.get(tool) != present.get(tool)
    }


STAGE = Stage(
    name="compare", run=run, queue="default", after=("convert", "optimize"), purposes=(Purpose.REBUILD,), max_attempts=5
)
