"""`/v1/endpoints`: where events go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate
from service.api.pages import Query, read_moment
from service.api.state import State
from service.bodies import parse_json, read_body
from service.delivery import Sink
from service.domain.deliveries import Delivery
from service.domain.endpoints import (
    ALL_TASK_EVENTS,
    DISABLED_BY_PERSON,
    Endpoint,
    EndpointDraft,
    InvalidFilter,
    SealedSecret,
    check_filter,
    is_pattern,
)
from service.domain.errors import Conflict, Fault, NotFound, Unprocessable
from service.domain.events import Event, EventType, endpoint_event
from service.domain.faults import InvalidFields, accept
from service.domain.ids import AccountId
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.signatures import InvalidSecret, check_secret
from service.domain.times import rfc3339
from service.publication import Publisher, replayed
from storage import deliveries, endpoints, events
from storage.database import Transaction
from storage.keys import ApiKey

ROTATION_OVERLAP: Final = timedelta(hours=24)
REPLAY_PAGE: Final = 200  # deliveries made in one commit


class EndpointBody(BaseModel):
    """What a person says of an endpoint; `config` is for its kind to read."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: str = "webhook"
    config: Any = None
    types: Annotated[list[str], Field(min_length=1, max_length=50)] = list(ALL_TASK_EVENTS)
    filter: Annotated[str, Field(max_length=1000)] | None = None
    description: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None
    enabled: bool = True
    secret: str | None = Field(None, description="whsec_…; made when left out")


class EndpointPatch(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    config: Any = None
    types: Annotated[list[str], Field(min_length=1, max_length=50)] | None = None
    filter: Annotated[str, Field(max_length=1000)] | None = None
    description: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None
    enabled: bool | None = None


def read_endpoint(
    raw: object, *, sinks: Mapping[str, Sink], vault: Vault, pointer: str = "#"
) -> tuple[EndpointDraft, str]:
    """A checked endpoint and its signing secret, which is shown this once.

    Raises:
        InvalidFields: with every fault.
    """
    faults: list[Fault] = []
    body: EndpointBody | None = None
    try:
        body = accept(EndpointBody, raw, pointer=pointer)
    except InvalidFields as error:
        faults += error.faults
    fields = raw if isinstance(raw, dict) else {}
    faults += subscription_faults(fields.get("types"), fields.get("filter"), pointer)
    config: Mapping[str, Any] = {}
    credentials: str | None = None
    kind = fields.get("kind", "webhook")
    sink = sinks.get(kind) if isinstance(kind, str) else None
    if sink is not None:
        try:
            config, credentials = sink.configure(fields.get("config"), pointer=f"{pointer}/config")
        except InvalidFields as error:
            faults += error.faults
    elif isinstance(kind, str):
        faults.append(
            Fault(f"There is no kind {kind!r}. There are: {', '.join(sorted(sinks))}.", f"{pointer}/kind")
        )
    secret = fields.get("secret")
    if isinstance(secret, str):
        try:
            check_secret(secret)
        except InvalidSecret as error:
            faults.append(Fault(f"{error}.", f"{pointer}/secret"))
    if faults or body is None:
        raise InvalidFields(faults)
    secret = body.secret or new_endpoint_secret()
    draft = EndpointDraft(
        kind=body.kind,
        config=config,
        credentials=credentials,
        secret=vault.seal(secret),
        types=tuple(body.types),
        filter=body.filter,
        description=body.description,
        enabled=body.enabled,
    )
    return draft, secret


def subscription_faults(types: object, filter: object, pointer: str) -> list[Fault]:
    faults: list[Fault] = []
    if isinstance(types, list):
        faults += [
            Fault(
                f"{pattern!r} selects no event. There are: *, task.*, {', '.join(EventType)}.",
                f"{pointer}/types/{index}",
            )
            for index, pattern in enumerate(types)
            if isinstance(pattern, str) and not is_pattern(pattern)
        ]
    if isinstance(filter, str):
        try:
            check_filter(filter)
        except InvalidFilter as error:
            faults.append(Fault(f"Not a JMESPath expression: {error}", f"{pointer}/filter"))
    return faults


async def create(request: Request[State]) -> Response:
    """The secret is in this answer, and nowhere after."""
    key = await authenticate(request)
    state = request.state
    raw = parse_json(await read_body(request))
    try:
        draft, secret = read_endpoint(raw, sinks=state["sinks"], vault=state["vault"])
    except InvalidFields as error:
        raise Unprocessable("The endpoint has faults.", faults=error.faults) from None
    endpoint = draft.made(key.account_id, state["clock"]())
    await state["batcher"].run(_insert, endpoint)
    return JSONResponse(
        {**endpoint.view(), "secret": secret},
        status_code=201,
        headers={"location": f"/v1/endpoints/{endpoint.id}"},
    )


async def _insert(tx: Transaction, made: Sequence[Endpoint]) -> list[None]:
    await endpoints.insert(tx, made)
    return [None] * len(made)


async def index(request: Request[State]) -> Response:
    key = await authenticate(request)
    query = Query(request, known=())
    page = query.page()
    query.check()
    async with request.state["database"].reading() as reader:
        found = await endpoints.page(reader, key.account_id, before_id=page.cursor, limit=page.limit + 1)
    return page.respond(found, views=[endpoint.view() for endpoint in found])


async def show(request: Request[State]) -> Response:
    key = await authenticate(request)
    return JSONResponse((await _found(request, key)).view())


async def update(request: Request[State]) -> Response:
    """Changes what is named. `filter` and `description` may be set to null."""
    key = await authenticate(request)
    state = request.state
    raw = parse_json(await read_body(request))
    faults: list[Fault] = []
    patch: EndpointPatch | None = None
    try:
        patch = accept(EndpointPatch, raw)
    except InvalidFields as error:
        faults += error.faults
    endpoint = await _found(request, key)
    fields = raw if isinstance(raw, dict) else {}
    faults += subscription_faults(fields.get("types"), fields.get("filter"), "#")
    configured: tuple[Mapping[str, Any], str | None] | None = None
    if "config" in fields:
        try:
            configured = state["sinks"][endpoint.kind].configure(
                fields["config"], pointer="#/config", before=endpoint
            )
        except InvalidFields as error:
            faults += error.faults
    if faults or patch is None:
        raise Unprocessable("The change has faults.", faults=faults)
    edit = _Edit(
        publisher=state["publisher"],
        account=key,
        endpoint_id=endpoint.id,
        patch=patch,
        configured=configured,
        now=state["clock"](),
    )
    return JSONResponse((await state["batcher"].run(_edit, edit)).view())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    publisher: Publisher
    account: ApiKey
    endpoint_id: str
    patch: EndpointPatch
    configured: tuple[Mapping[str, Any], str | None] | None
    now: datetime


async def _edit(tx: Transaction, edits: Sequence[_Edit]) -> list[Endpoint | NotFound]:
    results: list[Endpoint | NotFound] = []
    for edit in edits:
        endpoint = await endpoints.get(tx, edit.endpoint_id, account_id=edit.account.account_id)
        if endpoint is None:
            results.append(NotFound(f"There is no endpoint {edit.endpoint_id}."))
            continue
        patch, given = edit.patch, edit.patch.model_fields_set
        changed = replace(
            endpoint,
            types=tuple(patch.types) if patch.types is not None else endpoint.types,
            filter=patch.filter if "filter" in given else endpoint.filter,
            description=patch.description if "description" in given else endpoint.description,
            updated_at=edit.now,
        )
        if edit.configured is not None:
            config, credentials = edit.configured
            changed = replace(changed, config=config, credentials=credentials)
        if patch.enabled is True:
            # A person says that it is mended: it starts with a clean record.
            changed = replace(changed, enabled=True, disabled_reason=None, failures=0, failing_since=None)
        elif patch.enabled is False and endpoint.enabled:
            changed = replace(changed, enabled=False, disabled_reason=DISABLED_BY_PERSON)
            await edit.publisher.bury(tx, endpoint.id, reason="the endpoint was switched off", now=edit.now)
        await endpoints.save(tx, changed)
        results.append(changed)
    return results


async def delete(request: Request[State]) -> Response:
    """What still waits for it becomes dead letters."""
    key = await authenticate(request)
    endpoint = await _found(request, key)
    state = request.state
    await state["batcher"].run(_delete, (state["publisher"], endpoint, state["clock"]()))
    return Response(status_code=204)


async def _delete(tx: Transaction, deleted: Sequence[tuple[Publisher, Endpoint, datetime]]) -> list[None]:
    for publisher, endpoint, now in deleted:
        await publisher.bury(tx, endpoint.id, reason="the endpoint was deleted", now=now)
        await endpoints.delete(tx, endpoint.id, now=now)
    return [None] * len(deleted)


async def test(request: Request[State]) -> Response:
    """A real event by the real path; its delivery can be followed like any other."""
    key = await authenticate(request)
    state = request.state
    endpoint = await _found(request, key)
    event = endpoint_event(
        EventType.ENDPOINT_TEST,
        key.account_id,
        {"endpoint": endpoint.view(), "message": "This is a test. No task has changed."},
        state["clock"](),
    )
    publisher = state["publisher"]

    async def send(tx: Transaction, tests: Sequence[Endpoint]) -> list[Delivery]:
        return [await publisher.publish_to(tx, event, tested) for tested in tests]

    delivery = await state["batcher"].run(send, endpoint)
    return JSONResponse({"event_id": event.id, "delivery": delivery.view()}, status_code=202)


async def rotate_secret(request: Request[State]) -> Response:
    """The new secret, once; the old one signs beside it for 24 hours more."""
    key = await authenticate(request)
    state = request.state
    endpoint = await _found(request, key)
    secret = new_endpoint_secret()
    now = state["clock"]()
    await state["batcher"].run(_rotate, (endpoint, state["vault"].seal(secret), now))
    return JSONResponse(
        {
            "id": endpoint.id,
            "secret": secret,
            "former_secrets_end_at": rfc3339(now + ROTATION_OVERLAP),
        }
    )


async def _rotate(
    tx: Transaction, rotations: Sequence[tuple[Endpoint, str, datetime]]
) -> list[NotFound | None]:
    """From what is stored by then: of two at once each gets a secret that signs."""
    results: list[NotFound | None] = []
    for stale, sealed, now in rotations:
        endpoint = await endpoints.get(tx, stale.id, account_id=stale.account_id)
        if endpoint is None:
            results.append(NotFound(f"There is no endpoint {stale.id}."))
            continue
        former = [
            replace(s, expires_at=s.expires_at or now + ROTATION_OVERLAP)
            for s in endpoint.secrets
            if s.expires_at is None or s.expires_at > now
        ]
        secrets = (SealedSecret(sealed, None), *former)
        await endpoints.save(tx, replace(endpoint, secrets=secrets, updated_at=now))
        results.append(None)
    return results


class ReplayBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    since: str = Field(description="RFC 3339")
    only: Annotated[str, Field(pattern="^(failed|all)$")] = "failed"


async def replay(request: Request[State]) -> Response:
    """New deliveries of what failed since a moment, or of all that the endpoint subscribes to."""
    key = await authenticate(request)
    state = request.state
    raw = parse_json(await read_body(request))
    faults: list[Fault] = []
    try:
        accept(ReplayBody, raw)
    except InvalidFields as error:
        faults += error.faults
    fields = raw if isinstance(raw, dict) else {}
    since = read_moment(fields["since"]) if isinstance(fields.get("since"), str) else None
    if since is None and isinstance(fields.get("since"), str):
        faults.append(Fault("It must be an RFC 3339 time, e.g. 2026-11-22T05:30:00Z.", "#/since"))
    if faults or since is None:
        raise Unprocessable("The replay has faults.", faults=faults)
    endpoint = await _found(request, key)
    if not endpoint.enabled:
        raise Conflict('The endpoint is disabled. Enable it first: PATCH it with {"enabled": true}.')
    replays = _Replays(state["publisher"], key.account_id, endpoint, since, only=fields.get("only", "failed"))
    made = 0
    while not replays.finished:
        made += await state["batcher"].run(replays.make_page, state["clock"]())
    return JSONResponse({"replayed": made}, status_code=202)


class _Replays:
    """Page by page, each in a commit of its own, so that callbacks never wait behind a large replay."""

    def __init__(
        self, publisher: Publisher, account_id: AccountId, endpoint: Endpoint, since: datetime, *, only: str
    ) -> None:
        self._publisher = publisher
        self._account_id = account_id
        self._endpoint = endpoint
        self._since = since
        self._only = only
        self._after_id = ""
        self._after_position = 0
        self._up_to: int | None = None
        self.finished = False

    async def make_page(self, tx: Transaction, moments: Sequence[datetime]) -> list[int]:
        if self._only == "failed":
            return [await self._failed(tx, now) for now in moments]
        return [await self._all(tx, now) for now in moments]

    async def _failed(self, tx: Transaction, now: datetime) -> int:
        dead = await deliveries.failed_since(
            tx, self._endpoint.id, since=self._since, after_id=self._after_id, limit=REPLAY_PAGE
        )
        self.finished = len(dead) < REPLAY_PAGE
        if dead:
            self._after_id = dead[-1].id
        happened = await events.by_id(tx, {delivery.event_id for delivery in dead})
        pairs = [(happened[delivery.event_id], self._endpoint) for delivery in dead]
        await self._publisher.schedule(tx, pairs, replays=[replayed(delivery, now) for delivery in dead])
        return len(dead)

    async def _all(self, tx: Transaction, now: datetime) -> int:
        if self._up_to is None:
            self._up_to = await events.last_position(tx)
            self._after_position = await events.position_before(tx, self._since)
        page = await events.of_account(
            tx, self._account_id, after_position=self._after_position, limit=REPLAY_PAGE
        )
        page = [event for event in page if event.position <= self._up_to]
        self.finished = len(page) < REPLAY_PAGE
        if page:
            self._after_position = page[-1].position
        wanted = [event for event in page if self._is_for_it(event)]
        earlier = await deliveries.of_events(tx, self._endpoint.id, [event.id for event in wanted])
        pairs = [(event, self._endpoint) for event in wanted if event.id not in earlier]
        again = [(event, earlier[event.id]) for event in wanted if event.id in earlier]
        await self._publisher.schedule(tx, pairs)
        await self._publisher.schedule(
            tx,
            [(event, self._endpoint) for event, _ in again],
            replays=[replayed(old, now) for _, old in again],
        )
        return len(wanted)

    def _is_for_it(self, event: Event) -> bool:
        """Whether it would go there if it happened now; a test goes to the endpoint that is tested, and no other."""
        if self._endpoint.task_id not in {None, event.task_id} or event.type is EventType.ENDPOINT_TEST:
            return False
        return self._endpoint.wants(event, event.content())


async def _found(request: Request[State], key: ApiKey) -> Endpoint:
    """
    Raises:
        NotFound: none, or another account's.
    """
    endpoint_id = request.path_params["id"]
    async with request.state["database"].reading() as reader:
        endpoint = await endpoints.get(reader, endpoint_id, account_id=key.account_id)
    if endpoint is None:
        raise NotFound(f"There is no endpoint {endpoint_id}.")
    return endpoint
