"""Logging for every process: dotted events with fields, JSON in production, readable lines for people."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer


def configure(*, fmt: str = "json", level: str = "INFO", keeper: structlog.typing.Processor | None = None) -> None:
    """Set up structlog once, in `main()`. `keeper` sees every event that is logged, with its fields, before it is text."""
    # Without the values of local variables: they hold what must not be in a log.
    traceback: structlog.typing.Processor
    renderer: structlog.typing.Processor
    if fmt == "json":
        traceback = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        renderer = structlog.processors.JSONRenderer()
    else:
        traceback = structlog.dev.set_exc_info
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(() if keeper is None else (keeper,)),
            traceback,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
