"""`service.doors.routing`: the short way to a door leads to the same door."""

import asyncio
import re
import threading
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount, Route, Router
from starlette.types import ASGIApp, Message, Scope

from service.app import CONFIGS, ROUTES
from service.dashboard.routes import routes as dashboard_routes
from service.doors.routing import Doors

EVERY = [route for route in (*ROUTES, *dashboard_routes(CONFIGS)) if isinstance(route, Route)]
NUMBER_OF_ROUTES = sum(isinstance(route, Route) for route in ROUTES)


def told(name: str) -> Any:
    async def answer(request: Request) -> Response:
        return PlainTextResponse(f"{name} {request.path_params}")

    return answer


def as_named(routes: list[Route]) -> list[Route]:
    """The same paths and methods; each answers with what it is, and with what it found in the path."""
    return [
        Route(route.path, told(f"{number} {route.path}"), methods=sorted(route.methods or ()))
        for number, route in enumerate(routes)
    ]


def sample(path: str) -> str:
    """A path that the route takes."""
    return re.sub(r"\{[^}]+\}", "some-1", path)


PATHS = sorted({sample(route.path) for route in EVERY})


async def ask(app: ASGIApp, method: str, path: str) -> tuple[int, str]:
    told: list[Message] = []

    async def send(message: Message) -> None:
        told.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "headers": [],
        "query_string": b"",
    }
    await app(scope, receive, send)
    return told[0]["status"], b"".join(message.get("body", b"") for message in told).decode()


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "HEAD"])
async def test_each_path_leads_where_starlette_leads_it(method: str) -> None:
    """Also where it leads nowhere, or only by another method."""
    usual, short = Router(as_named(EVERY), redirect_slashes=False), Doors(as_named(EVERY))
    for path in [
        *PATHS,
        *(f"{path}/" for path in PATHS),
        "/nothing",
        "/v1",
        "/v1/tasks/a/b/c/d/e/f",
        "/a//b",
    ]:
        assert await ask(short, method, path) == await ask(usual, method, path), path


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_doors_that_are_loaded_later_are_the_same_doors(method: str) -> None:
    programs, people = as_named(EVERY)[:NUMBER_OF_ROUTES], as_named(EVERY)[NUMBER_OF_ROUTES:]
    usual = Router([*programs, *people], redirect_slashes=False)
    for path in [*PATHS, "/nothing", "/v1", "/a//b"]:
        short = Doors(programs, load_others=lambda: people)
        assert await ask(short, method, path) == await ask(usual, method, path), path


async def test_others_are_loaded_once_for_whom_none_of_the_first_takes() -> None:
    loaded = []

    def others() -> list[Route]:
        loaded.append(threading.current_thread())
        return [Route("/b", told("b"))]

    inner = Router([Route("/{rest}", told("inner"))])
    doors = Doors([Route("/a", told("a")), Mount("/sandbox", app=inner)], load_others=others)
    assert [await ask(doors, "GET", path) for path in ("/a", "/sandbox/x")] == [
        (200, "a {}"),
        (200, "inner {'rest': 'x'}"),
    ]
    assert loaded == []
    found = await asyncio.gather(*(ask(doors, "GET", path) for path in ("/b", "/c", "/b")))
    assert [status for status, _ in found] == [200, 404, 200]
    [thread] = loaded
    assert thread is not threading.current_thread()


async def test_only_routes_that_begin_as_the_path_does_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that there are."""
    asked: list[str] = []
    matches = Route.matches

    def noted(self: Route, scope: Scope) -> tuple[Match, Scope]:
        asked.append(self.path)
        return matches(self, scope)

    doors = Doors(as_named(EVERY))
    monkeypatch.setattr(Route, "matches", noted)
    assert (await ask(doors, "POST", "/callbacks/kling/task_1/token"))[0] == 200
    assert (await ask(doors, "GET", "/kling/v1/videos/multi-image2video/task_1"))[0] == 200
    assert len(asked) <= 4
    assert all(path.startswith(("/callbacks", "/kling/v1/videos/multi-image2video")) for path in asked)


async def test_what_is_mounted_is_found_as_well() -> None:
    inner = Router([Route("/{rest}", told("inner"))])
    doors = Doors([Route("/a/{id}", told("a")), Mount("/sandbox", app=inner)])
    assert await ask(doors, "GET", "/sandbox/x") == (200, "inner {'rest': 'x'}")
    assert await ask(doors, "GET", "/a/1") == (200, "a {'id': '1'}")


async def test_a_path_of_nothing_but_slashes_leads_nowhere() -> None:
    assert (await ask(Doors(as_named(EVERY)), "GET", "/a" + "/" * 30_000))[0] == 404
