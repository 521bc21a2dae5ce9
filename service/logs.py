"""Logs: one wide line for each request and each attempt; coloured text on a terminal, else JSON."""

import logging
import sys

import structlog

from service.settings import LogFormat


def configure_logs(format: LogFormat | None) -> None:
    """Writes to standard error; None chooses by whether that is a terminal."""
    chosen = format or (LogFormat.CONSOLE if sys.stderr.isatty() else LogFormat.JSON)
    renderer: structlog.types.Processor
    if chosen is LogFormat.JSON:
        processors: list[structlog.types.Processor] = [structlog.processors.dict_tracebacks]
        renderer = structlog.processors.JSONRenderer()
    else:
        processors = []
        # Plain tracebacks: the rich ones print local variables, and with them secrets.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *processors,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # Its request lines carry URLs, and ours carry callback tokens.
    logging.getLogger("httpx").setLevel(logging.ERROR)
