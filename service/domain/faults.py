"""What is wrong with a caller's JSON: every fault at once, in words for people, each with a pointer to its place."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from pydantic.config import ExtraValues
from pydantic_core import ErrorDetails, PydanticCustomError

from service.domain.errors import Fault, Unprocessable

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")
Location = tuple[int | str, ...]

# Pydantic stops at the first kind of fault in places; what must be said together travels in one error of ours.
SEVERAL: Final = "several"  # carries `Finding`s, at locations within its own
SENTENCE: Final = "sentence"  # an error whose message stands for itself
PREDICATE: Final = "predicate"  # an error whose message lacks only its subject

# Faults of what is not there, or not under that name.
_ABSENT: Final = frozenset({"missing", "extra_forbidden"})

NOT_BLANK: Final = r"\S"

_PREDICATES: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "extra_forbidden": "is not a field that is known here",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_type": "must be an object",
    PREDICATE: "{msg}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text",
    "string_unicode": "must not have half a surrogate pair in it",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "union_tag_invalid": "must have a type out of {expected_tags}",
    "union_tag_not_found": "needs a type",
}


class InvalidFields(ValueError):
    """Everything wrong with one object."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(" ".join(fault.detail for fault in self.faults))


class collecting:  # noqa: N801 - a step of a function that goes on, like `contextlib.suppress`
    """Adds the faults of an `InvalidFields` to others, so that what follows is looked at too."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        """Whether the error ends here. As it may, a type checker knows that the block may not have run to its end."""
        if not isinstance(error, InvalidFields):
            return False
        self._faults += error.faults
        return True


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault while its place is still relative."""

    location: Location
    detail: str

    def path(self) -> str:
        return "".join("/" + pointer_token(str(part)) for part in self.location)


def pointer_token(name: str) -> str:
    """One step of a JSON pointer in a URI fragment (RFC 6901, sections 3, 4 and 6)."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="!$&'()*+,;=:@?")


def accept(
    model: type[Model],
    raw: object,
    *,
    pointer: str = "#",
    context: object = None,
    extra: ExtraValues | None = None,
) -> Model:
    """
    Args:
        raw: as parsed from JSON.
        pointer: where `raw` stands in the request; those of the faults begin with it.
        extra: what becomes of unknown fields, where the model is not to decide that.

    Raises:
        InvalidFields: lists every fault, each at the field as the caller spelled it.
    """
    try:
        return model.model_validate(raw, context=context, extra=extra)
    except ValidationError as error:
        raise InvalidFields(
            Fault(found.detail, pointer + found.path()) for found in findings(error, raw)
        ) from None


def accept_by_rules(
    model: type[Model],
    raw: object,
    rules: Callable[[Model], Iterable[Fault]],
    *,
    pointer: str,
    known: Sequence[Fault] = (),
) -> Model:
    """As `accept` for a flat object, by rules too that the model cannot tell.

    Args:
        rules: get what can be read. A field that the model refuses is empty text there, and not absent: no other field
            is to be told that it lacks this one.
        known: faults that were found before. Of a field that has one no other is told.

    Raises:
        InvalidFields: lists every fault.
    """
    faults = list(known)
    accepted: Model | None = None
    try:
        accepted = accept(model, raw, pointer=pointer)
    except InvalidFields as error:
        said = {fault.pointer for fault in known}
        faults += [fault for fault in error.faults if fault.pointer not in said]
    said = {fault.pointer for fault in faults}
    if isinstance(raw, dict) and pointer not in said:  # else the model has not looked at the fields
        given = {name: raw[name] for name in model.model_fields if name in raw}
        refused = {name: "" for name in model.model_fields if f"{pointer}/{name}" in said}
        readable = accepted or model.model_construct(**given | refused)
        faults += [fault for fault in rules(readable) if fault.pointer not in said]
    if faults or accepted is None:
        raise InvalidFields(faults)
    return accepted


def checked(model: type[Model], raw: object) -> Model:
    """A whole request body.

    Raises:
        Unprocessable: lists every fault.
    """
    try:
        return accept(model, raw)
    except InvalidFields as error:
        raise Unprocessable("The body has faults.", faults=error.faults) from None


def all_at_once(accepting: Callable[[], T], others: Callable[[], Iterable[Finding]], *, raw: object) -> T:
    """What `accepting` makes of `raw`, unless it or `others` finds faults: then those of both in one error."""
    found: list[Finding] = []
    try:
        accepted = accepting()
    except ValidationError as error:
        found.extend(findings(error, raw))
    found.extend(others())
    if found:
        raise PydanticCustomError(SEVERAL, "has faults", {"findings": found})
    return accepted


def findings(error: ValidationError, raw: object) -> Iterator[Finding]:
    """
    Args:
        raw: what was not accepted.
    """
    for line in error.errors(include_url=False, include_input=False):
        location = _place(line, raw)
        if line["type"] == SEVERAL:
            for found in line["ctx"]["findings"]:
                yield Finding(location + found.location, found.detail)
        else:
            yield Finding(location, _detail(line, location))


def _place(line: ErrorDetails, raw: object) -> Location:
    """Where it is in the caller's JSON: pydantic also names which of several forms it tried there."""
    steps: list[int | str] = []
    here: object = raw
    for step in line["loc"]:
        match here:
            case dict() if step in here:
                here = here[step]
            case list() if isinstance(step, int) and step < len(here):
                here = here[step]
            case _ if step != line["loc"][-1] or line["type"] not in _ABSENT:
                continue
        steps.append(step)
    return tuple(steps)


def _detail(line: ErrorDetails, location: Location) -> str:
    if line["type"] == SENTENCE:
        return line["msg"]
    match location:
        case (*_, str(name)):
            subject = f'"{name}"' if len(name) <= 64 else f'"{name[:64]}…"'
        case (*_, int()):
            subject = "This entry"
        case _:
            subject = "This"
    context = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in line.get("ctx", {}).items()
    }
    if context.get("pattern") == NOT_BLANK:
        return f"{subject} must not be blank."
    predicate = _PREDICATES.get(line["type"], "is not allowed: {msg}")
    return f"{subject} {predicate.format(msg=line['msg'], **context)}."
