"""A stage that does nothing, to measure what the pipeline itself costs."""

from pipeline.stage import Context, Report, Stage


def run(_: Context) -> Report:
    return Report()


STAGE = Stage(name="noop_1", run=run, queue="cpu")
