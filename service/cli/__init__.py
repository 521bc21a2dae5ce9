"""The `klingel` command."""

# ruff: noqa: PLC0415 - a server has no use for what reads a command line and draws tables: a fifth of a second, and
# some MB as long as it runs

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.cli.serving import serve
from service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from service.cli.session import Session

__all__ = ["main"]


def main(tokens: Sequence[str] | None = None, *, session: "Session | None" = None) -> int:
    """One run of the command; `tokens` are those of the process when not given. Answers its exit code."""
    given = sys.argv[1:] if tokens is None else tokens
    if list(given) != ["serve"]:
        from service.cli.commands import run

        return run(given, session)
    try:
        return serve()
    except (ConfigurationError, KeyboardInterrupt) as failure:
        from service.cli.commands import told
        from service.cli.session import Session

        return told(failure, session or Session())
