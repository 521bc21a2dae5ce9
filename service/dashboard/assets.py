"""Static files, for ever at a path that changes with them, and the worker that shows notifications."""

import hashlib
from functools import cache
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.rendering import GUARDS, MEDIA_TYPES, static_files, version
from service.dashboard.state import State

_FOR_EVER = "public, max-age=31536000, immutable"


@cache
def _entity_tag(name: str) -> str:
    return f'"{hashlib.sha256(static_files()[name]).hexdigest()[:32]}"'


async def static(request: Request[State]) -> Response:
    """Of a former version there is nothing: what is cached under its path stays what it was."""
    name = request.path_params["name"]
    if name not in static_files() or request.path_params["version"] != version():
        return Response(
            "There is no such file.\n", status_code=404, media_type="text/plain", headers=dict(GUARDS)
        )
    return _answer(request, name, cache=_FOR_EVER)


async def worker(request: Request[State]) -> Response:
    """At the root, so that it may stand for the whole of Klingel; looked for anew, as it has no version in its path."""
    return _answer(request, "service-worker.js", cache="no-cache")


async def icon(request: Request[State]) -> Response:
    """Where browsers look for it unasked."""
    return _answer(request, "icon.svg", cache="public, max-age=86400")


def _answer(request: Request[State], name: str, *, cache: str) -> Response:
    tag = _entity_tag(name)
    headers = {**GUARDS, "etag": tag, "cache-control": cache}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(static_files()[name], headers=headers, media_type=MEDIA_TYPES[PurePosixPath(name).suffix])
