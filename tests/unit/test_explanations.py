"""`service.domain.explanations`: what is told is what was decided."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.deliveries import Delivery, DeliveryStatus
from service.domain.endpoints import STEPS_OF_AN_EVENT, Endpoint, Reason
from service.domain.events import EventType, endpoint_event
from service.domain.explanations import Cause, Standing, explain
from service.domain.expressions import Steps
from service.domain.ids import AccountId, DeliveryId, EndpointId, TaskId

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EVENT = endpoint_event(EventType.ENDPOINT_DISABLED, AccountId("acc_1"), {"a": 1}, NOW)


def standing(*, subscribed_at: datetime = NOW - SECOND, **more: Any) -> Standing:
    given: dict[str, Any] = {
        "id": EndpointId("end_1"),
        "account_id": AccountId("acc_1"),
        "task_id": None,
        "kind": "webhook",
        "config": {},
        "types": ("*",),
        "created_at": NOW - SECOND,
        "updated_at": NOW - SECOND,
    }
    return Standing(Endpoint(**(given | more)), subscribed_at, None)


DELIVERY = Delivery(
    id=DeliveryId("dlv_1"),
    account_id=AccountId("acc_1"),
    event_id=EVENT.id,
    event_type=EVENT.type,
    task_id=None,
    endpoint_id=EndpointId("end_1"),
    status=DeliveryStatus.DELIVERED,
    attempts=1,
    next_attempt_at=None,
    created_at=NOW,
    finished_at=NOW,
)


def test_every_reason_of_a_subscription_is_a_cause() -> None:
    assert {str(reason) for reason in Reason} <= {str(cause) for cause in Cause}


subscriptions = st.builds(
    standing,
    types=st.sampled_from([("*",), ("task.*",), ("endpoint.disabled",)]),
    filter=st.sampled_from([None, "data.a", "data.b", "sum(type)"]),
    enabled=st.booleans(),
    task_id=st.sampled_from([None, TaskId("task_1")]),
)


@given(subscriptions)
def test_of_an_endpoint_as_it_was_what_is_told_is_what_publication_decided(asked: Standing) -> None:
    """With its delivery when it wanted the event, and without when it did not."""
    content = EVENT.content()
    judgement = asked.endpoint.judge(EVENT, content, Steps(STEPS_OF_AN_EVENT))
    told = explain(
        EVENT,
        asked,
        content,
        Steps(STEPS_OF_AN_EVENT),
        delivery=DELIVERY if judgement.goes else None,
        deliveries=int(judgement.goes),
    )
    assert (told.sent, told.cause) == (judgement.goes, judgement.reason)
    assert not told.changed


@given(subscriptions, st.booleans(), st.booleans(), st.booleans())
def test_what_was_done_is_never_denied(
    asked: Standing, delivered: bool, created: bool, changed: bool
) -> None:
    """Whatever the endpoint is now, a delivery was made if there is one."""
    later = Standing(asked.endpoint, NOW + SECOND if changed else asked.subscribed_at, None)
    told = explain(
        EVENT,
        later,
        EVENT.content(),
        Steps(STEPS_OF_AN_EVENT),
        delivery=DELIVERY if delivered else None,
        deliveries=int(delivered),
    )
    assert told.sent == (delivered or told.cause is Cause.FORGOTTEN)
    assert told.told.endswith(".")
    assert told.view()["reason"] == told.cause


def test_a_filter_that_others_left_no_time_for_let_it_through() -> None:
    asked = standing(filter="data.b")
    told = explain(EVENT, asked, EVENT.content(), Steps(STEPS_OF_AN_EVENT), delivery=DELIVERY, deliveries=1)
    assert told.cause is Cause.FILTER_BROKE
    assert told.told == (
        "Its filter could not be evaluated over this event (others had taken all the time that there is), "
        "which lets it through."
    )


@pytest.mark.parametrize("id", ["end_1", "end_2"])
def test_a_test_is_known_by_what_it_says_also_when_its_delivery_is_forgotten(id: str) -> None:
    event = endpoint_event(EventType.ENDPOINT_TEST, AccountId("acc_1"), {"endpoint": {"id": id}}, NOW)
    told = explain(event, standing(), event.content(), Steps(STEPS_OF_AN_EVENT), delivery=None)
    assert (told.sent, told.cause) == ((True, Cause.TEST) if id == "end_1" else (False, Cause.OTHER_TEST))


def test_every_reason_is_explained_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == {str(cause) for cause in Cause}
