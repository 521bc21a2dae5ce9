"""API keys, for admins."""

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.doors import Visit, admins, back_to, text_of
from service.dashboard.inside import ask
from service.dashboard.lists import ITEMS, cursor_of, listed
from service.dashboard.state import State
from service.domain.errors import Conflict, Forbidden
from storage import keys


@admins
async def index(request: Request[State], visit: Visit) -> Response:
    return await _page(request, visit)


async def _page(
    request: Request[State],
    visit: Visit,
    *,
    made: str | None = None,
    faults: list[str] | None = None,
    values: dict[str, str] | None = None,
    status: int = 200,
    is_uncertain: bool = False,
) -> Response:
    before = cursor_of(request, "key")
    async with request.state["database"].searching(visit.account_id) as reader:
        found = await keys.page(reader, before_id=before, limit=ITEMS + 1)
    return visit.render(
        request,
        "keys.html",
        status=status,
        page=listed(found, {}, before=before),
        made=made,
        faults=faults or [],
        is_uncertain=is_uncertain,
        values=values or {"name": "", "account": "", "role": "member"},
        done=request.query_params.get("done"),
    )


async def create(request: Request[State], visit: Visit, form: FormData) -> Response:
    """The key is on this page, and nowhere after."""
    given = {name: text_of(form, name) for name in ("name", "account", "role")}
    body = {name: value for name, value in given.items() if value}
    answer = await ask(request, visit.key, "POST", "/v1/keys", body=body)
    if answer.status == 403:
        raise Forbidden(answer.detail)
    if not answer.is_good:
        faults = [fault.detail for fault in answer.faults] or [answer.detail]
        return await _page(
            request,
            visit,
            faults=faults,
            values=given,
            status=answer.status,
            is_uncertain=answer.is_uncertain,
        )
    return await _page(request, visit, made=answer.content["key"])


async def revoke(request: Request[State], visit: Visit, form: FormData) -> Response:
    async with request.state["database"].reading() as reader:
        key = await keys.get(reader, request.path_params["id"]) if visit.is_admin else None
    if key is None:
        raise Conflict("There is no such key." if visit.is_admin else "This needs an admin key.")
    answer = await ask(request, visit.key, "DELETE", f"/v1/keys/{key.id}")
    if not answer.is_good:
        raise Conflict(answer.detail)
    return back_to("/keys", done="revoked")
