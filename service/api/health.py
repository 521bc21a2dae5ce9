"""Liveness, readiness, metrics: for machines that look after this one."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.state import State
from service.domain.errors import KlingelError
from storage import deliveries, tasks


async def healthz(request: Request[State]) -> Response:
    return JSONResponse({"status": "alive"})


async def readyz(request: Request[State]) -> Response:
    """200 when this process can do its work; 503 names what it cannot."""
    state = request.state
    parts = {
        "deliverer": state["deliverer"],
        "submitter": None if state["deliverer"] is None else state["submitter"],
        "deadlines": state["deadlines"],
        "commands": None if state["deliverer"] is None else state["bot_desk"],
        "expiry": state["expiry"],
        "retention": state["retention"],
    }
    checks = {name: "ok" if part.alive else "stopped" for name, part in parts.items() if part is not None}
    checks["batcher"] = "ok" if state["batcher"].alive else "stopped"
    try:
        await state["database"].check()
        checks["storage"] = "ok"
    except KlingelError as error:
        checks["storage"] = error.detail
    ready = all(check == "ok" for check in checks.values())
    return JSONResponse(
        {"status": "ready" if ready else "not ready", "checks": checks}, status_code=200 if ready else 503
    )


async def metrics(request: Request[State]) -> Response:
    state = request.state
    now = state["clock"]()
    async with state["database"].reading() as reader:
        body = state["metrics"].render(
            tasks=await tasks.count_by_status(reader),
            oldest_due=await deliveries.oldest_due(reader, now=now),
            dead=await deliveries.count_dead(reader),
            now=now,
        )
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
