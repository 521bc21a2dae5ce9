"""The accounts that Klingel has at providers, by name, and which of them a task goes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from service.domain.errors import Fault
from service.domain.faults import InvalidFields
from service.domain.task_types import Layout, TaskType
from service.domain.tasks import OutputKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAccount:
    """
    Args:
        types: names of task types, or patterns of them, that go there; with none, all that it sells may.
        slots: how many parallel places of each kind are taken at most; of others, as many as the provider gives.
    """

    name: str
    layout: Layout
    types: Sequence[str] = ()
    slots: Mapping[OutputKind, int] = field(default_factory=dict)

    def sells(self, type: TaskType) -> bool:
        return type.sold_at(self.layout) and (not self.types or self.names(type))

    def names(self, type: TaskType) -> bool:
        """Whether it is meant for this type, not only good for it."""
        return any(fnmatchcase(type.name, pattern) for pattern in self.types)


class ProviderAccounts:
    """
    Args:
        accounts: in the order in which they are asked for what only some of them sell.
        default: the name of the one that takes what no other is meant for.
    """

    def __init__(self, accounts: Sequence[ProviderAccount], *, default: str) -> None:
        self._by_name = {account.name: account for account in accounts}
        self.default = default

    @property
    def names(self) -> Sequence[str]:
        return list(self._by_name)

    def get(self, name: str) -> ProviderAccount | None:
        return self._by_name.get(name)

    def named(self, name: str, *, pointer: str = "#") -> ProviderAccount:
        """
        Args:
            pointer: of the body in which `provider` stands.

        Raises:
            InvalidFields: there is none such.
        """
        if (account := self._by_name.get(name)) is None:
            detail = f"There is no provider {name!r}. There are: {', '.join(self._by_name)}."
            raise InvalidFields([Fault(detail, f"{pointer}/provider")])
        return account

    def choose(self, type: TaskType, wanted: str | None, *, pointer: str = "#") -> str:
        """The one that is asked for; else the first that is meant for the type, else the default, else any.

        Args:
            pointer: of the body in which `type` and `provider` stand.

        Raises:
            InvalidFields: there is none such, or none that sells this type.
        """
        if wanted is not None:
            if not self.named(wanted, pointer=pointer).sells(type):
                raise InvalidFields([Fault(f"{wanted} does not take {type.name}.", f"{pointer}/provider")])
            return wanted
        meant = [account for account in self._by_name.values() if account.names(type)]
        for account in (*meant, self._by_name[self.default], *self._by_name.values()):
            if account.sells(type):
                return account.name
        told = f"None of the providers here ({', '.join(self._by_name)}) takes {type.name}."
        raise InvalidFields([Fault(told, f"{pointer}/type")])
