"""Trace contexts as W3C has them: how what others do before and after us is seen as one with what we do."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from service.domain.values import Struct

LONGEST_STATE: Final = 512  # characters of `tracestate`, which everybody must pass on (3.3.1.5)
_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NEWER: Final = re.compile(r"(?!00)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}-.*")
_KEY: Final = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(rf"{_KEY}={_VALUE}")
_MOST_MEMBERS: Final = 32


class Trace(Struct, frozen=True):
    """Whose child comes next.

    Args:
        parent: a valid `traceparent`.
        state: a valid `tracestate`.

    Source: W3C Trace Context, level 1, 3.2 and 3.3.
    """

    parent: str
    state: str | None = None

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.parent[3:35]

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return self.parent[36:52]

    @property
    def flags(self) -> int:
        return int(self.parent[53:55], 16)

    def headers(self) -> dict[str, str]:
        return {"traceparent": self.parent} | ({} if self.state is None else {"tracestate": self.state})


def read_trace(headers: Mapping[str, Sequence[str]]) -> Trace | None:
    """None where there is no context that could be gone on from; what cannot be read is as if it were not there.

    Args:
        headers: all values of `traceparent` and `tracestate`, in their order.
    """
    parents = headers.get("traceparent", ())
    if len(parents) != 1:
        return None
    parent = parents[0].strip(" \t")
    if _NEWER.fullmatch(parent):
        parent = parent[:55]  # of a later version, what this one knows of it (3.2.4)
    if not _PARENT.fullmatch(parent):
        return None
    return Trace(f"00{parent[2:]}", _read_state(headers.get("tracestate", ())))


def _read_state(states: Sequence[str]) -> str | None:
    members = [member for state in states for each in state.split(",") if (member := each.strip(" \t"))]
    text = ",".join(members)
    keys = [member.partition("=")[0] for member in members]
    is_valid = (
        0 < len(members) <= _MOST_MEMBERS
        and len(text) <= LONGEST_STATE
        and len(set(keys)) == len(keys)
        and all(_MEMBER.fullmatch(member) for member in members)
    )
    return text if is_valid else None
