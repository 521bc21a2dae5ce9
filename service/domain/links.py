"""Links to kept files: signed and with an end, so that whoever is shown a task can open what it made."""

from datetime import UTC, datetime, timedelta
from typing import Final

from service.domain.secrets import FileSignatures
from service.domain.tasks import Output, Task
from service.domain.times import Clock
from service.domain.values import replace

LINK_LIFE: Final = timedelta(days=30)


class Links:
    """
    Args:
        base_url: where Klingel is reached from outside.
    """

    def __init__(self, signatures: FileSignatures, *, base_url: str, clock: Clock) -> None:
        self._signatures = signatures
        self._base_url = base_url
        self._clock = clock

    def shown(self, task: Task) -> Task:
        """The task as its readers get it: each reference to a file is a link that opens without a key."""
        if not any(output.stored_url or output.poster_url or output.thumbnail_url for output in task.outputs):
            return task
        ends = self._ends()
        return replace(task, outputs=tuple(self._linked(output, ends) for output in task.outputs))

    def _linked(self, output: Output, ends: int) -> Output:
        return replace(
            output,
            stored_url=self._link(output.stored_url, ends),
            poster_url=self._link(output.poster_url, ends),
            thumbnail_url=self._link(output.thumbnail_url, ends),
        )

    def _link(self, reference: str | None, ends: int) -> str | None:
        if reference is None:
            return None
        signature = self._signatures.sign(reference.rpartition("/")[2], str(ends))
        return f"{self._base_url}{reference}?expires={ends}&signature={signature}"

    def _ends(self) -> int:
        """The same all day, so that whoever reads a task twice gets the same link, and has its file cached."""
        day = self._clock().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return int((day + timedelta(days=1) + LINK_LIFE).timestamp())

    def is_good(self, name: str, *, expires: str, signature: str) -> bool:
        """Whether this link, as it was asked for, is one of ours, and has not ended."""
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        ends = datetime.fromtimestamp(int(expires), UTC) if int(expires) < 253_402_300_800 else None
        genuine = self._signatures.verify(signature, name, str(int(expires)))
        return genuine and ends is not None and self._clock() < ends
