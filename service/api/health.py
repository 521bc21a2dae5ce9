"""Liveness, readiness, metrics: for machines that look after this one. They have no key, so they cost little."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.state import Part, State
from service.settings import Role


async def healthz(request: Request[State]) -> Response:
    return JSONResponse({"status": "alive"})


async def readyz(request: Request[State]) -> Response:
    """200 when this process can do its work; 503 names what it cannot. Why it cannot is in its log."""
    state = request.state
    parts: dict[str, Part] = {"batcher": state["batcher"]}
    if Role.DISPATCH in state["settings"].roles:
        parts |= state["dispatching"]
    checks = {name: "ok" if part.alive else "stopped" for name, part in parts.items()}
    checks["storage"] = "ok" if await state["vitals"].storage_works() else "failing"
    ready = all(check == "ok" for check in checks.values())
    return JSONResponse(
        {"status": "ready" if ready else "not ready", "checks": checks}, status_code=200 if ready else 503
    )


async def metrics(request: Request[State]) -> Response:
    state = request.state
    counts = await state["vitals"].counts()
    body = state["metrics"].render(
        tasks=counts.tasks, oldest_due=counts.oldest_due, dead=counts.dead, now=state["clock"]()
    )
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
