"""Chat bots, to look at; they are made by the API and on the command line."""

from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.doors import Visit
from service.dashboard.lists import ITEMS, cursor_of, listed
from service.dashboard.state import State
from storage import bots


async def index(request: Request[State], visit: Visit) -> Response:
    before = cursor_of(request, "bot")
    async with request.state["database"].searching(visit.account_id) as reader:
        found = await bots.page(reader, visit.account_id, before_id=before, limit=ITEMS + 1)
    return visit.render(request, "bots.html", page=listed(found, {}, before=before))
