"""A step with a short time limit: a sandboxed function that never comes back, or a sleep that notices nothing."""

import time

from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    match ctx.upload.declared.get("config", {}).get("mood"):
        case "hangs":
            with ctx.sandbox.open(read=[], scratch=ctx.scratch) as child:
                child.call("tests.stages.hang:forever")
        case "sleeps":
            time.sleep(8)
            ctx.log("awake")
    return Report(facts={"published": []})


def forever() -> None:
    while True:
        pass


STAGE = Stage(name="hang", run=run, after=("flaky",), time_limit=4, max_attempts=1)
