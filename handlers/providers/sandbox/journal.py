"""What the stand-in saw and did, so that a test can prove what was never asked of it."""

from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from handlers.providers.sandbox.tasks import Clock

KEPT: Final = 20_000


class CallKind(StrEnum):
    CREATE = "create"
    QUERY = "query"
    LIST = "list"
    FILE = "file"


@dataclass(slots=True, kw_only=True)
class Call:
    """One request received. `status` stays None until it is answered, and for good when the connection was cut."""

    at: str
    method: str
    path: str
    kind: CallKind
    task_id: str | None = None
    external_task_id: str | None = None
    status: int | None = None
    code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackAttempt:
    """`url` is the origin alone: the path may be a secret, so only its SHA-256's first 16 hex digits are kept."""

    at: str
    task_id: str
    external_task_id: str | None
    url: str
    url_path_hash: str
    status_word: str
    http_status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """One task accepted, and so billed."""

    at: str
    task_id: str
    external_task_id: str | None


class Journal:
    """The newest `KEPT` of each kind of entry."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: deque[Call] = deque(maxlen=KEPT)
        self._callbacks: deque[CallbackAttempt] = deque(maxlen=KEPT)
        self._created: deque[Creation] = deque(maxlen=KEPT)

    def received(self, method: str, path: str, kind: CallKind) -> Call:
        call = Call(at=_text(self._clock()), method=method, path=path, kind=kind)
        self._calls.append(call)
        return call

    def accepted(self, *, task_id: str, external_task_id: str | None) -> None:
        self._created.append(
            Creation(at=_text(self._clock()), task_id=task_id, external_task_id=external_task_id)
        )

    def attempted(
        self,
        *,
        task_id: str,
        external_task_id: str | None,
        url: str,
        status_word: str,
        http_status: int | None = None,
        error: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._callbacks.append(
            CallbackAttempt(
                at=_text(self._clock()),
                task_id=task_id,
                external_task_id=external_task_id,
                url=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                url_path_hash=sha256(parts.path.encode()).hexdigest()[:16],
                status_word=status_word,
                http_status=http_status,
                error=error,
            )
        )

    def shown(self) -> dict[str, object]:
        return {
            "calls": [asdict(call) for call in self._calls],
            "callbacks": [asdict(attempt) for attempt in self._callbacks],
            "created": [asdict(creation) for creation in self._created],
        }

    def clear(self) -> None:
        self._calls.clear()
        self._callbacks.clear()
        self._created.clear()


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
