"""`/v1/endpoints`: where events go."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate
from service.api.pages import Query, read_moment
from service.api.state import State
from service.delivery import Sink
from service.domain.deliveries import Delivery
from service.domain.endpoints import (
    DELETED,
    DISABLED_BY_PERSON,
    ENDPOINTS_OF_AN_ACCOUNT,
    Endpoint,
    EndpointDraft,
    SealedSecret,
)
from service.domain.errors import (
    ChangedMeanwhile,
    ConfigurationError,
    Conflict,
    EndpointDisabled,
    Fault,
    KlingelError,
    NotFound,
    TooManyEndpoints,
    TooManyRequests,
    Unprocessable,
)
from service.domain.events import EventType, endpoint_event
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.ids import id_pattern
from service.domain.models import StrictModel
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.times import rfc3339
from service.domain.values import replace
from service.doors.bodies import parse_json, read_body
from service.doors.sharing import Full
from service.publication import Publisher
from service.replays import Replays
from service.subscriptions import (
    Choosy,
    EndpointPatch,
    bound_faults,
    read_endpoint,
    subscription_faults,
    texts,
)
from storage import endpoints
from storage.database import Transaction
from storage.keys import ApiKey

ROTATION_OVERLAP: Final = timedelta(hours=24)
FORMER_SECRETS: Final = 4  # that sign beside the new one; a leaked one can be replaced at any time
REPLAY_AGAIN_S: Final = 5

_Configured = tuple[Mapping[str, Any], str | None]  # what may be shown, and the rest, sealed


async def create(request: Request[State]) -> Response:
    """The secret is in this answer, and nowhere after."""
    key = await authenticate(request)
    state = request.state
    body = await read_body(request)

    def read() -> tuple[EndpointDraft, str]:
        return read_endpoint(parse_json(body), sinks=state["sinks"], vault=state["vault"])

    try:
        draft, secret = await state["shares"].readers.read(key.account_id, read)
    except InvalidFields as error:
        raise Unprocessable("The endpoint has faults.", faults=error.faults) from None
    endpoint = draft.made(key.account_id, state["clock"]())
    await state["batcher"].run(_insert, endpoint)
    return JSONResponse(
        {**_shown(endpoint, state["vault"]), "secret": secret},
        status_code=201,
        headers={"location": f"/v1/endpoints/{endpoint.id}"},
    )


async def _insert(tx: Transaction, made: Sequence[Endpoint]) -> list[TooManyEndpoints | None]:
    await tx.hold("account", {endpoint.account_id for endpoint in made})
    there = await endpoints.count(tx, (endpoint.account_id for endpoint in made))
    fitting: list[Endpoint] = []
    results: list[TooManyEndpoints | None] = []
    for endpoint in made:
        if there[endpoint.account_id] >= ENDPOINTS_OF_AN_ACCOUNT:
            detail = f"The account has {ENDPOINTS_OF_AN_ACCOUNT} endpoints, and no more are taken. Delete one first."
            results.append(TooManyEndpoints(detail, limit=ENDPOINTS_OF_AN_ACCOUNT))
            continue
        there[endpoint.account_id] += 1
        fitting.append(endpoint)
        results.append(None)
    await endpoints.insert(tx, fitting)
    return results


async def index(request: Request[State]) -> Response:
    key = await authenticate(request)
    query = Query(request, known=())
    page = query.page(id_pattern("end"))
    query.check()
    async with request.state["database"].reading() as reader:
        found = await endpoints.page(reader, key.account_id, before_id=page.cursor, limit=page.limit + 1)
    vault = request.state["vault"]
    return page.respond(found, views=[_shown(endpoint, vault) for endpoint in found])


async def show(request: Request[State]) -> Response:
    key = await authenticate(request)
    return JSONResponse(_shown(await _found(request, key), request.state["vault"]))


def _shown(endpoint: Endpoint, vault: Vault) -> dict[str, Any]:
    return endpoint.view() | _public_key(endpoint, vault)


def _public_key(endpoint: Endpoint, vault: Vault) -> dict[str, str]:
    """Empty where there is none."""
    key = endpoint.public_key(vault)
    return {} if key is None else {"public_key": key}


async def update(request: Request[State]) -> Response:
    """Changes what is named. `filter`, `description` and `rate_per_minute` may be set to null."""
    key = await authenticate(request)
    state = request.state
    body = await read_body(request)
    endpoint = await _found(request, key)

    def read() -> tuple[EndpointPatch, _Configured | None]:
        return _read_change(parse_json(body), endpoint, state["sinks"].get(endpoint.kind), state["vault"])

    patch, configured = await state["shares"].readers.read(key.account_id, read)
    edit = _Edit(
        publisher=state["publisher"],
        account=key,
        seen=endpoint,
        patch=patch,
        configured=configured,
        now=state["clock"](),
    )
    return JSONResponse(_shown(await state["batcher"].run(_edit, edit), state["vault"]))


def _read_change(
    raw: object, endpoint: Endpoint, sink: Sink | None, vault: Vault
) -> tuple[EndpointPatch, _Configured | None]:
    """What is to be changed, and the configuration that comes of it, if that is.

    Raises:
        Conflict: there is no such kind any more.
        Unprocessable: with every fault.
    """
    faults: list[Fault] = []
    patch: EndpointPatch | None = None
    with collecting(faults):
        patch = accept(EndpointPatch, raw)
    fields = raw if isinstance(raw, dict) else {}
    faults += subscription_faults(fields.get("types"), fields.get("filter"), "#")
    if endpoint.task_id is not None:
        faults += bound_faults(raw, "#")
    configured: _Configured | None = None
    if "config" in fields:
        if sink is None:
            raise Conflict(
                f"This Klingel has no kind {endpoint.kind!r} now, so nothing can be said of its configuration."
            )
        with collecting(faults):
            configured = _sealed_once(
                sink.configure(fields["config"], pointer="#/config", before=endpoint), endpoint, vault
            )
    if isinstance(sink, Choosy):
        faults += sink.misfits(
            fields.get("config", endpoint.config) if configured is None else configured[0],
            types=texts(fields.get("types")) or endpoint.types,
            pointer="#",
        )
        if patch is not None and patch.types is not None:
            patch = patch.model_copy(update={"types": list(sink.subscription(patch.types))})
    if faults or patch is None:
        raise Unprocessable("The change has faults.", faults=faults)
    return patch, configured


def _sealed_once(configured: _Configured, endpoint: Endpoint, vault: Vault) -> _Configured:
    """The same configuration stays sealed as it is: sealed once more it would be another text, and count as a change.

    What is sealed under a former KLINGEL_SECRET is so under the newest one from then on.
    """
    config, credentials = configured
    stored = endpoint.credentials
    if config != endpoint.config or credentials is None or stored is None:
        return configured
    try:
        is_same = from_json(vault.open(credentials)) == from_json(vault.open(stored))
        return (config, vault.seal_anew(stored)) if is_same else configured
    except ConfigurationError:  # nobody can say what it was
        return configured


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    publisher: Publisher
    account: ApiKey
    seen: Endpoint  # as it was when the change was read
    patch: EndpointPatch
    configured: _Configured | None
    now: datetime

    def is_overtaken(self, endpoint: Endpoint) -> bool:
        """Whether it was made out of a configuration, or of event types, that are no longer there."""
        seen = self.seen
        is_configured_anew = not endpoint.is_configured_as(seen)
        if self.configured is None:
            return self.patch.types is not None and is_configured_anew
        return is_configured_anew or endpoint.types != seen.types


async def _edit(tx: Transaction, edits: Sequence[_Edit]) -> list[Endpoint | KlingelError]:
    results: list[Endpoint | KlingelError] = []
    await tx.hold("endpoint", {edit.seen.id for edit in edits})
    for edit in edits:
        endpoint = await endpoints.get(tx, edit.seen.id, account_id=edit.account.account_id)
        if endpoint is None:
            results.append(NotFound(f"There is no endpoint {edit.seen.id}."))
            continue
        if edit.is_overtaken(endpoint):
            results.append(
                ChangedMeanwhile("Somebody else has changed it meanwhile. Read it, and change it again.")
            )
            continue
        patch, given = edit.patch, edit.patch.model_fields_set
        changed = replace(
            endpoint,
            types=tuple(patch.types) if patch.types is not None else endpoint.types,
            filter=patch.filter if "filter" in given else endpoint.filter,
            description=patch.description if "description" in given else endpoint.description,
            rate_per_minute=patch.rate_per_minute if "rate_per_minute" in given else endpoint.rate_per_minute,
            updated_at=edit.now,
        )
        if edit.configured is not None:
            config, credentials = edit.configured
            changed = replace(changed, config=config, credentials=credentials)
        if patch.enabled is True:
            changed = replace(changed, enabled=True, disabled_reason=None)
        if patch.enabled is True or not changed.is_configured_as(endpoint):
            # A person says that it is mended, or has led it elsewhere: it starts with a clean record.
            changed = replace(changed, failures=0, failing_since=None)
        if patch.enabled is False and endpoint.enabled:
            changed = replace(changed, enabled=False, disabled_reason=DISABLED_BY_PERSON)
            await edit.publisher.bury(tx, endpoint, reason=changed.why_closed, now=edit.now)
        await edit.publisher.save(tx, changed, before=endpoint)
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
    await tx.hold("endpoint", {endpoint.id for _, endpoint, _ in deleted})
    for publisher, seen, now in deleted:
        endpoint = await endpoints.get(tx, seen.id, account_id=seen.account_id)
        if endpoint is not None:  # nobody else has deleted it meanwhile
            await publisher.bury(tx, endpoint, reason=DELETED, now=now)
            await endpoints.delete(tx, endpoint.id, now=now)
    return [None] * len(deleted)


async def test(request: Request[State]) -> Response:
    """A real event by the real path; its delivery can be followed like any other."""
    key = await authenticate(request)
    state = request.state
    endpoint = await _found(request, key)
    if wait := state["shares"].tests.take(key.account_id):
        raise TooManyRequests(f"Too many test events. Wait {wait} seconds.", retry_after_s=wait)
    event = endpoint_event(
        EventType.ENDPOINT_TEST,
        key.account_id,
        {"endpoint": endpoint.view(), "message": "This is a test. No task has changed."},
        state["clock"](),
    )
    publisher = state["publisher"]

    async def send(tx: Transaction) -> Delivery | NotFound:
        tested = await endpoints.get(tx, endpoint.id, account_id=endpoint.account_id)
        if tested is None:
            return NotFound(f"There is no endpoint {endpoint.id}.")
        return await publisher.publish_to(tx, event, tested)

    delivery = await state["batcher"].alone(send)
    return JSONResponse({"event_id": event.id, "delivery": delivery.view()}, status_code=202)


async def rotate_secret(request: Request[State]) -> Response:
    """The new secret, once; the old one signs beside it for 24 hours more. Of former ones, the latest four do.

    All that is sealed of the endpoint is so under the newest KLINGEL_SECRET from then on.
    """
    key = await authenticate(request)
    state = request.state
    endpoint = await _found(request, key)
    secret = new_endpoint_secret()
    now = state["clock"]()
    rotation = _Rotation(state["publisher"], state["vault"], endpoint, secret, now)
    rotated = await state["batcher"].run(_rotate, rotation)
    return JSONResponse(
        {
            "id": endpoint.id,
            "secret": secret,
            "former_secrets_end_at": rfc3339(now + ROTATION_OVERLAP),
            **_public_key(rotated, state["vault"]),
        }
    )


@dataclass(frozen=True, slots=True)
class _Rotation:
    publisher: Publisher
    vault: Vault
    seen: Endpoint
    secret: str
    now: datetime

    def after(self, endpoint: Endpoint) -> Endpoint:
        """What of it cannot be opened any more stays as it is, and former secrets among that go."""
        former = [
            SealedSecret(sealed, secret.expires_at or self.now + ROTATION_OVERLAP)
            for secret in endpoint.secrets
            if secret.expires_at is None or secret.expires_at > self.now
            if (sealed := self._anew(secret.sealed)) is not None
        ]
        new = SealedSecret(self.vault.seal(self.secret), None)
        return replace(
            endpoint,
            secrets=(new, *former[:FORMER_SECRETS]),
            credentials=endpoint.credentials and (self._anew(endpoint.credentials) or endpoint.credentials),
            updated_at=self.now,
        )

    def _anew(self, sealed: str) -> str | None:
        try:
            return self.vault.seal_anew(sealed)
        except ConfigurationError:
            return None


async def _rotate(tx: Transaction, rotations: Sequence[_Rotation]) -> list[Endpoint | NotFound]:
    """From what is stored by then: of two at once each gets a secret that signs."""
    results: list[Endpoint | NotFound] = []
    await tx.hold("endpoint", {rotation.seen.id for rotation in rotations})
    for rotation in rotations:
        endpoint = await endpoints.get(tx, rotation.seen.id, account_id=rotation.seen.account_id)
        if endpoint is None:
            results.append(NotFound(f"There is no endpoint {rotation.seen.id}."))
            continue
        rotated = rotation.after(endpoint)
        await rotation.publisher.save(tx, rotated, before=endpoint)
        results.append(rotated)
    return results


class ReplayBody(StrictModel):
    since: str = Field(description="RFC 3339")
    only: Annotated[str, Field(pattern="^(failed|all)$")] = "failed"


async def replay(request: Request[State]) -> Response:
    """New deliveries of what failed since a moment, or of all that the endpoint subscribes to."""
    key = await authenticate(request)
    state = request.state
    raw = parse_json(await read_body(request))
    faults: list[Fault] = []
    with collecting(faults):
        accept(ReplayBody, raw)
    fields = raw if isinstance(raw, dict) else {}
    since = read_moment(fields["since"]) if isinstance(fields.get("since"), str) else None
    if since is None and isinstance(fields.get("since"), str):
        faults.append(Fault("It must be an RFC 3339 time, e.g. 2026-11-22T05:30:00Z.", "#/since"))
    if faults or since is None:
        raise Unprocessable("The replay has faults.", faults=faults)
    endpoint = await _found(request, key)
    if not endpoint.enabled:
        raise EndpointDisabled('The endpoint is disabled. Enable it first: PATCH it with {"enabled": true}.')
    replays = Replays(
        state["publisher"],
        key.account_id,
        endpoint,
        since,
        only=fields.get("only", "failed"),
        clock=state["clock"],
    )
    made = 0
    with ExitStack() as stack:
        try:
            stack.enter_context(state["shares"].replays.place(endpoint.id))
        except Full:
            detail = "A replay to this endpoint is under way. Wait until it has ended."
            raise TooManyRequests(detail, retry_after_s=REPLAY_AGAIN_S) from None
        while not replays.finished:
            made += await state["batcher"].alone(replays.make_page)
    return JSONResponse({"replayed": made}, status_code=202)


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
