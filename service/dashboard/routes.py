"""Where the pages are, beside the API's own routes and over none of them."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from service.dashboard import assets, live, overview, sign_in, submit, tasks
from service.dashboard.doors import Do, Show, action, page


def _page(path: str, show: Show) -> Route:
    return Route(path, page(show), methods=["GET"])


def _action(path: str, do: Do) -> Route:
    return Route(path, action(do), methods=["POST"])


def routes() -> Sequence[BaseRoute]:
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
        _action("/submit/{type}", submit.submit),
        Route("/live", live.stream, methods=["GET"]),
        Route("/static/{version}/{name}", assets.static, methods=["GET"]),
        Route("/service-worker.js", assets.worker, methods=["GET"]),
        Route("/favicon.ico", assets.icon, methods=["GET"]),
    ]
