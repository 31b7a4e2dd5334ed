"""A step for the pool whose children are spawned; tells how the process that carries it out was started."""

from billiard import get_start_method

from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    ctx.log("at the device")
    return Report(facts={"start_method": get_start_method()})


STAGE = Stage(name="device", run=run, queue="gpu", after=("hang",))
