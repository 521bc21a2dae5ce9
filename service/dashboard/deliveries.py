"""Deliveries: what became of each event at each endpoint; dead letters."""

from typing import Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.doors import Visit, back_to, local_path, text_of
from service.dashboard.inside import ask
from service.dashboard.lists import ITEMS, cursor_of, filter_of, listed
from service.dashboard.names import EndpointNames
from service.dashboard.state import State
from service.domain.deliveries import DeliveryStatus
from service.domain.errors import Conflict, NotFound
from service.domain.kept import archive_id
from storage import deliveries, endpoints, events, overview
from storage.deliveries import DeliveryFilter

MESSAGE_IN_WORDS: Final = {
    "standard": "POSTed as it stands, signed by Standard Webhooks; its webhook-id is the event's id.",
    "cloudevents": "POSTed as a CloudEvent in binary mode: its data is the body, the rest are ce-* headers; signed.",
    "kling": "POSTed in the shape of the provider's own callback, made of this event if it is about a task or a test; signed.",
}


async def index(request: Request[State], visit: Visit) -> Response:
    state = request.state
    status = filter_of(request, "status", list(DeliveryStatus))
    endpoint_id = filter_of(request, "endpoint_id")
    archive = archive_id(visit.account_id)
    before = cursor_of(request, "dlv")
    async with state["database"].searching(visit.account_id) as reader:
        if status == DeliveryStatus.DEAD and endpoint_id is None:
            found = await overview.dead_letters(reader, visit.account_id, before_id=before, limit=ITEMS + 1)
        else:
            wanted = DeliveryFilter(
                status=status,
                endpoint_id=endpoint_id,
                but_endpoint_id=archive if endpoint_id is None else None,
            )
            found = await deliveries.page(reader, visit.account_id, wanted, before_id=before, limit=ITEMS + 1)
        there = await endpoints.by_id(reader, {delivery.endpoint_id for delivery in found})
        own = await endpoints.page(reader, visit.account_id, before_id=None, limit=200)
    filters = {"status": status, "endpoint_id": endpoint_id}
    return visit.render(
        request,
        "deliveries.html",
        page=listed(found, filters, before=before),
        filters=filters,
        filtered=any(filters.values()),
        statuses=list(DeliveryStatus),
        name=EndpointNames(there, archive),
        own=own,
    )


async def show(request: Request[State], visit: Visit) -> Response:
    async with request.state["database"].reading() as reader:
        delivery = await deliveries.get(reader, request.path_params["id"], account_id=visit.account_id)
        if delivery is None:
            raise NotFound(f"There is no delivery {request.path_params['id']}.")
        attempts = await deliveries.attempts(reader, delivery.id)
        event = (await events.by_id(reader, [delivery.event_id])).get(delivery.event_id)
        there = await endpoints.by_id(reader, [delivery.endpoint_id])
    endpoint = there.get(delivery.endpoint_id)
    said = None
    if endpoint is not None and endpoint.kind == "webhook":
        said = MESSAGE_IN_WORDS.get(str(endpoint.config.get("format")))
    return visit.render(
        request,
        "delivery.html",
        delivery=delivery,
        attempts=attempts,
        event=event,
        endpoint=endpoint,
        name=EndpointNames(there, archive_id(visit.account_id)),
        said=said,
        done=request.query_params.get("done"),
    )


async def replay(request: Request[State], visit: Visit, form: FormData) -> Response:
    async with request.state["database"].reading() as reader:
        delivery = await deliveries.get(reader, request.path_params["id"], account_id=visit.account_id)
    if delivery is None:
        raise NotFound(f"There is no delivery {request.path_params['id']}.")
    answer = await ask(request, visit.key, "POST", f"/v1/deliveries/{delivery.id}/replay")
    if not answer.is_good:
        raise Conflict(answer.detail)
    back = local_path(text_of(form, "back"))
    return back_to(f"/deliveries/{answer.content['id']}" if back == "/" else back, done="replayed")
