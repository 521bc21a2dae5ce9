"""What one row of the catalogue says: a kind of task, as data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel

from service.domain.tasks import OutputKind


class Layout(StrEnum):
    """Whose paths and field names a provider speaks."""

    COMETAPI = "cometapi"
    OFFICIAL = "official"
    SANDBOX = "sandbox"  # everybody's: the gateway's where there are two


class Standard(StrEnum):
    """Kling's two ways to write a create."""

    LEGACY = "legacy"  # model in the body, `callback_url` beside the other fields
    NEW = "new"  # model in the path, `callback_url` in `options`, asked for at `/tasks`


class Confidence(StrEnum):
    """Who vouches for a fact."""

    KLING = "documented by Kling"
    GATEWAY = "documented by CometAPI"
    SEEN = "seen in public code or notes"
    GUESSED = "guessed"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is known from outside, and from where. `source` names a page, and its date where it has one."""

    text: str
    source: str
    confidence: Confidence = Confidence.KLING


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a layout takes this kind of task, and the input fields that it spells differently."""

    path: str  # with `{model}` in it where the standard has the model there
    source: str
    confidence: Confidence
    standard: Standard = Standard.LEGACY
    renames: Mapping[str, str] = field(default_factory=dict)
    input_model: type[BaseModel] | None = None  # for whom asks there, where that differs from the type's
    told_by: str | None = None  # the field that tells it from another type's under the same path
    given_by_caller: bool = (
        False  # the input says which path, and what is sent; `path` is what all begin with
    )
    anew: str | None = None  # of such: what those of the new standard begin with, where that differs


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How it is asked for in a chat and by `klingel submit`: by one word, and with so many pictures."""

    word: str
    fewest: int
    most: int
    pictures: Callable[[Sequence[str]], dict[str, Any]]  # the input fields that pictures become


class NotSold(LookupError):
    """A layout has no path for this kind of task."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many of the provider's parallel places a task takes, in words and by its input."""

    said: str
    of: Callable[[Mapping[str, Any]], int]

    def __call__(self, input: Mapping[str, Any]) -> int:
        return self.of(input)


def _number(input: Mapping[str, Any]) -> int:
    number = input.get("n")
    return number if isinstance(number, int) and number > 0 else 1


ONE_PLACE: Final = Places("one", lambda _input: 1)
A_PLACE_EACH: Final = Places("one for each picture (`n`)", _number)


# The layouts whose paths each one has, in the order in which they are looked through.
_SPOKEN: Final[Mapping[Layout, Sequence[Layout]]] = {
    Layout.COMETAPI: (Layout.COMETAPI,),
    Layout.OFFICIAL: (Layout.OFFICIAL,),
    Layout.SANDBOX: (Layout.SANDBOX, Layout.COMETAPI, Layout.OFFICIAL),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    name: str
    summary: str
    input_model: type[BaseModel]
    makes: OutputKind | None  # None: that is known only when it is there
    also_makes: Sequence[OutputKind] = ()
    names_parent: bool = False  # the provider's answers name the film that it was made of, as `parent_video`
    echoes: Sequence[str] = ()  # fields of the input that stand in the provider's results again
    routes: Mapping[Layout, Sequence[Route]]  # the first is taken where nobody has asked for another
    places: Places = ONE_PLACE
    shares_places: bool = True  # with all others that make the same; False: perhaps, or it has its own
    models: Sequence[str] = ()  # that are known; any other is for the provider to judge
    retired_models: Sequence[str] = ()  # of these
    facts: Sequence[Fact] = ()
    retired: Fact | None = None  # the provider no longer has it, or soon will not
    words: Words | None = None

    @property
    def examples(self) -> Sequence[Mapping[str, Any]]:
        """Inputs as the provider's pages have them."""
        found: Sequence[Mapping[str, Any]] = self.input_model.model_json_schema().get("examples", [])
        return found

    @property
    def deadline_as(self) -> OutputKind:
        """Whose default deadline it has: a film's, which is the longest, where nobody knows what comes."""
        return self.makes or OutputKind.VIDEO

    @property
    def may_be_repeated(self) -> bool:
        """Whether the provider knows a second create by its external id: of a path that is the caller's, nobody can say."""
        return not any(route.given_by_caller for routes in self.routes.values() for route in routes)

    def sold_at(self, layout: Layout) -> bool:
        return any(self.routes.get(each) for each in _SPOKEN[layout])

    def route(self, layout: Layout, path: str | None = None) -> Route:
        """The one that a caller has asked for by its path, where this layout has it.

        Raises:
            NotSold: it has none.
        """
        routes = next((found for each in _SPOKEN[layout] if (found := self.routes.get(each))), ())
        if not routes:
            raise NotSold(f"{self.name} has no path at {layout}")
        return next((route for route in routes if route.path == path), routes[0])
