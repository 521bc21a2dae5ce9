"""`/v1/bots`: chat bots by which people submit tasks, and who may."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate
from service.api.pages import Query
from service.api.state import State
from service.domain.bots import BOTS_OF_AN_ACCOUNT, Allowed, Bot
from service.domain.errors import ChangedMeanwhile, Fault, KlingelError, NotFound, TooManyBots, Unprocessable
from service.domain.faults import PREDICATE, accept, collecting
from service.domain.ids import AccountId, id_pattern, new_bot_id
from service.domain.inputs import whole
from service.domain.models import NotNull, StrictModel
from service.domain.values import replace
from service.doors.bodies import parse_json, read_body
from storage import bots
from storage.database import Transaction

MOST_ALLOWED: Final = 200
Identity = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x20\x7f]+$")]

OpenTasks = Annotated[int, Field(ge=1, le=1000), BeforeValidator(whole)]


class AllowedBody(StrictModel):
    """All that is given must apply; at least one thing is."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    workspace: Identity | None = Field(None, description="team, guild or tenant, by the platform's id")
    chat: Identity | None = Field(None, description="channel or conversation")
    user: Identity | None = None

    @model_validator(mode="after")
    def _names_something(self) -> "AllowedBody":
        if self.workspace is None and self.chat is None and self.user is None:
            raise PydanticCustomError(PREDICATE, "must name a workspace, a chat or a user")
        return self


class BotBody(StrictModel):
    """`config` is for the platform to read."""

    platform: str
    config: Any = None
    allow: Annotated[list[AllowedBody], Field(max_length=MOST_ALLOWED)] = Field(
        [], description="whom it obeys; nobody while it is empty"
    )
    open_tasks: OpenTasks = Field(3, description="how many unfinished tasks one person may have at a time")
    description: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None


class BotPatch(StrictModel):
    config: Any = None
    allow: Annotated[Annotated[list[AllowedBody], Field(max_length=MOST_ALLOWED)] | None, NotNull()] = None
    open_tasks: Annotated[OpenTasks | None, NotNull()] = None
    description: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None


async def create(request: Request[State]) -> Response:
    """The answer says where the platform is to send what people say: `url`."""
    key = await authenticate(request)
    state = request.state
    raw = parse_json(await read_body(request))
    faults: list[Fault] = []
    body: BotBody | None = None
    with collecting(faults):
        body = accept(BotBody, raw)
    fields = raw if isinstance(raw, dict) else {}
    platform, known = fields.get("platform"), state["bot_desk"].platforms
    configured: tuple[Mapping[str, Any], str | None] = ({}, None)
    if isinstance(platform, str) and platform not in known:
        faults.append(
            Fault(f"There are no bots on {platform!r}. There are: {', '.join(known)}.", "#/platform")
        )
    elif isinstance(platform, str):
        with collecting(faults):
            configured = state["bot_desk"].configure(platform, fields.get("config"), pointer="#/config")
    if faults or body is None:
        raise Unprocessable("The bot has faults.", faults=faults)
    now = state["clock"]()
    bot = Bot(
        id=new_bot_id(),
        account_id=key.account_id,
        platform=body.platform,
        config=configured[0],
        credentials=configured[1],
        allow=_allowed(body.allow),
        open_tasks=body.open_tasks,
        description=body.description,
        created_at=now,
        updated_at=now,
    )
    await state["batcher"].run(_insert, bot)
    return JSONResponse(_view(request, bot), status_code=201, headers={"location": f"/v1/bots/{bot.id}"})


async def _insert(tx: Transaction, made: Sequence[Bot]) -> list[TooManyBots | None]:
    await tx.hold("account", {bot.account_id for bot in made})
    there = await bots.count(tx, (bot.account_id for bot in made))
    results: list[TooManyBots | None] = []
    for bot in made:
        if there[bot.account_id] >= BOTS_OF_AN_ACCOUNT:
            detail = f"The account has {BOTS_OF_AN_ACCOUNT} bots, and no more are taken. Delete one first."
            results.append(TooManyBots(detail, limit=BOTS_OF_AN_ACCOUNT))
            continue
        there[bot.account_id] += 1
        await bots.insert(tx, bot)
        results.append(None)
    return results


async def index(request: Request[State]) -> Response:
    key = await authenticate(request)
    query = Query(request, known=())
    page = query.page(id_pattern("bot"))
    query.check()
    async with request.state["database"].reading() as reader:
        found = await bots.page(reader, key.account_id, before_id=page.cursor, limit=page.limit + 1)
    return page.respond(found, views=[_view(request, bot) for bot in found])


async def show(request: Request[State]) -> Response:
    key = await authenticate(request)
    return JSONResponse(_view(request, await _found(request, key.account_id)))


async def update(request: Request[State]) -> Response:
    """Changes what is named. `description` may be set to null."""
    key = await authenticate(request)
    state = request.state
    raw = parse_json(await read_body(request))
    faults: list[Fault] = []
    patch: BotPatch | None = None
    with collecting(faults):
        patch = accept(BotPatch, raw)
    bot = await _found(request, key.account_id)
    fields = raw if isinstance(raw, dict) else {}
    configured: tuple[Mapping[str, Any], str | None] | None = None
    if "config" in fields:
        with collecting(faults):
            configured = state["bot_desk"].configure(
                bot.platform, fields["config"], pointer="#/config", before=bot
            )
    if faults or patch is None:
        raise Unprocessable("The change has faults.", faults=faults)
    edit = _Edit(bot, patch, configured, state["clock"]())
    return JSONResponse(_view(request, await state["batcher"].run(_edit, edit)))


@dataclass(frozen=True, slots=True)
class _Edit:
    seen: Bot  # as it was when the change was read
    patch: BotPatch
    configured: tuple[Mapping[str, Any], str | None] | None
    now: datetime


async def _edit(tx: Transaction, edits: Sequence[_Edit]) -> list[Bot | KlingelError]:
    """From what is stored by then: of two changes at once neither takes the other back."""
    results: list[Bot | KlingelError] = []
    await tx.hold("bot", {edit.seen.id for edit in edits})
    for edit in edits:
        bot = await bots.get(tx, edit.seen.id)
        if bot is None:
            results.append(NotFound(f"There is no bot {edit.seen.id}."))
            continue
        if edit.configured is not None and (bot.config, bot.credentials) != (
            edit.seen.config,
            edit.seen.credentials,
        ):
            results.append(
                ChangedMeanwhile("Somebody else has changed it meanwhile. Read it, and change it again.")
            )
            continue
        patch = edit.patch
        config, credentials = edit.configured or (bot.config, bot.credentials)
        changed = replace(
            bot,
            config=config,
            credentials=credentials,
            allow=bot.allow if patch.allow is None else _allowed(patch.allow),
            open_tasks=patch.open_tasks or bot.open_tasks,
            description=patch.description if "description" in patch.model_fields_set else bot.description,
            updated_at=edit.now,
        )
        await bots.save(tx, changed)
        results.append(changed)
    return results


async def delete(request: Request[State]) -> Response:
    """What it was asked and has not begun is forgotten; its tasks go on, and answer nowhere."""
    key = await authenticate(request)
    state = request.state
    bot = await _found(request, key.account_id)

    async def forget(tx: Transaction) -> None:
        await bots.delete(tx, bot.id, now=state["clock"]())

    await state["batcher"].alone(forget)
    return Response(status_code=204)


def _allowed(bodies: Sequence[AllowedBody]) -> tuple[Allowed, ...]:
    return tuple(Allowed(workspace=body.workspace, chat=body.chat, user=body.user) for body in bodies)


def _view(request: Request[State], bot: Bot) -> dict[str, Any]:
    return bot.view() | {"url": f"{request.state['settings'].reachable_url}{bot.path}"}


async def _found(request: Request[State], account_id: AccountId) -> Bot:
    """
    Raises:
        NotFound: none, or another account's.
    """
    bot_id = request.path_params["id"]
    async with request.state["database"].reading() as reader:
        bot = await bots.get(reader, bot_id)
    if bot is None or bot.account_id != account_id:
        raise NotFound(f"There is no bot {bot_id}.")
    return bot
