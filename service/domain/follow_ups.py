"""Follow-ups: tasks that are submitted when something happens to another one; what is wrong with one, told beforehand."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from pydantic_core import to_json

from service.domain.costs import UNITS, Charge
from service.domain.endpoints import selects
from service.domain.errors import Fault
from service.domain.events import ON_ARRIVAL, EventType, task_event
from service.domain.expressions import Steps
from service.domain.faults import Finding, InvalidFields
from service.domain.ids import AccountId, TaskId
from service.domain.inputs import validate
from service.domain.lifecycle import Status
from service.domain.task_types import TASK_TYPES, TaskType
from service.domain.tasks import Output, OutputKind, Task, TaskError, Transition
from service.domain.templates import broken_expressions, fill
from service.domain.templates import faults as template_faults

KIND: Final = "task"  # of the endpoints that submit follow-ups
FOLLOWED: Final = (*ON_ARRIVAL.values(), EventType.TASK_OVERDUE, EventType.TASK_OUTPUTS_ADDED)
LONGEST_CHAIN: Final = 8  # follow-ups one after another
MOST_DESCENDANTS: Final = 100  # of a task that somebody submitted, whichever rules make them
MOST_FOLLOW_UPS: Final = 10  # of one task, or of one template
MOST_TOGETHER: Final = 50  # with all that follow these
LARGEST_TEMPLATE: Final = 32 * 1024  # bytes as JSON, with all that follows
FILLING: Final = 20_000  # steps of all expressions of one template over one event
REHEARSING: Final = 50_000  # of all rehearsals of one request: some 0.1 s
MOST_FAULTS: Final = 100  # that are told of the templates of one request
MOST_OUTPUTS: Final = 9
# Tried where it is not known how many there will be: enough for a list with entries of two to four, or the last one.
LIKELY_OUTPUTS: Final = (4, MOST_OUTPUTS, 1, 2, 3)

PICTURES_INSIDE: Final = "A picture in a follow-up is an http(s) URL, or comes from the event as one."

_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STATUS: Final[Mapping[EventType, Status]] = {
    **{type: status for status, type in ON_ARRIVAL.items()},
    EventType.TASK_OVERDUE: Status.PROCESSING,
    EventType.TASK_OUTPUTS_ADDED: Status.SUCCEEDED,
}


def subscription(types: Sequence[str] | None) -> Sequence[str]:
    """The types that a follow-up listens to, given those that were asked for: a success, where nothing was said.

    Whoever waits for a success waits for its outputs, which may come later.
    """
    asked = tuple(types) if types is not None else (str(EventType.TASK_SUCCEEDED),)
    late = EventType.TASK_OUTPUTS_ADDED
    if selects(asked, EventType.TASK_SUCCEEDED) and not selects(asked, late):
        return (*asked, str(late))
    return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What is known of the tasks whose events a follow-up gets. None is what any task may have.

    Args:
        follows: whether it may itself have been made by a follow-up.
    """

    type: TaskType
    input: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    external_task_id: str | None = None
    follows: bool = False

    def outputs(self) -> Sequence[int]:
        """How many things it may make."""
        if self.type.makes is not OutputKind.IMAGE:
            return (1,)
        number = 1 if self.input is None else self.input.get("n", 1)
        if self.input is None or type(number) is not int or not 1 <= number <= MOST_OUTPUTS:
            return LIKELY_OUTPUTS
        return (number,)


# One for all that make the same kinds of things: as far as templates go, that is all in which types differ.
ANY_PARENT: Final = tuple(
    {(type.makes, *type.also_makes): Parent(type=type, follows=True) for type in TASK_TYPES.values()}.values()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """An input to be filled. What is wrong with it whatever the event is told elsewhere, and not again by trials."""

    type: TaskType
    input: Mapping[str, Any]
    pointer: str
    faulty: frozenset[str]  # places of it
    broken: frozenset[str]  # expressions


@dataclass(slots=True)
class _Trial:
    """A template filled once, over one made-up event."""

    input: object
    faults: list[Fault] = field(default_factory=list)


def rehearse(
    submit: object,
    *,
    types: Sequence[str],
    parents: Sequence[Parent],
    pointer: str,
    steps: Steps | None = None,
) -> list[Fault]:
    """What would keep a template, and those inside it, from becoming tasks, tried over made-up events. Not for the event
    loop: it may take a second.

    For each type of event there must be a parent, and a number of things that it made, for which all is well. What a
    template is wrong in whatever the event is not told here.

    Args:
        types: of the events that it will get, as patterns.
        pointer: where the template stands in the request.
        steps: what all expressions may cost together.
    """
    fields = submit if isinstance(submit, dict) else {}
    if steps is None and excess(submit) is not None:
        return []
    left = steps or Steps(REHEARSING)
    faults: list[Fault] = []
    input: object = None
    if (template := _template(fields, f"{pointer}/input")) is not None:
        faults, input = _over_each(template, _rehearsed(types), parents, left)
        if len(faults) >= MOST_FAULTS:
            return faults[:MOST_FAULTS]
    children = _children(_task_type(fields), input, fields.get("metadata"))
    return faults + _rehearse_inside(
        fields.get("follow_ups"), children, f"{pointer}/follow_ups", left, most=MOST_FAULTS - len(faults)
    )


def rehearse_all(follow_ups: object, *, parents: Sequence[Parent], pointer: str) -> list[Fault]:
    """`rehearse`, for all follow-ups of one task."""
    if excess(follow_ups) is not None:
        return []
    return _rehearse_inside(follow_ups, parents, pointer, Steps(REHEARSING), most=MOST_FAULTS)


def _rehearse_inside(
    follow_ups: object, parents: Sequence[Parent], pointer: str, steps: Steps, *, most: int
) -> list[Fault]:
    faults: list[Fault] = []
    for index, on, submit in _inside(follow_ups):
        where = f"{pointer}/{index}/submit"
        faults += rehearse(submit, types=[on], parents=parents, pointer=where, steps=steps)
        if len(faults) >= most:
            break
    return faults[:most]


def excess(raw: object) -> str | None:
    """Why a template, or a list of follow-ups, is more than anybody should wait for."""
    if len(to_json(raw)) > LARGEST_TEMPLATE:
        return f"Follow-ups have at most {LARGEST_TEMPLATE} bytes as JSON, with all that follow them."
    if _count(raw.get("follow_ups") if isinstance(raw, dict) else raw) > MOST_TOGETHER:
        return f"There are at most {MOST_TOGETHER} follow-ups, with all that follow them."
    return None


def _count(follow_ups: object) -> int:
    inside = follow_ups if isinstance(follow_ups, list) else []
    submits = [each.get("submit") for each in inside if isinstance(each, dict)]
    return len(inside) + sum(_count(each.get("follow_ups")) for each in submits if isinstance(each, dict))


def _rehearsed(types: Sequence[str]) -> list[EventType]:
    """Late outputs are as a success is."""
    chosen = [type for type in FOLLOWED if selects(types, type)]
    if EventType.TASK_SUCCEEDED in chosen and EventType.TASK_OUTPUTS_ADDED in chosen:
        chosen.remove(EventType.TASK_OUTPUTS_ADDED)
    return chosen


def _of(fault: Fault, type: EventType) -> Fault:
    return Fault(f"Over {type}: {fault.detail}", fault.pointer)


def _inside(follow_ups: object) -> Iterator[tuple[int, str, object]]:
    """Index, event and template of each that can be read."""
    if isinstance(follow_ups, list):
        for index, raw in enumerate(follow_ups[:MOST_FOLLOW_UPS]):
            match raw:
                case {"on": str(on), "submit": submit} if on in FOLLOWED:
                    yield index, on, submit


def _task_type(fields: Mapping[str, Any]) -> TaskType | None:
    name = fields.get("type")
    return TASK_TYPES.get(name) if isinstance(name, str) else None


def _template(fields: Mapping[str, Any], pointer: str) -> _Template | None:
    """None where nothing of it can be tried."""
    type, input = _task_type(fields), fields.get("input")
    if type is None or not isinstance(input, dict):
        return None
    found = template_faults(input)
    if any(not each.location for each in found):  # it is wrong as a whole
        return None
    return _Template(
        type=type,
        input=input,
        pointer=pointer,
        faulty=frozenset(pointer + each.path() for each in found),
        broken=broken_expressions(input) if found else frozenset(),
    )


def _children(type: TaskType | None, input: object, metadata: object) -> Sequence[Parent]:
    """What a template makes, as far as it is known."""
    if type is None:
        return ANY_PARENT
    return [
        Parent(
            type=type,
            input=input if isinstance(input, dict) else None,
            metadata=metadata if isinstance(metadata, dict) else {},
            follows=True,
        )
    ]


def _over_each(
    template: _Template, types: Sequence[EventType], parents: Sequence[Parent], steps: Steps
) -> tuple[list[Fault], object]:
    """The faults over events of these types, and the input that one of the last type fills in."""
    faults: list[Fault] = []
    input: object = None
    for type in types:
        best = _best(template, type, parents, steps)
        input = best.input
        told = dict.fromkeys(best.faults)
        faults += told if len(types) == 1 else [_of(fault, type) for fault in told]
        if len(faults) >= MOST_FAULTS:
            break
    return faults, input


def _best(template: _Template, on: EventType, parents: Sequence[Parent], steps: Steps) -> _Trial:
    """The first trial without faults, or else the one that has the fewest."""
    best: _Trial | None = None
    succeeded = _STATUS[on] is Status.SUCCEEDED
    for parent in parents:
        for number in parent.outputs() if succeeded else (0,):
            trial = _try(template, parent, _example(parent, on, number), steps)
            if not trial.faults:
                return trial
            if best is None or len(trial.faults) < len(best.faults):
                best = trial
    assert best is not None
    return best


def _try(template: _Template, parent: Parent, event: object, steps: Steps) -> _Trial:
    filled = fill(template.input, event, steps=steps, broken=template.broken)
    gaps = [template.pointer + Finding(gap.location, "").path() for gap in filled.gaps]
    trial = _Trial(
        filled.value,
        [
            Fault(gap.detail, place)
            for gap, place in zip(filled.gaps, gaps, strict=True)
            # What people keep in the metadata of tasks to come, nobody knows.
            if parent.metadata is not None or "metadata" not in gap.expression
        ],
    )
    try:
        accepted = validate(
            template.type.input_model, filled.value, pointer=template.pointer, no_base64=PICTURES_INSIDE
        )
        trial.input = dict(accepted.fields)
    except InvalidFields as error:
        told = template.faulty.union(gaps)
        trial.faults += [fault for fault in error.faults if not _is_within(fault.pointer, told)]
    return trial


def _is_within(pointer: str, places: Collection[str]) -> bool:
    steps = pointer.split("/")
    return any("/".join(steps[:number]) in places for number in range(1, len(steps) + 1))


def _example(parent: Parent, on: EventType, outputs: int) -> object:
    """An event as it would be of a task that made so many things."""
    status = _STATUS[on]
    finished_at = _AT + timedelta(minutes=1)
    id = TaskId("task_" + 32 * "0")
    task = Task(
        id=id,
        account_id=AccountId("acc_" + 32 * "0"),
        type=parent.type.name,
        provider="cometapi",
        status=status,
        input={},
        external_task_id=parent.external_task_id or id,
        provider_external_id=id,
        provider_task_id="881203390284693504",
        metadata=parent.metadata or {},
        parent_id=TaskId("task_" + 32 * "1") if parent.follows else None,
        outputs=_outputs(parent.type, outputs),
        error=TaskError("1", "an example") if status in {Status.FAILED, Status.REJECTED} else None,
        cost=(_CHARGE,) if status is Status.SUCCEEDED else None,
        sequence=1,
        created_at=_AT,
        updated_at=finished_at,
        submitted_at=_AT,
        finished_at=finished_at if status.is_terminal else None,
        deadline_at=_AT + timedelta(hours=1),
        overdue_at=finished_at if on is EventType.TASK_OVERDUE else None,
    )
    arrived = on in ON_ARRIVAL.values()
    transition = (
        Transition(before=Status.QUEUED, after=status, at=finished_at, sequence=1) if arrived else None
    )
    return task_event(on, task, transition, finished_at).content()


def _outputs(type: TaskType, number: int) -> list[Output]:
    """So many of what the type makes, and one of what comes with it: in the provider's order, which is that of the kinds."""
    main = type.makes or OutputKind.VIDEO
    numbers = {**dict.fromkeys(type.also_makes, min(number, 1)), main: number}
    kinds = [kind for kind in OutputKind for _ in range(numbers.get(kind, 0))]
    return [
        Output(
            kind=kind,
            index=index,
            url=f"https://example.com/{index}.{_ENDINGS[kind]}",
            id=f"{index}",
            duration_s=None if kind is OutputKind.IMAGE else 5.0,
            wav_url=f"https://example.com/{index}.wav" if kind is OutputKind.AUDIO else None,
            expires_at=_AT + timedelta(days=30),
        )
        for index, kind in enumerate(kinds)
    ]


# With all that a provider may say of one.
_CHARGE: Final = Charge(amount=Decimal(1), unit=UNITS, list_price=Decimal(1), package="video")
_ENDINGS: Final[Mapping[OutputKind, str]] = {
    OutputKind.IMAGE: "png",
    OutputKind.VIDEO: "mp4",
    OutputKind.AUDIO: "mp3",
}
