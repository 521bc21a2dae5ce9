"""Why each endpoint got an event, or did not; for whoever asks, at any door."""

import asyncio

from service.domain.endpoints import STEPS_OF_A_FILTER, STEPS_OF_AN_EVENT
from service.domain.events import Event
from service.domain.explanations import Explanation, explain
from service.domain.expressions import Steps
from storage import deliveries, endpoints
from storage.database import Database


async def explain_event(
    database: Database,
    event: Event,
    *,
    endpoint_id: str | None = None,
    after_id: str | None = None,
    limit: int,
) -> list[Explanation]:
    """The account's endpoints, and those bound to the event's task, oldest first. Between costly filters everybody else has a turn.

    Args:
        endpoint_id: this one alone, whatever task it is bound to; none, where it is another account's.
        after_id: the endpoint after which it goes on.
    """
    async with database.reading() as reader:
        if endpoint_id is None:
            standings = await endpoints.standing(
                reader,
                event.account_id,
                task_id=event.task_id,
                at=event.at,
                after_id=after_id or "",
                limit=limit,
            )
        else:
            one = await endpoints.standing_of(reader, endpoint_id, account_id=event.account_id, at=event.at)
            standings = [] if one is None else [one]
        sent = await deliveries.latest_of_event(
            reader, event.id, [standing.endpoint.id for standing in standings]
        )
    content = event.content()
    steps = Steps(STEPS_OF_AN_EVENT)
    explanations: list[Explanation] = []
    yield_at = steps.left - STEPS_OF_A_FILTER
    for standing in standings:
        delivery, number = sent.get(standing.endpoint.id, (None, 0))
        explanations.append(explain(event, standing, content, steps, delivery=delivery, deliveries=number))
        if steps.left < yield_at:
            yield_at = steps.left - STEPS_OF_A_FILTER
            await asyncio.sleep(0)
    return explanations
