"""Which door a request is for."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.convertors import StringConvertor
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send


class Doors(Router):
    """Asks only the routes that begin with the same word as the request's path, and have as many parts: there are two
    hundred, and to ask each of them takes as long as all else that is done before a callback is read. What none of
    these takes is looked for as Starlette does.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(routes, lifespan=lifespan, redirect_slashes=False)
        self._alike: defaultdict[tuple[str, int], list[Route]] = defaultdict(list)
        for route in routes:
            if isinstance(route, Route) and _has_fixed_parts(route):
                self._alike[_shape(route.path)].append(route)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            path, method = scope["path"], scope["method"]
            for route in self._alike.get(_shape(path), ()):
                if method in (route.methods or ()) and (found := route.path_regex.match(path)):
                    scope["path_params"] = found.groupdict()
                    scope["endpoint"] = route.endpoint
                    await route.app(scope, receive, send)
                    return
        await super().app(scope, receive, send)


def _has_fixed_parts(route: Route) -> bool:
    """Whether each parameter is text of one part, and the first part has none."""
    return "{" not in _shape(route.path)[0] and all(
        type(convertor) is StringConvertor for convertor in route.param_convertors.values()
    )


def _shape(path: str) -> tuple[str, int]:
    """Its first word, and how many parts it has."""
    return path[1:].partition("/")[0], path.count("/")
