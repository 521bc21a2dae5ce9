"""Endpoints: where events go, how they fare, and what can be done with them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service.dashboard import charts
from service.dashboard.commands import curl
from service.dashboard.doors import Visit, back_to, text_of
from service.dashboard.forms import (
    Field,
    Widget,
    changes,
    entered,
    fields_of,
    shown_values,
    sorted_faults,
    values_of,
)
from service.dashboard.inside import Answer, ask
from service.dashboard.lists import cursor_of
from service.dashboard.names import EndpointNames, name_of
from service.dashboard.rendering import show_milliseconds
from service.dashboard.state import State
from service.domain.deliveries import AttemptOutcome
from service.domain.endpoints import MOST_A_MINUTE, Endpoint
from service.domain.errors import Conflict, Fault, NotFound, SearchTooWide
from service.domain.events import EventType
from service.domain.kept import archive_id
from service.domain.times import rfc3339
from service.subscriptions import usual_types
from storage import deliveries, endpoints, overview
from storage.database import Reader
from storage.deliveries import DeliveryFilter
from storage.overview import Tried

ENDPOINTS: Final = 24  # on a page
SPAN: Final = timedelta(minutes=5)
SPANS: Final = 12
LATEST: Final = 12
BY_BROWSER: Final = "web_push"  # made where a browser subscribes, not by a form
AGES: Final[Mapping[str, timedelta]] = {
    "1 hour": timedelta(hours=1),
    "24 hours": timedelta(hours=24),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
}
PATTERNS: Final = ("task.*", "output.*", "endpoint.*", *EventType)
ABOUT: Final[Mapping[str, str]] = {
    "webhook": "a signed POST to your URL",
    "task": "submits another task",
    "web_push": "this browser",
    "ntfy": "a phone, by ntfy",
    "apprise": "mail, SMS and a hundred more",
    "nats": "NATS JetStream",
    "mqtt": "MQTT 5",
    "redis": "a Redis stream",
    "amqp": "RabbitMQ and the like",
}
SUBSCRIPTION: Final = (
    Field(
        name="more.types",
        pointer="#/types",
        label="Events",
        widget=Widget.CHOICES,
        choices=PATTERNS,
        hint="None ticked: all of tasks, or what the kind needs.",
    ),
    Field(
        name="more.filter",
        pointer="#/filter",
        label="Filter",
        widget=Widget.TEXT,
        longest=1000,
        hint="JMESPath over the event, e.g. data.task.metadata.customer == 'acme'",
    ),
    Field(
        name="more.description",
        pointer="#/description",
        label="Description",
        widget=Widget.TEXT,
        longest=500,
        hint="What it is called here.",
    ),
)
RATE: Final = Field(
    name="more.rate_per_minute",
    pointer="#/rate_per_minute",
    label="Attempts a minute, at most",
    widget=Widget.NUMBER,
    least=1,
    most=MOST_A_MINUTE,
    is_whole=True,
    hint="For a receiver that takes so many: 20 for a chat group's robot. Blank is no limit.",
)
OF_AN_ACCOUNT: Final = (*SUBSCRIPTION, RATE)


@dataclass(frozen=True, slots=True)
class LastHour:
    """How an endpoint fared."""

    tried: Sequence[Tried]
    start: datetime

    @property
    def rate(self) -> float | None:
        """Of attempts that were successful; None without any."""
        if not self.tried:
            return None
        return sum(each.outcome is AttemptOutcome.DELIVERED for each in self.tried) / len(self.tried)

    @property
    def usual_ms(self) -> int | None:
        ordered = sorted(each.ms for each in self.tried)
        return ordered[len(ordered) // 2] if ordered else None

    def outcomes(self) -> charts.Chart:
        buckets: list[dict[str, int]] = [{} for _ in range(SPANS)]
        for each in self.tried:
            place = int((each.at - self.start) / SPAN)
            if 0 <= place < SPANS:
                kind = "delivered" if each.outcome is AttemptOutcome.DELIVERED else "failed"
                buckets[place][kind] = buckets[place].get(kind, 0) + 1
        return charts.stacked(
            buckets, ("delivered", "failed"), start=self.start, span=SPAN, what="Attempts of the last hour"
        )

    def latencies(self) -> charts.Chart:
        usual, slow = charts.percentiles(
            self.tried, start=self.start, span=SPAN, count=SPANS, shares=(0.5, 0.95)
        )
        return charts.lined(
            {"half took at most": usual, "95 % took at most": slow},
            start=self.start,
            span=SPAN,
            what="How long attempts took in the last hour",
            show=show_milliseconds,
        )


async def _last_hour(reader: Reader, endpoint: Endpoint, now: datetime) -> LastHour:
    start = now - SPANS * SPAN
    tried = await overview.attempts_to(reader, endpoint.id, account_id=endpoint.account_id, since=start)
    return LastHour(tried, start)


class EndpointPages:
    """
    Args:
        configs: how each kind is configured; the kinds are the composition root's to know.
    """

    def __init__(self, configs: Mapping[str, type[BaseModel]]) -> None:
        self._fields = {
            kind: fields_of(model, prefix="config", pointer="#/config")
            for kind, model in configs.items()
            if kind != BY_BROWSER
        }

    async def index(self, request: Request[State], visit: Visit) -> Response:
        state = request.state
        now = state["clock"]()
        before = cursor_of(request, "end")
        async with state["database"].searching(visit.account_id) as reader:
            found = await endpoints.page(reader, visit.account_id, before_id=before, limit=ENDPOINTS + 1)
        fared: dict[str, LastHour] = {}
        try:
            async with state["database"].searching(visit.account_id) as reader:
                for endpoint in found[:ENDPOINTS]:
                    fared[endpoint.id] = await _last_hour(reader, endpoint, now)
        except SearchTooWide:  # the rest of the page is worth having
            pass
        return visit.render(
            request,
            "endpoints.html",
            endpoints=found[:ENDPOINTS],
            older=f"?before={found[ENDPOINTS - 1].id}" if len(found) > ENDPOINTS else None,
            newest="?" if before is not None else None,
            fared=fared,
            kinds=[*self._fields, BY_BROWSER],
            about=ABOUT,
            name=name_of,
            done=request.query_params.get("done"),
        )

    async def new(self, request: Request[State], visit: Visit) -> Response:
        return self._form(request, visit, self._kind(request))

    def _kind(self, request: Request[State]) -> str:
        """
        Raises:
            NotFound: no such kind here.
        """
        kind: str = request.path_params["kind"]
        if kind not in self._fields or kind not in request.state["sinks"]:
            raise NotFound(f"There is no kind {kind}.")
        return kind

    async def create(self, request: Request[State], visit: Visit, form: FormData) -> Response:
        kind = self._kind(request)
        given = await entered(self._fields[kind], form)
        more = await entered(OF_AN_ACCOUNT, form)
        body: dict[str, Any] = {"kind": kind, "config": given.body, **more.body}
        faults = [*given.faults, *more.faults]
        if text_of(form, "action") != "create":
            return self._form(request, visit, kind, form=form, faults=faults, command=_curl(request, body))
        status, is_uncertain = 422, False
        if not faults:
            answer = await ask(request, visit.key, "POST", "/v1/endpoints", body=body)
            if answer.is_good:
                return _secret(request, visit, answer.content["id"], answer.content["secret"], is_new=True)
            status, is_uncertain = answer.status, answer.is_uncertain
            faults = [*answer.faults] or [Fault(answer.detail, "#")]
        return self._form(
            request, visit, kind, form=form, faults=faults, status=status, is_uncertain=is_uncertain
        )

    def _form(
        self,
        request: Request[State],
        visit: Visit,
        kind: str,
        *,
        form: FormData | None = None,
        faults: Sequence[Fault] = (),
        command: str | None = None,
        status: int = 200,
        is_uncertain: bool = False,
    ) -> Response:
        everything = [*self._fields[kind], *OF_AN_ACCOUNT]
        return visit.render(
            request,
            "endpoint_new.html",
            status=status,
            kind=kind,
            about=ABOUT.get(kind, f"messages in {kind.capitalize()}"),
            fields=self._fields[kind],
            more=OF_AN_ACCOUNT,
            values={} if form is None else values_of(everything, form),
            faults=sorted_faults(everything, faults),
            is_uncertain=is_uncertain,
            command=command,
        )

    async def show(self, request: Request[State], visit: Visit) -> Response:
        return await self._page(request, visit)

    async def _page(
        self,
        request: Request[State],
        visit: Visit,
        *,
        values: Mapping[str, Any] | None = None,
        faults: Sequence[Fault] = (),
        status: int = 200,
        is_uncertain: bool = False,
    ) -> Response:
        state = request.state
        now = state["clock"]()
        async with state["database"].searching(visit.account_id) as reader:
            endpoint = await _found(reader, request, visit)
            latest = await deliveries.page(
                reader,
                visit.account_id,
                DeliveryFilter(endpoint_id=endpoint.id),
                before_id=None,
                limit=LATEST,
            )
            fared = await _last_hour(reader, endpoint, now)
        fields, more = self._fields.get(endpoint.kind, []), _more(request, endpoint)
        everything = [*fields, *more]
        current = shown_values(fields, endpoint.config) | shown_values(more, endpoint.view())
        return visit.render(
            request,
            "endpoint.html",
            status=status,
            endpoint=endpoint,
            public_key=endpoint.public_key(state["vault"]),
            name=name_of(endpoint),
            names=EndpointNames({endpoint.id: endpoint}, archive_id(visit.account_id)),
            latest=latest,
            fared=fared,
            fields=fields,
            more=more,
            values=current if values is None else values,
            faults=sorted_faults(everything, faults),
            is_uncertain=is_uncertain,
            is_edited=bool(faults),
            ages=list(AGES),
            done=request.query_params.get("done"),
            number=request.query_params.get("number", ""),
        )

    async def change(self, request: Request[State], visit: Visit, form: FormData) -> Response:
        """Only what somebody has changed is sent: what is sealed is not shown, and stays."""
        async with request.state["database"].reading() as reader:
            endpoint = await _found(reader, request, visit)
        fields, beside = self._fields.get(endpoint.kind, []), _more(request, endpoint)
        config = await changes(fields, form, endpoint.config)
        more = await changes(beside, form, endpoint.view())
        body = dict(more.body)
        if config.body:
            body["config"] = config.body
        faults = [*config.faults, *more.faults]
        status, is_uncertain = 422, False
        if not faults:
            answer = await ask(request, visit.key, "PATCH", f"/v1/endpoints/{endpoint.id}", body=body)
            if answer.is_good:
                return back_to(f"/endpoints/{endpoint.id}", done="changed")
            status, is_uncertain = answer.status, answer.is_uncertain
            faults = [*answer.faults] or [Fault(answer.detail, "#")]
        values = values_of([*fields, *beside], form)
        return await self._page(
            request, visit, values=values, faults=faults, status=status, is_uncertain=is_uncertain
        )


def _more(request: Request[State], endpoint: Endpoint) -> Sequence[Field]:
    """Without any event ticked it listens to what a new one of its kind would."""
    usual = list(usual_types(request.state["sinks"].get(endpoint.kind)))
    fields = OF_AN_ACCOUNT if endpoint.task_id is None else SUBSCRIPTION
    return [replace(each, default=usual) if each.widget is Widget.CHOICES else each for each in fields]


def _curl(request: Request[State], body: dict[str, Any]) -> str:
    return curl("POST", f"{request.state['settings'].reachable_url}/v1/endpoints", body, {})


def _secret(request: Request[State], visit: Visit, id: str, secret: str, *, is_new: bool) -> Response:
    """Shown this once: not kept by the browser, nor to be had by loading the page again."""
    return visit.render(request, "secret.html", endpoint_id=id, secret=secret, is_new=is_new)


Act = Callable[[Request[State], Visit, FormData, Endpoint], Awaitable[Response]]


def _acting(act: Act) -> Callable[[Request[State], Visit, FormData], Awaitable[Response]]:
    async def do(request: Request[State], visit: Visit, form: FormData) -> Response:
        async with request.state["database"].reading() as reader:
            endpoint = await _found(reader, request, visit)
        return await act(request, visit, form, endpoint)

    return do


async def _done(
    request: Request[State], visit: Visit, method: str, path: str, *, body: object = None
) -> Answer:
    """
    Raises:
        Conflict: with what the API says against it.
    """
    answer = await ask(request, visit.key, method, path, body=body)
    if not answer.is_good:
        raise Conflict(" ".join([answer.detail, *(fault.detail for fault in answer.faults)]))
    return answer


@_acting
async def test(request: Request[State], visit: Visit, form: FormData, endpoint: Endpoint) -> Response:
    answer = await _done(request, visit, "POST", f"/v1/endpoints/{endpoint.id}/test")
    return back_to(f"/deliveries/{answer.content['delivery']['id']}", done="tested")


@_acting
async def rotate(request: Request[State], visit: Visit, form: FormData, endpoint: Endpoint) -> Response:
    answer = await _done(request, visit, "POST", f"/v1/endpoints/{endpoint.id}/rotate-secret")
    return _secret(request, visit, endpoint.id, answer.content["secret"], is_new=False)


@_acting
async def switch(request: Request[State], visit: Visit, form: FormData, endpoint: Endpoint) -> Response:
    is_on = text_of(form, "enabled") == "true"
    await _done(request, visit, "PATCH", f"/v1/endpoints/{endpoint.id}", body={"enabled": is_on})
    return back_to(f"/endpoints/{endpoint.id}", done="enabled" if is_on else "disabled")


@_acting
async def delete(request: Request[State], visit: Visit, form: FormData, endpoint: Endpoint) -> Response:
    await _done(request, visit, "DELETE", f"/v1/endpoints/{endpoint.id}")
    return back_to("/endpoints", done="deleted")


@_acting
async def replay(request: Request[State], visit: Visit, form: FormData, endpoint: Endpoint) -> Response:
    age = AGES.get(text_of(form, "age"), AGES["1 hour"])
    since = rfc3339(request.state["clock"]() - age)
    body = {"since": since, "only": "all" if text_of(form, "only") == "all" else "failed"}
    answer = await _done(request, visit, "POST", f"/v1/endpoints/{endpoint.id}/replay", body=body)
    return back_to(f"/endpoints/{endpoint.id}?number={answer.content['replayed']}", done="replayed")


async def _found(reader: Reader, request: Request[State], visit: Visit) -> Endpoint:
    """
    Raises:
        NotFound: none, or another account's.
    """
    endpoint_id = request.path_params["id"]
    endpoint = await endpoints.get(reader, endpoint_id, account_id=visit.account_id)
    if endpoint is None:
        raise NotFound(f"There is no endpoint {endpoint_id}.")
    return endpoint
