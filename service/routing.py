"""Which door a request is for."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send


class Doors(Router):
    """Looks first at the few routes that begin as the request's path does; there are a hundred, and each one that is
    asked in vain takes as long as all else that is done before a callback is read. What none of them takes is
    looked for as Starlette does.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(routes, lifespan=lifespan, redirect_slashes=False)
        self._beginning: defaultdict[str, list[Route]] = defaultdict(list)
        for route in routes:
            if isinstance(route, Route):
                self._beginning[_first_segment(route.path)].append(route)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route in self._beginning.get(_first_segment(scope["path"]), ()):
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await route.handle(scope, receive, send)
                    return
        await super().app(scope, receive, send)


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""
