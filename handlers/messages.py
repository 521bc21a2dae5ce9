"""What an event says to a person: a title, a few lines, where to look. Push and chat tell it, each in its own form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from service.domain.costs import Period
from service.domain.events import ON_ARRIVAL, Event, EventType
from service.domain.ids import is_command_id
from service.domain.lifecycle import Status
from service.domain.task_types import TASK_TYPES, TaskType
from service.domain.tasks import OutputKind

LONGEST_QUOTE: Final = 500  # characters of what a provider or a caller wrote
ELLIPSIS: Final = "…"


class Mood(StrEnum):
    """How it went."""

    WORKING = "working"
    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"
    NOTE = "note"  # about Klingel itself, not about a task


# A mood in a text, where no colour shows it.
MARKS: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "⏳",
    Mood.GOOD: "✅",
    Mood.BAD: "❌",
    Mood.WARNING: "⚠️",
    Mood.NOTE: "🔔",
}


class Urgency(StrEnum):
    """How much somebody wants to know at once."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One output, to be opened."""

    kind: OutputKind
    url: str
    label: str
    still: str | None = None  # a picture of a video


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Plain text. It quotes callers and providers: escape it for the markup that it goes into."""

    title: str
    body: str  # never empty
    mood: Mood
    urgency: Urgency
    made: Sequence[Made] = ()
    task_id: str | None = None
    is_final: bool = False  # nothing that matters to the task's result comes after it

    @property
    def link(self) -> str | None:
        """What to open."""
        return self.made[0].url if self.made else None

    @property
    def matters_at_the_end(self) -> bool:
        """Worth sending where only the result is told."""
        return self.is_final or self.task_id is None or self.urgency is Urgency.HIGH

    @property
    def picture(self) -> str | None:
        """What can be shown as it is: a picture that was made, else a still of a video."""
        pictures = (made.url for made in self.made if made.kind is OutputKind.IMAGE)
        stills = (made.still for made in self.made if made.still is not None)
        return next(pictures, None) or next(stills, None)


@dataclass(frozen=True, slots=True)
class _Words:
    title: str  # of a task's event: what follows its noun
    mood: Mood
    urgency: Urgency
    sentence: str = ""
    is_final: bool = False


_TASK_WORDS: Final[Mapping[str, _Words]] = {
    EventType.TASK_SUBMITTED: _Words("submitted", Mood.WORKING, Urgency.LOW),
    EventType.TASK_PROCESSING: _Words("in the making", Mood.WORKING, Urgency.LOW),
    EventType.TASK_SUCCEEDED: _Words("ready", Mood.GOOD, Urgency.NORMAL, is_final=True),
    EventType.TASK_OUTPUTS_ADDED: _Words("ready", Mood.GOOD, Urgency.NORMAL, is_final=True),
    EventType.TASK_FAILED: _Words("failed", Mood.BAD, Urgency.HIGH, is_final=True),
    EventType.TASK_REJECTED: _Words("refused", Mood.BAD, Urgency.HIGH, is_final=True),
    EventType.TASK_UNCONFIRMED: _Words(
        "unconfirmed", Mood.WARNING, Urgency.LOW, "Whether the provider has it is still open."
    ),
    EventType.TASK_OVERDUE: _Words(
        "overdue", Mood.WARNING, Urgency.HIGH, "Its callback has not come by its deadline."
    ),
    EventType.OUTPUT_STORED: _Words("kept", Mood.NOTE, Urgency.LOW, "Klingel has its own copy."),
    EventType.OUTPUT_EXPIRING: _Words(
        "about to be lost",
        Mood.WARNING,
        Urgency.HIGH,
        "The provider's copy goes soon, and there is no other.",
    ),
}
_NOUNS: Final[Mapping[str, str]] = {
    OutputKind.IMAGE: "Picture",
    OutputKind.VIDEO: "Video",
    OutputKind.AUDIO: "Audio",
}


_SPANS: Final[Mapping[str, str]] = {
    Period.DAY: "today",
    Period.MONTH: "this month",
    Period.TOTAL: "in all",
}


def message_of(event: Event, *, as_it_stands: bool = False, to_asker: bool = False) -> Message:
    """
    Args:
        as_it_stands: of a copy that was kept: not that it was, but the task with all that it made.
        to_asker: into the chat in which the task was asked for: it is not told which one it is.
    """
    content = event.content()
    data = content["data"]
    if isinstance(task := data.get("task"), dict):
        if as_it_stands and event.type is EventType.OUTPUT_STORED:
            type, outputs = ON_ARRIVAL.get(Status(task["status"]), event.type), task["outputs"]
        else:
            type, outputs = event.type, [data["output"]] if "output" in data else task["outputs"]
        return _of_task(type, task, outputs, name="" if to_asker else _name(task))
    endpoint = data.get("endpoint") or {}
    match event.type:
        case EventType.BUDGET_EXCEEDED:
            budget = data["budget"]
            return Message(
                title="Budget spent",
                body=f"{budget['spent']} of {budget['limit']} {budget['unit']}, {_SPANS[budget['period']]}.",
                mood=Mood.WARNING,
                urgency=Urgency.HIGH,
            )
        case EventType.ENDPOINT_DISABLED:
            name = _quoted(endpoint.get("description") or endpoint["id"])
            return Message(
                title="Endpoint disabled",
                body=f"{endpoint['kind']} {name}: {_quoted(endpoint['disabled_reason'])}",
                mood=Mood.WARNING,
                urgency=Urgency.HIGH,
            )
        case EventType.ENDPOINT_TEST:
            body = _quoted(data.get("message")) or "This is a test."
            return Message(title="Klingel rings", body=body, mood=Mood.NOTE, urgency=Urgency.NORMAL)
        case _:
            return Message(
                title=str(event.type),
                body=event.id,
                mood=Mood.NOTE,
                urgency=Urgency.LOW,
                task_id=event.task_id,
            )


def _noun(row: TaskType | None, made: Sequence[OutputKind]) -> str:
    """By the type; where it makes several kinds of things, or nobody knows beforehand, by what was made."""
    if row is None:
        return "Task"
    if row.makes is not None and not row.also_makes:
        return _NOUNS[row.makes]
    if len(set(made)) > 1:
        return "Output"
    kind = next(iter(made), row.makes)
    return "Task" if kind is None else _NOUNS[kind]


def _of_task(
    type: EventType, task: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]], *, name: str
) -> Message:
    words = _TASK_WORDS.get(type) or _Words(f"- {type}", Mood.NOTE, Urgency.LOW)
    made = _made(outputs)
    known = TASK_TYPES.get(task["type"])
    noun = _noun(known, [one.kind for one in made])
    subject = f"{len(made)} {noun.lower()}s" if len(made) > 1 else noun
    lines = [
        words.sentence,
        _error(task["error"]),
        _facts(outputs) if words.mood is Mood.GOOD else "",
        f"{name} · {task['type']}" if name else task["type"],
    ]
    return Message(
        title=f"{subject} {words.title}",
        body="\n".join(line for line in lines if line),
        mood=words.mood,
        urgency=words.urgency,
        made=made,
        task_id=task["id"],
        is_final=words.is_final,
    )


def _made(outputs: Sequence[Mapping[str, Any]]) -> list[Made]:
    """What has a URL that a person can open: Klingel's own copy where there is one."""
    made: list[Made] = []
    for number, output in enumerate(outputs, start=1):
        url = next((url for url in (output.get("stored_url"), output["url"]) if _is_web(url)), None)
        if url is not None:
            kind = OutputKind(output["kind"])
            label = f"{_NOUNS[kind]} {number}" if len(outputs) > 1 else _NOUNS[kind]
            still = output.get("poster_url")
            made.append(Made(kind=kind, url=url, label=label, still=still if _is_web(still) else None))
    return made


def _is_web(url: object) -> bool:
    return isinstance(url, str) and urlsplit(url).scheme in {"http", "https"}


def _error(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return ""
    message, code = _quoted(error["message"]), _quoted(error["code"])
    return f"{message} ({code})" if message else code


def _facts(outputs: Sequence[Mapping[str, Any]]) -> str:
    facts = []
    if (duration := next((o["duration_s"] for o in outputs if "duration_s" in o), None)) is not None:
        facts.append(f"{duration:g} s")
    if expiries := [output["expires_at"] for output in outputs if "expires_at" in output]:
        moment = datetime.fromisoformat(min(expiries))
        facts.append(f"the provider keeps it until {moment:%Y-%m-%d %H:%M} UTC")
    return ", ".join(facts)


def _name(task: Mapping[str, Any]) -> str:
    """The caller's own, where there is one. What a chat's command has made up says nothing to people."""
    external = _quoted(task["external_task_id"])
    return task["id"] if not external or is_command_id(external) else external


def _quoted(text: object) -> str:
    """On one line, without what steers a terminal or turns a line around, and not endless."""
    printable = "".join(c if c.isprintable() else " " for c in str(text or ""))
    return cut(" ".join(printable.split()), LONGEST_QUOTE)


def cut(text: str, most: int) -> str:
    """At most so many characters; what was cut says so."""
    return text if len(text) <= most else text[: most - 1].rstrip() + ELLIPSIS


def cut_bytes(text: str, most: int) -> str:
    """At most so many bytes of UTF-8, and no half character."""
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    room = max(most - len(ELLIPSIS.encode()), 0)
    return encoded[:room].decode(errors="ignore").rstrip() + ELLIPSIS if room else ""
