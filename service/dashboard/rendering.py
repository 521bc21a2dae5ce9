"""Pages out of templates. Everything is escaped that is not made here, or in a template."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service.dashboard.sessions import Session
from service.dashboard.state import State
from service.domain.costs import plain
from service.domain.events import EventType
from service.domain.prompts import prompt_of
from service.domain.task_types import SHOWN
from service.domain.times import rfc3339
from storage.keys import ApiKey, KeyRole

LONGEST_TEXT: Final = 64 * 1024  # of somebody else's, shown in a page
MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# Nothing from other hosts, and nothing written into a page runs: also not what somebody has put into a prompt.
CONTENT_SECURITY_POLICY: Final = "; ".join(  # noqa: FLY002 - one to a line
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
GUARDS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
PRIVATE: Final = "private, no-store"


@cache
def static_files() -> Mapping[str, bytes]:
    folder = files("service.dashboard") / "static"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if any(file.name.endswith(suffix) for suffix in MEDIA_TYPES)
    }


@cache
def version() -> str:
    """A part of each static file's path, which is another one when any of them is."""
    digest = hashlib.sha256()
    for name, content in sorted(static_files().items()):
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def static_path(name: str) -> str:
    assert name in static_files(), name
    return f"/static/{version()}/{name}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prompt": prompt_of,
        "time": show_time,
        "span": show_span,
        "pretty": pretty,
        "milliseconds": show_milliseconds,
        "short": shortened,
        "rfc3339": rfc3339,
        "plain": plain,
        "json": lambda value: to_json(value).decode(),
    }
    environment.globals |= {
        "static": static_path,
        "event_types": [*EventType, "stream.dropped"],
        "shown_type": SHOWN.name,
    }
    return environment


def render(
    request: Request[State],
    template: str,
    *,
    session: Session,
    key: ApiKey | None,
    status: int = 200,
    **context: object,
) -> Response:
    """
    Args:
        key: of who is signed in.
    """
    state = request.state
    text = (
        _environment()
        .get_template(template)
        .render(
            key=key,
            is_admin=key is not None and key.role is KeyRole.ADMIN,
            form_token=state["sessions"].form_token(session),
            now=state["clock"](),
            path=request.url.path,
            base_url=state["settings"].reachable_url,
            **context,
        )
    )
    return HTMLResponse(text, status_code=status)


def guarded(response: Response) -> Response:
    response.headers.update(GUARDS)
    response.headers.setdefault("cache-control", PRIVATE)
    return response


def show_time(moment: datetime | None, now: datetime | None = None) -> Markup:
    """With its exact moment as title; how long ago it was where `now` is given."""
    if moment is None:
        return Markup("—")
    exact = rfc3339(moment)
    shown = moment.strftime("%Y-%m-%d %H:%M:%S UTC") if now is None else ago(moment, now)
    live = Markup("") if now is None else Markup(" data-ago")
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(exact, exact, live, shown)


def ago(moment: datetime, now: datetime) -> str:
    span = now - moment
    if span < timedelta(0):
        return f"in {show_span(-span)}"
    return "just now" if span < timedelta(seconds=5) else f"{show_span(span)} ago"


def show_span(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, above in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < above:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def show_milliseconds(number: float | None) -> str:
    if number is None:
        return "—"
    return f"{number:.0f} ms" if number < 1000 else show_span(timedelta(milliseconds=number))


def pretty(body: object) -> str:
    """JSON with indents where it is JSON; never more than a page can bear."""
    if isinstance(body, bytes | str):
        text = body.decode(errors="replace") if isinstance(body, bytes) else body
        with suppress(ValueError):  # then it is shown as it is
            text = to_json(from_json(text), indent=2).decode() if len(text) <= LONGEST_TEXT else text
    else:
        text = to_json(body, indent=2).decode()
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def shortened(text: str, longest: int = 80) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
