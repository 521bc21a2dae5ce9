"""Templates of follow-ups: a task's input with places that an event fills.

An object `{"$": "<JMESPath>"}` is replaced by the expression's value over the event, whatever that is; `{{ <JMESPath> }}`
inside a string by its text; all else is literal.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from service.domain.expressions import CannotEvaluate, InvalidExpression, Steps, check, evaluate
from service.domain.faults import Finding, Location

DEEPEST: Final = 32
MOST_PLACES: Final = 100
OPENING: Final = "{{"
CLOSING: Final = "}}"


@dataclass(frozen=True, slots=True)
class Gap:
    """A place for which the event has no value."""

    location: Location
    expression: str
    detail: str


@dataclass(frozen=True, slots=True)
class Filled:
    """Where there are gaps the value is null."""

    value: Any
    gaps: Sequence[Gap]


def faults(template: object) -> list[Finding]:
    """What is wrong with a template, whatever the event."""
    found = list(_faults(template, ()))
    places = sum(1 for _ in _expressions(template, 0))
    if places > MOST_PLACES:
        found.append(
            Finding((), f"A template has at most {MOST_PLACES} places to fill; this one has {places}.")
        )
    return found


def _faults(template: object, location: Location) -> Iterator[Finding]:
    match template:
        case {"$": str(expression), **rest} if not rest:
            yield from _expression_faults(expression, location)
        case {"$": _}:
            yield Finding(
                location, 'An object with "$" has nothing else in it, and "$" is a JMESPath expression.'
            )
        case dict() | list() if len(location) >= DEEPEST:
            yield Finding(location, f"A template is nested at most {DEEPEST} levels deep.")
        case dict():
            for name, member in template.items():
                yield from _faults(member, (*location, str(name)))
        case list():
            for index, entry in enumerate(template):
                yield from _faults(entry, (*location, index))
        case str():
            for expression in _places(template):
                yield from _expression_faults(expression, location)


def _expression_faults(expression: str, location: Location) -> Iterator[Finding]:
    try:
        check(expression)
    except InvalidExpression as error:
        shown = expression if len(expression) <= 64 else expression[:64] + "…"
        yield Finding(location, f"{shown!r} is no JMESPath expression: {error}.")


def broken_expressions(template: object) -> frozenset[str]:
    """Those that are none, each of which `faults` tells."""
    return frozenset(each for each in _expressions(template, 0) if any(_expression_faults(each, ())))


def _expressions(template: object, depth: int) -> Iterator[str]:
    match template:
        case {"$": str(expression), **rest} if not rest:
            yield expression
        case dict() | list() if depth < DEEPEST:
            for member in template.values() if isinstance(template, dict) else template:
                yield from _expressions(member, depth + 1)
        case str():
            yield from _places(template)


def fill(template: Any, event: object, *, steps: Steps, broken: Collection[str] = frozenset()) -> Filled:
    """
    Args:
        template: one whose `faults`, if it has any, are told elsewhere. What is nested too deep stays as it is.
        steps: what its expressions may cost together; once they are spent, the places that are left are gaps.
        broken: its `broken_expressions`, which stay as they are.
    """
    gaps: list[Gap] = []

    def value(expression: str, location: Location) -> Any:
        try:
            found = evaluate(expression, event, steps=steps)
        except CannotEvaluate as error:
            gaps.append(Gap(location, expression, f"{expression!r} breaks over the event: {error}."))
            return None
        if found is None:
            gaps.append(Gap(location, expression, f"{expression!r} has no value over the event."))
        elif not _is_json(found):
            gaps.append(Gap(location, expression, f"{expression!r} gives no JSON over the event."))
            return None
        return found

    def text(part: str, location: Location) -> str | None:
        texts: list[Any] = []
        for literal, expression in _pieces(part):
            texts.append(literal)
            if expression in broken:
                texts.append(f"{OPENING} {expression} {CLOSING}")
            elif expression is not None:
                texts.append(value(expression, location))
        return None if None in texts else "".join(map(_text, texts))

    def filled(part: Any, location: Location) -> Any:
        match part:
            case {"$": str(expression), **rest} if not rest:
                return part if expression in broken else value(expression, location)
            case dict() | list() if len(location) >= DEEPEST:
                return part
            case dict():
                return {name: filled(member, (*location, str(name))) for name, member in part.items()}
            case list():
                return [filled(entry, (*location, index)) for index, entry in enumerate(part)]
            case str():
                return text(part, location)
            case _:
                return part

    return Filled(filled(template, ()), tuple(gaps))


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Literal text, and the expression after it; the last has none. Each character is looked at once, however many
    places are opened and not closed.
    """
    position = 0
    while (start := text.find(OPENING, position)) >= 0 and (end := text.find(CLOSING, start + 2)) >= 0:
        yield text[position:start], text[start + 2 : end].strip()
        position = end + 2
    yield text[position:], None


def _places(text: str) -> list[str]:
    return [expression for _, expression in _pieces(text) if expression is not None]


def _is_json(value: object) -> bool:
    """JMESPath also has references to expressions, and texts with half a surrogate pair."""
    try:
        to_json(value)
    except PydanticSerializationError:
        return False
    return True


def _text(value: object) -> str:
    return value if isinstance(value, str) else to_json(value).decode()
