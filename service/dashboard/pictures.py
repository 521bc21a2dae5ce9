"""Where a page finds a task's outputs: our own copies, at the address by which the person has come."""

from dataclasses import dataclass

from service.dashboard.state import State
from service.domain.tasks import Output, OutputKind, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An output on a page. Without a copy of ours there is a link to the provider's only: pages load nothing from others."""

    kind: OutputKind
    index: int
    url: str | None  # our copy
    preview: str | None  # a small picture of it
    provider_url: str
    output: Output


def shown(state: State, task: Task) -> list[Shown]:
    base = state["settings"].reachable_url
    return [
        Shown(
            kind=linked.kind,
            index=linked.index,
            url=_here(linked.stored_url, base),
            preview=_here(linked.thumbnail_url or linked.poster_url, base),
            provider_url=linked.url,
            output=linked,
        )
        for linked in state["links"].shown(task).outputs
    ]


def _here(url: str | None, base: str) -> str | None:
    return None if url is None else url.removeprefix(base)
