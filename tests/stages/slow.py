"""Works for as long as the uploader declared, in a loop that notices a lost lease."""

import time

from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    end = time.monotonic() + float(ctx.upload.declared.get("config", {}).get("seconds", 1.0))
    while time.monotonic() < end:
        ctx.log("still at it")
        time.sleep(0.05)
    return Report(facts={"attempt": ctx.attempt})


STAGE = Stage(name="slow", run=run, after=("quick",), max_attempts=5)
