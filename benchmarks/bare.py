"""What everything is compared with: reads its body, answers 200, and keeps nothing. `python -m benchmarks.bare PORT`."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def take(request: Request) -> PlainTextResponse:
    await request.body()
    return PlainTextResponse("ok\n")


app = Starlette(routes=[Route("/", take, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
    )
