"""Numbers that are given on the command line."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    """By itself Cyclopts rounds what has a point: a limit of 0.5 would be 0, which takes it away.

    Raises:
        ValueError: anything but digits.
    """
    [token] = tokens
    if not re.fullmatch("[0-9]+", token.value):
        raise ValueError(f'"{token.value}" is not a whole number.')
    return int(token.value)


Whole = Annotated[int, Parameter(converter=_whole)]
