"""A stage that does nothing, to measure what the pipeline itself costs."""

from pipeline.stage import Context, Report, Stage


def run(_: Context) -> Report:
    return Report(facts={"published": []})


STAGE = Stage(name="noop_5", run=run, queue="cpu", after=("noop_4",))
