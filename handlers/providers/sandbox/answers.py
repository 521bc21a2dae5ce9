"""The two error shapes and the envelope that a client of Kling behind a gateway meets.

Source: Kling, answers to creates and queries, and "Error Codes".
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final
from uuid import uuid4

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


class Code(IntEnum):
    OK = 0
    AUTHORIZATION_EMPTY = 1001
    AUTHORIZATION_INVALID = 1002
    IN_ARREARS = 1101
    INVALID_PARAMETERS = 1200
    BAD_VALUE = 1201
    METHOD_NOT_ALLOWED = 1202
    NO_SUCH_RESOURCE = 1203
    TOO_FAST = 1302
    TOO_MANY_TASKS = 1303
    INTERNAL = 5000
    MAINTENANCE = 5001


HTTP_STATUS: Final[Mapping[Code, int]] = {
    Code.OK: 200,
    Code.AUTHORIZATION_EMPTY: 401,
    Code.AUTHORIZATION_INVALID: 401,
    Code.IN_ARREARS: 429,
    Code.INVALID_PARAMETERS: 400,
    Code.BAD_VALUE: 400,
    Code.METHOD_NOT_ALLOWED: 404,
    Code.NO_SUCH_RESOURCE: 404,
    Code.TOO_FAST: 429,
    Code.TOO_MANY_TASKS: 429,
    Code.INTERNAL: 500,
    Code.MAINTENANCE: 503,
}


class RequestError(Exception):
    """A request turned down with one of Kling's codes."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Envelope(JSONResponse):
    """`{code, message, request_id, data?}`."""

    def __init__(
        self, code: Code = Code.OK, message: str = "SUCCEED", *, data: object = None, named: bool = True
    ) -> None:
        self.code = code
        body: dict[str, object] = {"code": int(code), "message": message}
        if named:
            body["request_id"] = str(uuid4())
        if data is not None:
            body["data"] = data
        super().__init__(body, status_code=HTTP_STATUS[code])


def gateway_error(status: int, message: str) -> Response:
    """CometAPI's own error object, which carries no Kling code."""
    return JSONResponse(
        {
            "error": {
                "message": f"{message} (request id: {uuid4().hex})",
                "type": "comet_api_error",
                "param": "",
                "code": "",
            }
        },
        status_code=status,
    )


class Cut(Response):
    """Closes the connection with no byte answered.

    ASGI has no word for that. Servers (uvicorn 0.54, both of its protocols) count the answer as begun, then refuse
    a header whose name holds a space before anything is written, and close an answer that was begun and not ended.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"cut here", b"")]})
        except Exception:  # noqa: BLE001  each server has its own type for this refusal
            return
        raise ConnectionAbortedError("cut after accepting")
