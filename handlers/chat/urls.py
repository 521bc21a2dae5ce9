"""Checks of the URLs that bots and endpoints are configured with: of a platform's server, and of its incoming webhooks."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from yarl import URL

from service.domain.errors import Fault
from service.network.dialler import Dialler, Refused

WebUrl = Annotated[str, Field(max_length=2048)]


def plain_url_faults(dialler: Dialler, url: str, *, pointer: str) -> list[Fault]:
    """Of a URL that may have a path, but no query."""
    try:
        checked = dialler.check(url)
    except Refused as error:
        return [Fault(f"The URL cannot be used: {error}.", pointer)]
    if checked.raw_query_string or checked.raw_fragment:
        return [Fault("It has no query and no fragment.", pointer)]
    return []


def server_faults(dialler: Dialler, server: str, *, pointer: str) -> list[Fault]:
    """Of a server's URL that has no path of its own."""
    try:
        url = dialler.check(server)
    except Refused as error:
        return [Fault(f"The URL cannot be used: {error}.", pointer)]
    if url.raw_query_string or url.raw_fragment or url.raw_path != "/":
        return [Fault("Give the server's address alone.", pointer)]
    return []


def webhook_faults(
    dialler: Dialler,
    url: str,
    *,
    servers: Sequence[str],
    path: str,
    parameter: str | None = None,
    pointer: str,
) -> list[Fault]:
    """
    Args:
        servers: the webhook must be at one of these; none where that cannot be said.
        path: what the path of every such webhook begins with.
        parameter: of the query, which tells this webhook from the others; None where the rest of the path does.
    """
    try:
        given = dialler.check(url)
    except Refused as error:
        return [Fault(f"The URL cannot be used: {error}.", pointer)]
    if servers and given.origin() not in [URL(server).origin() for server in servers]:
        return [Fault(f"It must be at {' or '.join(servers)}; another server goes into `server`.", pointer)]
    name = given.query.get(parameter) if parameter is not None else given.path.removeprefix(path)
    if not given.path.startswith(path) or not name or given.raw_fragment:
        shown = path if parameter is None else f"{path}?{parameter}="
        return [Fault(f"Give the webhook's whole address: it has {shown} in it.", pointer)]
    return []
