"""Values: they never change, a changed one is another.

Those of which each callback makes several are structs of msgspec. With the 33 fields of a task one is made in a tenth,
and replaced in a fortieth, of what a frozen dataclass takes; nothing in them is checked when they are made, as there.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

if TYPE_CHECKING:  # whose names and types of what changes are checked
    from dataclasses import replace
else:

    def replace(value: Any, /, **changes: Any) -> Any:
        """The same value, but for these of its fields."""
        if isinstance(value, Struct):
            return structs.replace(value, **changes)
        return dataclasses.replace(value, **changes)


__all__ = ["Struct", "replace"]
