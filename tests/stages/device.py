"""A step for the pool whose children are spawned; tells how the process that carries it out was started, and its GPU."""

import os

from billiard import get_start_method

from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    ctx.log("at the device")
    seen = {"gpu": ctx.options["gpu"], "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "process": os.getpid()}
    return Report(facts={"start_method": get_start_method(), **seen})


STAGE = Stage(name="device", run=run, queue="gpu", after=("hang",))
