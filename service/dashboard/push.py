"""Notifications in this browser: it subscribes, and becomes an endpoint of its own."""

from pydantic_core import from_json
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.doors import Visit, back_to, text_of
from service.dashboard.inside import ask
from service.dashboard.state import State
from service.domain.errors import InvalidRequest, Unprocessable

TYPES = ("task.succeeded", "task.failed", "task.rejected", "task.overdue")


async def show(request: Request[State], visit: Visit) -> Response:
    return visit.render(
        request,
        "push.html",
        public_key=request.state["push_keys"].public,
        types=TYPES,
        done=request.query_params.get("done"),
    )


async def subscribe(request: Request[State], visit: Visit, form: FormData) -> Response:
    try:
        subscription = from_json(text_of(form, "subscription"))
    except ValueError:
        raise InvalidRequest("The browser gave no subscription. Scripts must be allowed here.") from None
    body = {
        "kind": "web_push",
        "config": {"subscription": subscription},
        "types": list(TYPES),
        "description": text_of(form, "description")[:500] or "A browser",
    }
    answer = await ask(request, visit.key, "POST", "/v1/endpoints", body=body)
    if not answer.is_good:
        raise Unprocessable(" ".join([answer.detail, *(fault.detail for fault in answer.faults)]))
    return back_to(f"/endpoints/{answer.content['id']}", done="subscribed")
