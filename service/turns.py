"""Whose turn it is, where accounts take turns: who was served longest ago comes first."""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import count
from typing import Final

from service.domain.ids import AccountId

REMEMBERED: Final = 1024  # accounts; one that is forgotten comes first, as after a start


class Served:
    """When each account was served last, as a number that grows."""

    def __init__(self) -> None:
        self._moments = count(1)
        self._last: OrderedDict[AccountId, int] = OrderedDict()

    @property
    def last(self) -> Mapping[AccountId, int]:
        return self._last

    def note(self, account_id: AccountId) -> None:
        self._last[account_id] = next(self._moments)
        self._last.move_to_end(account_id)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
