"""`/v1/keys`: for admins."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate_admin
from service.api.pages import Query
from service.api.state import State
from service.domain.errors import Conflict, NotFound
from service.domain.faults import checked
from service.domain.ids import AccountId, KeyId, id_pattern, new_key_id
from service.domain.models import StrictModel
from service.domain.secrets import hash_api_key, new_api_key
from service.domain.values import replace
from service.doors.bodies import parse_json, read_body
from service.doors.recognition import KnownKeys
from service.notices import Notices, Topic
from service.streams import Streams
from storage import keys
from storage.database import Transaction
from storage.keys import ApiKey, KeyRole

ACCOUNT_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class KeyBody(StrictModel):
    name: str = Field(
        min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$", description="what it is for"
    )
    account: str | None = Field(
        None,
        pattern=ACCOUNT_NAME,
        description="made if there is none; else the caller's own",
    )
    role: Literal["admin", "member"] = "member"


async def create(request: Request[State]) -> Response:
    """The key itself is in this answer, and nowhere after."""
    admin = await authenticate_admin(request)
    body = checked(KeyBody, parse_json(await read_body(request)))
    secret = new_api_key()
    key = ApiKey(
        id=new_key_id(),
        account_id=admin.account_id,
        account_name=body.account or admin.account_name,
        name=body.name,
        role=KeyRole(body.role),
        hint=secret[-4:],
        created_at=request.state["clock"](),
    )
    await request.state["batcher"].run(_insert, (key, hash_api_key(secret)))
    return JSONResponse({**key.view(), "key": secret}, status_code=201)


async def _insert(tx: Transaction, made: Sequence[tuple[ApiKey, str]]) -> list[None]:
    await tx.hold("accounts", {key.account_name for key, _ in made})
    for key, hashed in made:
        account_id: AccountId = await keys.account(tx, key.account_name, now=key.created_at)
        await keys.insert(tx, replace(key, account_id=account_id), hash=hashed)
    return [None] * len(made)


async def index(request: Request[State]) -> Response:
    await authenticate_admin(request)
    query = Query(request, known=())
    page = query.page(id_pattern("key"))
    query.check()
    async with request.state["database"].reading() as reader:
        found = await keys.page(reader, before_id=page.cursor, limit=page.limit + 1)
    return page.respond(found, views=[key.view() for key in found])


async def revoke(request: Request[State]) -> Response:
    """At once: the next request with it is refused, and its streams end."""
    admin = await authenticate_admin(request)
    key_id = KeyId(request.path_params["id"])
    if key_id == admin.id:
        raise Conflict("A key does not revoke itself. Use another admin key.")
    async with request.state["database"].reading() as reader:
        if await keys.get(reader, key_id) is None:
            raise NotFound(f"There is no key {key_id}.")
    state = request.state
    revoked = (key_id, state["clock"](), state["streams"], state["known_keys"], state["notices"])
    await state["batcher"].run(_revoke, revoked)
    return Response(status_code=204)


async def _revoke(
    tx: Transaction, revoked: Sequence[tuple[KeyId, datetime, Streams, KnownKeys, Notices]]
) -> list[None]:
    for key_id, now, streams, known, notices in revoked:
        await keys.revoke(tx, key_id, now=now)
        tx.on_commit(known.forget)
        tx.on_commit(partial(streams.revoke, key_id))
        await notices.post(tx, Topic.KEYS, [key_id])
    return [None] * len(revoked)
