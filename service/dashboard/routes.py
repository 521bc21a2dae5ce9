"""Where the pages are, beside the API's own routes and over none of them."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from starlette.routing import BaseRoute, Route

from service.dashboard import (
    assets,
    bots,
    deliveries,
    endpoints,
    events,
    keys,
    live,
    overview,
    push,
    sign_in,
    submit,
    tasks,
    usage,
)
from service.dashboard.doors import Do, Show, action, page, upload


def _page(path: str, show: Show) -> Route:
    return Route(path, page(show), methods=["GET"])


def _action(path: str, do: Do) -> Route:
    return Route(path, action(do), methods=["POST"])


def routes(configs: Mapping[str, type[BaseModel]]) -> Sequence[BaseRoute]:
    """
    Args:
        configs: how each kind of endpoint is configured.
    """
    wired = endpoints.EndpointPages(configs)
    return [
        Route("/sign-in", sign_in.show, methods=["GET"]),
        Route("/sign-in", sign_in.sign_in, methods=["POST"]),
        Route("/sign-out", sign_in.sign_out, methods=["POST"]),
        _page("/", overview.show),
        _page("/tasks", tasks.index),
        _page("/tasks/{id}", tasks.show),
        _action("/tasks/{id}/refresh", tasks.refresh),
        _page("/submit", submit.choose),
        _page("/submit/{type}", submit.show),
        Route("/submit/{type}", upload(submit.submit), methods=["POST"]),
        _page("/endpoints", wired.index),
        _page("/endpoints/new/{kind}", wired.new),
        _action("/endpoints/new/{kind}", wired.create),
        _page("/endpoints/{id}", wired.show),
        _action("/endpoints/{id}", wired.change),
        _action("/endpoints/{id}/test", endpoints.test),
        _action("/endpoints/{id}/rotate-secret", endpoints.rotate),
        _action("/endpoints/{id}/switch", endpoints.switch),
        _action("/endpoints/{id}/delete", endpoints.delete),
        _action("/endpoints/{id}/replay", endpoints.replay),
        _page("/deliveries", deliveries.index),
        _page("/deliveries/{id}", deliveries.show),
        _action("/deliveries/{id}/replay", deliveries.replay),
        _page("/events/{id}", events.show),
        _page("/bots", bots.index),
        _page("/usage", usage.show),
        _action("/usage/budget", usage.put_budget),
        _action("/usage/budget/remove", usage.remove_budget),
        _page("/keys", keys.index),
        _action("/keys", keys.create),
        _action("/keys/{id}/revoke", keys.revoke),
        _page("/push", push.show),
        _action("/push", push.subscribe),
        Route("/live", live.stream, methods=["GET"]),
        Route("/static/{version}/{name}", assets.static, methods=["GET"]),
        Route("/service-worker.js", assets.worker, methods=["GET"]),
        Route("/favicon.ico", assets.icon, methods=["GET"]),
    ]
