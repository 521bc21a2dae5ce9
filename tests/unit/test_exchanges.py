import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from service.api.requests import Exchanges


class Known(Exception):
    pass


class Special(Known):
    pass


async def on_known(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"known: {error}", status_code=409)


async def on_unexpected(request: Request, error: Exception) -> Response:
    return PlainTextResponse("a mistake", status_code=500)


async def get(error: Exception, *, after: int = 0) -> httpx.Response:
    """What comes of an app that raises after so many messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun = [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"half", "more_body": True},
        ]
        for message in begun[:after]:
            await send(message)
        raise error

    exchanges = Exchanges(app, {Known: on_known, Exception: on_unexpected})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(exchanges), base_url="http://k") as client:
        return await client.get("/", headers={"x-request-id": "mine"})


async def test_what_is_raised_is_answered_by_the_closest_of_its_kinds_under_the_request_s_id() -> None:
    answer = await get(Special("so"))
    assert (answer.status_code, answer.text) == (409, "known: so")
    assert answer.headers["x-request-id"] == "mine"
    answer = await get(ZeroDivisionError())
    assert (answer.status_code, answer.text) == (500, "a mistake")
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("error", [Special("so"), ZeroDivisionError()])
@pytest.mark.parametrize("after", [1, 2])
async def test_an_answer_that_breaks_off_is_not_made_to_look_whole(error: Exception, after: int) -> None:
    with pytest.raises(type(error)):  # the server then cuts the connection
        await get(error, after=after)
