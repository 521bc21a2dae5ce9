"""What people ask of a task, read whole, every fault told at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import isfinite
from typing import Annotated, Any, Final, Generic, Literal, Protocol, TypeVar

from pydantic import Field
from pydantic_core import to_json

from service.delivery import Sink
from service.domain.endpoints import EndpointDraft
from service.domain.errors import Fault, Unprocessable
from service.domain.expressions import LONGEST_EXPRESSION
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.follow_ups import (
    ANY_PARENT,
    KIND,
    LONGEST_CHAIN,
    MOST_FOLLOW_UPS,
    PICTURES_INSIDE,
    Parent,
    excess,
    rehearse_all,
    subscription,
)
from service.domain.ids import AccountId
from service.domain.inputs import PicturesInside, ValidatedInput, validate
from service.domain.models import StrictModel
from service.domain.providers import ProviderAccounts
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.task_types import TASK_TYPES, TaskType
from service.domain.templates import faults as template_faults
from service.domain.values import replace
from service.doors.bodies import SMALL_BODY, parse_json, parse_large_json
from service.doors.sharing import Readers
from service.submission import Draft
from service.subscriptions import bound_faults, read_endpoint, subscription_faults

LARGEST_METADATA: Final = 16 * 1024
DEEPEST_METADATA: Final = 32  # levels; an event holds it deeper still, and parsers end at 200
LONGEST_DEADLINE_S: Final = 30 * 24 * 3600
MOST_ENDPOINTS: Final = 10  # of one task
READERS: Final = (
    2  # bodies with pictures, or large ones, read at the same time: each may take 250 MB and seconds
)


# Visible ASCII, but not dots alone: it becomes a part of paths, where these lead elsewhere.
ExternalTaskId = Annotated[
    str, Field(max_length=64, pattern=r"^[\x21-\x7e]*[\x21-\x2d\x2f-\x7e][\x21-\x7e]*$")
]


class TemplateBody(StrictModel):
    """A submit, but for what only one task can have. `input` is for the task type to read, `endpoints` for their kinds."""

    type: str
    input: dict[str, Any]
    metadata: dict[str, Any] = Field({})
    provider: Annotated[str, Field(max_length=64)] | None = None
    callback_url: str | None = None
    endpoints: Annotated[list[Any], Field(max_length=MOST_ENDPOINTS)] = Field([])
    follow_ups: Annotated[list[Any], Field(max_length=MOST_FOLLOW_UPS)] = Field([])
    deadline_s: Annotated[float, Field(gt=0, le=LONGEST_DEADLINE_S, allow_inf_nan=False)] | None = None


class SubmitBody(TemplateBody):
    external_task_id: ExternalTaskId | None = None


class FollowUpBody(StrictModel):
    """What to submit when something happens to a task. `submit` is a `TemplateBody`."""

    on: Literal[
        "task.submitted",
        "task.processing",
        "task.succeeded",
        "task.failed",
        "task.rejected",
        "task.unconfirmed",
        "task.overdue",
        "task.outputs_added",
    ]
    filter: Annotated[str, Field(max_length=LONGEST_EXPRESSION)] | None = None
    submit: dict[str, Any]


class Reading(Protocol):
    """Makes a draft of a body's JSON, as `read_submit` does."""

    def __call__(self, raw: object, *, sinks: Mapping[str, Sink], vault: Vault, decoding: bool) -> Draft: ...


class SubmitReader:
    """Reads most submits at once. Large ones, and those with pictures to be decoded, take turns in threads of their
    own, so that nobody else waits for them, nor one account for all that another has sent. So do those with follow-ups to
    be rehearsed, which do not wait for pictures either.
    """

    def __init__(
        self, *, sinks: Mapping[str, Sink], vault: Vault, accounts: ProviderAccounts | None = None
    ) -> None:
        self._sinks = sinks
        self._vault = vault
        self._read_submit = partial(read_submit, accounts=accounts)
        self._readers = Readers(READERS)
        self._rehearsals = Readers(READERS)

    async def read(self, body: bytes, *, account_id: AccountId, by: Reading | None = None) -> Draft:
        """
        Args:
            by: what makes a draft of the JSON, where that is not `/v1`'s.

        Raises:
            InvalidRequest: not JSON.
            TooLarge: too much of it is not pictures.
            Unprocessable: with every fault.
        """
        reading: Reading = by or self._read_submit
        if len(body) <= SMALL_BODY:
            raw = parse_json(body)
            read = partial(reading, raw, sinks=self._sinks, vault=self._vault, decoding=False)
            is_rehearsed = isinstance(raw, dict) and raw.get("follow_ups")
            try:
                return await self._rehearsals.read(account_id, read) if is_rehearsed else read()
            except PicturesInside:
                pass  # few bytes, but they may be many pixels
        return await self._readers.read(account_id, partial(self._read_slowly, reading, body))

    def _read_slowly(self, reading: Reading, body: bytes) -> Draft:
        return reading(parse_large_json(body), sinks=self._sinks, vault=self._vault, decoding=True)


def read_submit(
    raw: object,
    *,
    sinks: Mapping[str, Sink],
    vault: Vault,
    decoding: bool = True,
    accounts: ProviderAccounts | None = None,
) -> Draft:
    """Decodes pictures, which may take seconds: on the event loop only with `decoding=False`.

    Args:
        accounts: among which the providers of the task and its follow-ups are looked for; without them that is left to
            whoever submits.

    Raises:
        Unprocessable: with every fault.
        PicturesInside: something is to be decoded, and that was not wanted.
    """
    frame = _SubmitParser(sinks, vault, accounts=accounts).read(SubmitBody, raw, "#")
    external_task_id = None if frame.body is None else frame.body.external_task_id
    fields = raw if isinstance(raw, dict) else {}
    input = fields["input"] if isinstance(fields.get("input"), dict) else None
    faults: list[Fault] = []
    accepted: ValidatedInput | None = None
    parents = ANY_PARENT
    if frame.type is not None:
        if input is not None:
            with collecting(faults):
                accepted = validate(frame.type.input_model, input, decoding=decoding)
        parent = Parent(
            type=frame.type,
            input=input if accepted is None else accepted.fields,
            metadata=metadata if isinstance(metadata := fields.get("metadata"), dict) else {},
            external_task_id=external_task_id,
        )
        parents = (parent,)
    faults += rehearse_all(fields.get("follow_ups"), parents=parents, pointer="#/follow_ups")
    return frame.finish(
        accepted, faults, detail="The task has faults; nothing was sent.", external_task_id=external_task_id
    )


def read_follow_up(raw: object, *, sinks: Mapping[str, Sink], vault: Vault, secret: str) -> Draft:
    """A template whose input an event has filled.

    Args:
        secret: signs what its endpoints send, and what those of its own follow-ups do, where they have none of their
            own.

    Raises:
        Unprocessable: with every fault.
    """
    frame = _SubmitParser(sinks, vault, secret=secret).read(TemplateBody, raw, "#")
    faults: list[Fault] = []
    accepted: ValidatedInput | None = None
    if frame.type is not None and isinstance(raw, dict):
        with collecting(faults):
            accepted = validate(frame.type.input_model, raw.get("input"), no_base64=PICTURES_INSIDE)
    return frame.finish(accepted, faults, detail="The follow-up has faults; nothing was sent.")


def read_template(
    raw: object, *, sinks: Mapping[str, Sink], vault: Vault, accounts: ProviderAccounts, pointer: str
) -> dict[str, Any]:
    """A template as it may be shown: without what is secret in its endpoints.

    Args:
        accounts: among which its provider, and those of its follow-ups, are looked for.

    Raises:
        InvalidFields: with every fault that does not depend on an event.
    """
    if (too_much := excess(raw)) is not None:
        raise InvalidFields([Fault(too_much, pointer)])
    return _SubmitParser(sinks, vault, accounts=accounts).template(raw, pointer, depth=1)


Body = TypeVar("Body", bound=TemplateBody)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame(Generic[Body]):
    """A submit but for its input."""

    body: Body | None
    type: TaskType | None
    endpoints: Sequence[EndpointDraft]  # as listed, then that of the callback_url
    rules: Sequence[EndpointDraft]
    faults: Sequence[Fault]

    def finish(
        self,
        input: ValidatedInput | None,
        more_faults: Sequence[Fault],
        *,
        detail: str,
        external_task_id: str | None = None,
    ) -> Draft:
        """
        Args:
            input: None if it has faults, or could not be read for those of the frame.
            more_faults: than the frame's own: those of the input and of what depends on it.
            detail: the refusal's, if there are any.

        Raises:
            Unprocessable: with every fault.
        """
        faults = [*self.faults, *more_faults]
        if faults or self.body is None or self.type is None or input is None:
            raise Unprocessable(detail, faults=faults)
        return Draft(
            type=self.type,
            input=input,
            external_task_id=external_task_id,
            metadata=self.body.metadata,
            provider=self.body.provider,
            deadline=None if self.body.deadline_s is None else timedelta(seconds=self.body.deadline_s),
            endpoints=[*self.endpoints, *self.rules],
        )


class _SubmitParser:
    """Reads submits and templates but for their inputs.

    Args:
        accounts: among which providers are looked for, if at all.
        secret: of the endpoints that name none; each gets one of its own if that is None.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        vault: Vault,
        *,
        accounts: ProviderAccounts | None = None,
        secret: str | None = None,
    ) -> None:
        self._sinks = sinks
        self._vault = vault
        self._accounts = accounts
        self._secret = secret

    def read(self, model: type[Body], raw: object, pointer: str, *, depth: int = 0) -> _Frame[Body]:
        """
        Args:
            depth: of the task, in a chain of follow-ups.
        """
        faults: list[Fault] = []
        body: Body | None = None
        with collecting(faults):
            body = accept(model, raw, pointer=pointer)
        fields = raw if isinstance(raw, dict) else {}
        name = fields.get("type")
        task_type = TASK_TYPES.get(name) if isinstance(name, str) else None
        if task_type is None and isinstance(name, str):
            detail = f"There is no type {name!r}. There are: {', '.join(TASK_TYPES)}."
            faults.append(Fault(detail, f"{pointer}/type"))
        provider = fields.get("provider")
        if self._accounts is not None and isinstance(provider, str | None):
            with collecting(faults):
                if task_type is not None:
                    self._accounts.choose(task_type, provider, pointer=pointer)
                elif provider is not None:
                    self._accounts.named(provider, pointer=pointer)
        faults += [
            Fault(fault.detail, pointer + fault.pointer.removeprefix("#"))
            for fault in storable_faults("metadata", fields.get("metadata"), largest=LARGEST_METADATA)
        ]
        drafts, endpoint_faults = self._endpoints(fields, pointer)
        rules, rule_faults = self._rules(fields.get("follow_ups"), f"{pointer}/follow_ups", depth)
        return _Frame(
            body=body,
            type=task_type,
            endpoints=drafts,
            rules=rules,
            faults=[*faults, *endpoint_faults, *rule_faults],
        )

    def _endpoints(self, fields: Mapping[str, Any], pointer: str) -> tuple[list[EndpointDraft], list[Fault]]:
        drafts: list[EndpointDraft] = []
        faults: list[Fault] = []
        listed = fields.get("endpoints")
        for index, raw in enumerate(listed[:MOST_ENDPOINTS] if isinstance(listed, list) else []):
            where = f"{pointer}/endpoints/{index}"
            faults += bound_faults(raw, where)
            with collecting(faults):
                drafts.append(self._endpoint(raw, where))
        url = fields.get("callback_url")
        if isinstance(url, str):
            try:
                drafts.append(self._endpoint({"kind": "webhook", "config": {"url": url}}, pointer))
            except InvalidFields as error:
                faults += [Fault(fault.detail, f"{pointer}/callback_url") for fault in error.faults]
        return drafts, faults

    def _endpoint(self, raw: object, pointer: str) -> EndpointDraft:
        """
        Raises:
            InvalidFields: with every fault.
        """
        if isinstance(raw, dict) and raw.get("kind") == KIND:
            raise InvalidFields([Fault("What follows a task stands in its follow_ups.", f"{pointer}/kind")])
        draft, _ = read_endpoint(raw, sinks=self._sinks, vault=self._vault, pointer=pointer)
        if self._secret is None or (isinstance(raw, dict) and raw.get("secret") is not None):
            return draft
        return replace(draft, secret=self._vault.seal(self._secret))

    def _rules(self, follow_ups: object, pointer: str, depth: int) -> tuple[list[EndpointDraft], list[Fault]]:
        if not isinstance(follow_ups, list) or not follow_ups:
            return [], []
        if depth >= LONGEST_CHAIN:
            return [], [Fault(f"At most {LONGEST_CHAIN} follow-ups come one after another.", pointer)]
        if depth == 0 and (too_much := excess(follow_ups)) is not None:
            return [], [Fault(too_much, pointer)]
        drafts: list[EndpointDraft] = []
        faults: list[Fault] = []
        for index, raw in enumerate(follow_ups[:MOST_FOLLOW_UPS]):
            with collecting(faults):
                drafts.append(self._rule(raw, f"{pointer}/{index}", depth))
        return drafts, faults

    def _rule(self, raw: object, pointer: str, depth: int) -> EndpointDraft:
        """
        Raises:
            InvalidFields: with every fault that does not depend on an event.
        """
        faults: list[Fault] = []
        body: FollowUpBody | None = None
        with collecting(faults):
            body = accept(FollowUpBody, raw, pointer=pointer)
        fields = raw if isinstance(raw, dict) else {}
        faults += subscription_faults(None, fields.get("filter"), pointer)
        shown: dict[str, Any] = {}
        if isinstance(fields.get("submit"), dict):
            with collecting(faults):
                shown = self.template(fields["submit"], f"{pointer}/submit", depth=depth + 1)
        if faults or body is None:
            raise InvalidFields(faults)
        return EndpointDraft(
            kind=KIND,
            config={"submit": shown},
            credentials=seal_template(body.submit, shown, self._vault),
            secret=self._vault.seal(self._secret or new_endpoint_secret()),
            types=tuple(subscription([body.on])),
            filter=body.filter,
        )

    def template(self, raw: object, pointer: str, *, depth: int) -> dict[str, Any]:
        """As it may be shown.

        Raises:
            InvalidFields: with every fault that does not depend on an event.
        """
        frame = self.read(TemplateBody, raw, pointer, depth=depth)
        fields = raw if isinstance(raw, dict) else {}
        faults = [*frame.faults]
        faults += [
            Fault(found.detail, f"{pointer}/input{found.path()}")
            for found in template_faults(fields.get("input"))
        ]
        if faults or frame.body is None:
            raise InvalidFields(faults)
        return _shown(fields, frame)


def _shown(template: Mapping[str, Any], frame: _Frame[TemplateBody]) -> dict[str, Any]:
    shown = dict(template)
    if "endpoints" in template:
        # The last one may be that of the callback_url.
        listed = zip(template["endpoints"], frame.endpoints, strict=False)
        shown["endpoints"] = [
            {name: value for name, value in {**raw, "config": dict(draft.config)}.items() if name != "secret"}
            for raw, draft in listed
        ]
    if "follow_ups" in template:
        pairs = zip(template["follow_ups"], frame.rules, strict=True)
        shown["follow_ups"] = [{**raw, "submit": rule.config["submit"]} for raw, rule in pairs]
    return shown


def seal_template(template: Mapping[str, Any], shown: Mapping[str, Any], vault: Vault) -> str | None:
    """The whole template, where what is shown is not all."""
    return None if shown == template else vault.seal(to_json(template).decode())


def storable_faults(name: str, *given: object, largest: int) -> list[Fault]:
    """What would keep somebody's objects from being stored, and told again in every answer and event.

    Args:
        name: the field that they are.
        given: what is no object is not looked at.
        largest: bytes of all as JSON.
    """
    level: list[Any] = [each for each in given if isinstance(each, dict)]
    faults: list[str] = []
    if sum(len(to_json(each)) for each in level) > largest:
        faults.append(f"{name} has at most {largest} bytes as JSON.")
    for _ in range(DEEPEST_METADATA):
        level = [member for container in level for member in _members(container)]
        if any(isinstance(member, float) and not isfinite(member) for member in level):
            faults.append(f"{name} holds a number that is too large for JSON.")
            break
    if any(isinstance(member, (dict, list)) for member in level):
        faults.append(f"{name} has at most {DEEPEST_METADATA} levels.")
    return [Fault(detail, f"#/{name}") for detail in faults]


def _members(value: object) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()
