"""How fast what is old is forgotten, so that no callback waits for it."""

import math
from dataclasses import dataclass
from typing import Final

FEWEST: Final = 20  # rows of one kind in one commit,
MOST: Final = 500  # as many as are forgotten
SLICE_S: Final = 0.002  # longer than a commit takes anyway, for whoever writes meanwhile waits for it
# So many times as long as both took, the writer is theirs:
REST: Final = 20  # so that one callback of twenty meets a slice, hardly any of them a slow one,
SHORT_REST: Final = 4  # unless there is so much that a day would not do
UNHURRIED_S: Final = 1800  # for one kind of rows


@dataclass(slots=True)
class Pace:
    """How much is forgotten at a time, by how long that took before: a full disk cache is a hundred times faster."""

    rows: int = FEWEST
    quickest: float = math.inf  # slice so far, in seconds: a commit alone, on this disk or that server
    passed: float = 0  # seconds, with the rests

    def after(self, seconds: float) -> float:
        """For how many seconds to rest, now that a slice was on disk after so long.

        Whatever else is written goes with it, so whoever has much to write is left more time, and waits for less at a time.
        """
        self.quickest = min(self.quickest, seconds)
        if seconds - self.quickest > SLICE_S:
            self.rows = max(self.rows // 2, FEWEST)
        elif seconds - self.quickest < SLICE_S / 2:
            self.rows = min(self.rows * 2, MOST)
        rest = seconds * (REST if self.passed < UNHURRIED_S else SHORT_REST)
        self.passed += seconds + rest
        return rest
