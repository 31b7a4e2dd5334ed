"""Reads the model and leaves a file, so that fetching, storing and cleaning up have something to do."""

from pipeline.stage import Context, Made, Report, Stage


def run(ctx: Context) -> Report:
    note = ctx.scratch / "note.txt"
    note.write_bytes(ctx.model.read_bytes())
    ctx.log("nothing to do")
    return Report(facts={"attempt": ctx.attempt}, files=[Made(path=note, role="evidence", media_type="text/plain")])


STAGE = Stage(name="quick", run=run)
