"""Breaks, refuses or crashes when the uploader's config says so."""

from pipeline.errors import Rejected, Unavailable
from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    match ctx.upload.declared.get("config", {}).get("mood"):
        case "breaks once" if ctx.attempt == 1:
            raise Unavailable("away", "The first attempt finds nobody at home.")
        case "refuses":
            raise Rejected("not_wanted", "The stage does not like this model.", findings=["nose"])
        case "crashes":
            raise ZeroDivisionError("a bug of ours")
    return Report()


STAGE = Stage(name="flaky", run=run, after=("slow",), max_attempts=2)
