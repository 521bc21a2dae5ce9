"""Templates of follow-ups: a task's input with places that an event fills.

An object `{"$": "<JMESPath>"}` is replaced by the expression's value over the event, whatever that is; `{{ <JMESPath> }}`
inside a string by its text; all else is literal.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic_core import to_json

from service.domain.faults import Finding, Location

LONGEST_EXPRESSION: Final = 1000
DEEPEST: Final = 32
_PLACE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


class Unfilled(ValueError):
    """An expression has no value over this event; the message names it."""


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> "jmespath.parser.ParsedResult":
    return jmespath.compile(expression)


def faults(template: object, location: Location = ()) -> Iterator[Finding]:
    """What is wrong with a template, whatever the event."""
    if len(location) > DEEPEST:
        yield Finding(location, f"A template is nested at most {DEEPEST} levels deep.")
        return
    match template:
        case {"$": str(expression), **rest} if not rest:
            yield from _expression_faults(expression, location)
        case {"$": _}:
            yield Finding(
                location, 'An object with "$" has nothing else in it, and "$" is a JMESPath expression.'
            )
        case dict():
            for name, member in template.items():
                yield from faults(member, (*location, str(name)))
        case list():
            for index, entry in enumerate(template):
                yield from faults(entry, (*location, index))
        case str():
            for expression in _PLACE.findall(template):
                yield from _expression_faults(expression.strip(), location)


def _expression_faults(expression: str, location: Location) -> Iterator[Finding]:
    if len(expression) > LONGEST_EXPRESSION:
        yield Finding(location, f"An expression has at most {LONGEST_EXPRESSION} characters.")
        return
    try:
        _compiled(expression)
    except (JMESPathError, RecursionError) as error:
        yield Finding(location, f"{expression!r} is no JMESPath expression: {str(error).splitlines()[0]}")


def filled(template: Any, event: object) -> Any:
    """
    Raises:
        Unfilled: an expression breaks, or gives nothing.
    """
    return _filled(template, lambda expression: _value(expression, event))


def _filled(template: Any, value: Callable[[str], Any]) -> Any:
    match template:
        case {"$": str(expression), **rest} if not rest:
            return value(expression)
        case dict():
            return {name: _filled(member, value) for name, member in template.items()}
        case list():
            return [_filled(entry, value) for entry in template]
        case str():
            return _PLACE.sub(lambda place: _text(value(place[1].strip())), template)
        case _:
            return template


def _value(expression: str, event: object) -> Any:
    try:
        value = _compiled(expression).search(event)
    except (JMESPathError, RecursionError, TypeError, ValueError) as error:
        raise Unfilled(f"{expression!r} breaks over the event: {error}") from None
    if value is None:
        raise Unfilled(f"{expression!r} has no value over the event")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else to_json(value).decode()
