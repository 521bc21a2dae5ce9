"""`/v1/deliveries`: what became of each event at each endpoint."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate
from service.api.pages import Query
from service.api.state import State
from service.domain.deliveries import Delivery, DeliveryStatus
from service.domain.errors import EndpointDisabled, KlingelError, NotFound
from service.domain.ids import id_pattern
from service.domain.kept import ARCHIVE, archive_id
from service.publication import replayed
from storage import deliveries, endpoints, events
from storage.database import Transaction
from storage.deliveries import DeliveryFilter

KINDS: Final = (ARCHIVE,)


async def index(request: Request[State]) -> Response:
    """Those to the account's endpoints; those to its archive, which keeps outputs, with `kind=archive`."""
    key = await authenticate(request)
    query = Query(request, known=("kind", "endpoint_id", "status", "event_id", "task_id"))
    page = query.page(id_pattern("dlv"))
    endpoint_id, archive = query.word("endpoint_id"), archive_id(key.account_id)
    of_archive = query.choice("kind", KINDS) is not None
    wanted = DeliveryFilter(
        endpoint_id=archive if of_archive else endpoint_id,
        but_endpoint_id=archive if endpoint_id is None and not of_archive else None,
        status=query.choice("status", list(DeliveryStatus)),
        event_id=query.word("event_id"),
        task_id=query.word("task_id"),
    )
    query.check()
    async with request.state["database"].searching(key.account_id) as reader:
        found = await deliveries.page(
            reader, key.account_id, wanted, before_id=page.cursor, limit=page.limit + 1
        )
    return page.respond(found, views=[delivery.view() for delivery in found])


async def show(request: Request[State]) -> Response:
    """With its attempts, the first one first; those of a dead letter say why."""
    key = await authenticate(request)
    async with request.state["database"].reading() as reader:
        delivery = await deliveries.get(reader, request.path_params["id"], account_id=key.account_id)
        if delivery is None:
            raise _unknown(request.path_params["id"])
        attempts = await deliveries.attempts(reader, delivery.id)
    return JSONResponse(
        delivery.view()
        | {"attempt_count": delivery.attempts, "attempts": [attempt.view() for attempt in attempts]}
    )


async def replay(request: Request[State]) -> Response:
    """A new delivery of the same event to the same endpoint, under the same message id."""
    key = await authenticate(request)
    state = request.state
    publisher = state["publisher"]

    delivery_id, now = request.path_params["id"], state["clock"]()

    async def make(tx: Transaction) -> Delivery | KlingelError:
        delivery = await deliveries.get(tx, delivery_id, account_id=key.account_id)
        if delivery is None:
            return _unknown(delivery_id)
        endpoint = (await endpoints.by_id(tx, [delivery.endpoint_id])).get(delivery.endpoint_id)
        if endpoint is None or not endpoint.enabled:
            return EndpointDisabled("Its endpoint is disabled or deleted, so a replay would reach nobody.")
        event = (await events.by_id(tx, [delivery.event_id]))[delivery.event_id]
        [made] = await publisher.schedule(tx, [(event, endpoint)], made=[replayed(delivery, now)])
        return made

    made = await state["batcher"].alone(make)
    return JSONResponse(made.view(), status_code=202, headers={"location": f"/v1/deliveries/{made.id}"})


def _unknown(delivery_id: str) -> NotFound:
    return NotFound(f"There is no delivery {delivery_id}.")
