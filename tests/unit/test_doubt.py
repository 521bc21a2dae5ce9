"""`service.doubt`: work that may be marked as this process's is looked for until a transaction has given it back."""

from collections.abc import Callable

from service.domain.ids import ProcessId
from service.doubt import Doubt
from service.notices import Notices


class Undone:
    """A transaction that can be undone."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []

    def on_rollback(self, callback: Callable[[], None]) -> None:
        self.undo.append(callback)


def test_a_gap_in_what_was_heard_raises_a_doubt_that_a_commit_settles() -> None:
    notices = Notices(lambda: ProcessId("p"))
    doubt, tx = Doubt(notices), Undone()
    assert not doubt.is_open
    notices.doubt()
    assert doubt.is_open
    doubt.settle(tx)
    assert not doubt.is_open


def test_a_doubt_whose_transaction_is_undone_is_open_again() -> None:
    doubt, tx = Doubt(Notices(lambda: ProcessId("p"))), Undone()
    doubt.raise_()
    doubt.settle(tx)
    [undo] = tx.undo
    undo()
    assert doubt.is_open
