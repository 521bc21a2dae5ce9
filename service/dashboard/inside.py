"""The dashboard acts as programs do: what a form asks for goes to the API's own routes, with the key that is signed in.

So it is checked, limited and answered as theirs, and nothing can be done here that the API would refuse.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import Message

from service.dashboard.state import State
from service.domain.errors import Fault, KlingelError, StorageUnavailable
from service.doors.recognition import SIGNED_IN
from storage.keys import ApiKey


@dataclass(frozen=True, slots=True)
class Answer:
    """The API's, read."""

    status: int
    content: Any

    @property
    def is_good(self) -> bool:
        return self.status < 400

    def tells(self, error: type[KlingelError]) -> bool:
        """Whether it is this problem."""
        return bool(self.content["type"] == f"/problems/{error.code}")

    @property
    def is_uncertain(self) -> bool:
        """Of a problem: it may have been done even so. Whatever else is unavailable is so before anything is stored."""
        return self.tells(StorageUnavailable)

    @property
    def detail(self) -> str:
        """Of a problem."""
        return str(self.content["detail"])

    @property
    def faults(self) -> Sequence[Fault]:
        return [Fault(each["detail"], each["pointer"]) for each in self.content.get("errors", ())]


def scope_of(
    request: Request[State],
    key: ApiKey,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    query: str = "",
) -> MutableMapping[str, Any]:
    """Of a request to the API, by the same client."""
    named = {"accept": "application/json", **(headers or {})}
    kept = {
        name: request.scope[name]
        for name in request.scope
        if name not in {"path_params", "endpoint", "router"}
    }
    return {
        **kept,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        SIGNED_IN: key,
    }


async def ask(
    request: Request[State],
    key: ApiKey,
    method: str,
    path: str,
    *,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """
    Args:
        body: becomes JSON.
    """
    content = b"" if body is None else to_json(body)
    sized = {**(headers or {}), "content-type": "application/json", "content-length": str(len(content))}
    scope = scope_of(request, key, method, path, headers=sized)
    unsent = [content]
    del content
    status = 0
    parts: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": unsent.pop(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    # What a route raises becomes an answer as it does outside; what nobody expects goes on to who answers us.
    handlers = {
        kind: handle for kind, handle in request.app.exception_handlers.items() if kind is not Exception
    }
    await ExceptionMiddleware(request.app.router, handlers=handlers)(scope, receive, send)
    answered = b"".join(parts)
    return Answer(status, from_json(answered) if answered else None)
