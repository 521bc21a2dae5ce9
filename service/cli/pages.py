"""Lists that come page by page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from service.cli.numbers import Whole
from service.cli.session import Session
from service.cli.text import Column, table


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list."""

    limit: Annotated[Whole | None, Parameter(help="How many at most; with --all, per request.")] = None
    cursor: Annotated[str | None, Parameter(help="Go on after this page.")] = None
    all: Annotated[bool, Parameter(help="Every page.")] = False


ONE: Final = Page()
EVERY: Final = Page(all=True)


def print_list(
    session: Session,
    resource: str,
    filters: Iterable[tuple[str, str | None]],
    page: Page,
    columns: Sequence[Column],
    *,
    json: bool,
) -> None:
    query = [*filters, ("limit", page.limit), ("cursor", page.cursor)]
    pages = session.api.pages(resource, query=query)
    got = list(pages) if page.all else [next(pages)]
    items = [item for part in got for item in part["items"]]
    following = got[-1].get("next_cursor")
    if json:
        session.say_json({"items": items, "next_cursor": following})
        return
    if items:
        session.say(table(columns, items))
    else:
        session.note("There are none.")
    if following:
        session.note(f"More: --cursor {following}, or --all")
