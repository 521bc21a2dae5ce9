"""The guarded way in: the HTTP server, and how it stops."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from starlette.types import ASGIApp

DRAIN_S: Final = 10  # for requests on their way when Klingel stops


class Server(uvicorn.Server):
    """Ends live streams before it waits for open requests: a stream would never end by itself."""

    def __init__(
        self, config: uvicorn.Config, *, on_stopping: Callable[[], None], on_listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_stopping = on_stopping
        self._on_listening = on_listening

    async def startup(self, sockets: "list[socket.socket] | None" = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            self._on_listening()

    async def shutdown(self, sockets: "list[socket.socket] | None" = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)


def run_server(
    app: ASGIApp, *, host: str, port: int, on_stopping: Callable[[], None], on_listening: Callable[[], None]
) -> bool:
    """Serves until SIGINT or SIGTERM. Gives whether it ever got ready."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # its lines carry callback tokens; ours do not
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=75,
        ws="none",
        lifespan="on",
    )
    server = Server(config, on_stopping=on_stopping, on_listening=on_listening)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve())
    return server.started
