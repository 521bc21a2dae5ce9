"""Whether the database may hold something in this process's name that the process knows nothing of."""

from service.notices import Notices
from storage.database import Transaction


class Doubt:
    """A commit that was lost on its way may be stored all the same: tasks, deliveries or commands are then marked as in
    this process's hand, and nobody works on them.

    While the doubt is open, the next transaction that takes work in hand first gives back what is marked as this process's
    and is not.
    """

    def __init__(self, notices: Notices) -> None:
        self.is_open = False
        notices.on_gap(self.raise_)  # a server that lost us may be at a commit of ours for some time yet

    def raise_(self) -> None:
        self.is_open = True

    def settle(self, tx: Transaction) -> None:
        """The transaction gives back what was lost. If it is undone, the doubt is as open as before."""
        self.is_open = False
        tx.on_rollback(self.raise_)
