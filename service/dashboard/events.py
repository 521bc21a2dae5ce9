"""An event: as it was told, and for each endpoint why it got it, or did not."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.doors import Visit
from service.dashboard.lists import cursor_of
from service.dashboard.names import name_of
from service.dashboard.state import State
from service.domain.errors import NotFound
from service.explaining import explain_event
from storage import events

ENDPOINTS: Final = 50  # on a page


async def show(request: Request[State], visit: Visit) -> Response:
    database = request.state["database"]
    async with database.reading() as reader:
        event = await events.get(reader, request.path_params["id"], account_id=visit.account_id)
    if event is None:
        raise NotFound("There is no such event (any longer).")
    after = cursor_of(request, "end")  # what is listed is endpoints
    found = await explain_event(database, event, after_id=after, limit=ENDPOINTS + 1)
    return visit.render(
        request,
        "event.html",
        event=event,
        explanations=found[:ENDPOINTS],
        more=f"?before={found[ENDPOINTS - 1].id}" if len(found) > ENDPOINTS else None,
        name=name_of,
    )
