"""Which door a request is for."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send


class Doors(Router):
    """Looks first at the routes that begin as the request's path does, those first that name most of it: there are a
    hundred and more, and to ask each of them takes as long as all else that is done before a callback is read. What
    none of them takes is looked for as Starlette does.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(routes, lifespan=lifespan, redirect_slashes=False)
        self._below: defaultdict[str, list[Route]] = defaultdict(list)
        for route in routes:
            if isinstance(route, Route):
                self._below[_named(route.path)].append(route)
        self._deepest = max((path.count("/") for path in self._below), default=0)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for beginning in self._beginnings(scope["path"]):
                for route in self._below.get(beginning, ()):
                    match, found = route.matches(scope)
                    if match is Match.FULL:
                        scope.update(found)
                        await route.handle(scope, receive, send)
                        return
        await super().app(scope, receive, send)

    def _beginnings(self, path: str) -> Iterator[str]:
        """The whole path, then without its last segment, and so on; what is deeper than any route is one segment."""
        segments = path.split("/", self._deepest + 1)
        for number in range(len(segments), 1, -1):
            yield "/".join(segments[:number])


def _named(path: str) -> str:
    """As far as it has no parameters."""
    literal, parameter, _ = path.partition("{")
    return literal.rpartition("/")[0] if parameter else literal
