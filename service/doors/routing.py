"""Which door a request is for."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.convertors import Convertor, StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send


class Anything(Convertor[str]):
    """As Starlette's `path`, and line breaks too."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class Something(Anything):
    """But not nothing."""

    regex = "(?s:.+)"


register_url_convertor("anything", Anything())
register_url_convertor("something", Something())

Handler = Callable[[Request[Any]], Awaitable[Response]]


class Plain:
    """A handler as plain ASGI: without what Starlette puts around each of them, so that what it raises becomes an
    answer where that is done for all. For those that are called most, and those that many hold open.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


class Doors(Router):
    """Asks only the routes that begin with the same word as the request's path, and have as many parts: there are two
    hundred, and to ask each of them takes as long as all else that is done before a callback is read. What none of
    these takes is looked for as Starlette does.

    Args:
        load_others: gives further routes, over none of these; called once, in a thread, when somebody comes whom none
            of these takes.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        load_others: Callable[[], Sequence[BaseRoute]] | None = None,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(lifespan=lifespan, redirect_slashes=False)
        self._alike: defaultdict[tuple[str, int], list[Route]] = defaultdict(list)
        self._wide: list[BaseRoute] = []
        self._add(routes)
        self._load_others = load_others
        self._loading = asyncio.Lock()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            door = self._door(scope)
            if door is None and self._load_others is not None and not self._takes_wide(scope):
                await self._load()
                door = self._door(scope)
            if door is not None:
                await door.app(scope, receive, send)
                return
        await super().app(scope, receive, send)

    def _door(self, scope: Scope) -> Route | None:
        """What it has found is in the scope then."""
        path, method = scope["path"], scope["method"]
        for route in self._alike.get(_shape(path), ()):
            if method in (route.methods or ()) and (found := route.path_regex.match(path)):
                scope["path_params"] = found.groupdict()
                scope["endpoint"] = route.endpoint
                return route
        return None

    def _takes_wide(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._wide)

    async def _load(self) -> None:
        async with self._loading:
            if self._load_others is not None:
                self._add(await asyncio.to_thread(self._load_others))
                self._load_others = None

    def _add(self, routes: Sequence[BaseRoute]) -> None:
        self.routes += routes
        for route in routes:
            if isinstance(route, Route) and _has_fixed_parts(route):
                self._alike[_shape(route.path)].append(route)
            else:
                self._wide.append(route)


def _has_fixed_parts(route: Route) -> bool:
    """Whether each parameter is text of one part, and the first part has none."""
    return "{" not in _shape(route.path)[0] and all(
        type(convertor) is StringConvertor for convertor in route.param_convertors.values()
    )


def _shape(path: str) -> tuple[str, int]:
    """Its first word, and how many parts it has."""
    return path[1:].partition("/")[0], path.count("/")
