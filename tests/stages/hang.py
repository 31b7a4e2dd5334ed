"""A sandboxed function that never comes back, inside a step with a short time limit."""

from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    if ctx.upload.declared.get("config", {}).get("mood") == "hangs":
        with ctx.sandbox.open(read=[], scratch=ctx.scratch) as child:
            child.call("tests.stages.hang:forever")
    return Report(facts={"published": []})


def forever() -> None:
    while True:
        pass


STAGE = Stage(name="hang", run=run, after=("flaky",), time_limit=4, max_attempts=1)
