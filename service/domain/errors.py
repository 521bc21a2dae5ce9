"""Every error that Klingel raises on purpose. Knows no HTTP; `service.doors.statuses` gives each its status.

KlingelError
├── InvalidRequest            the request cannot be read at all
├── Unauthenticated           no key, or none that we know
├── Forbidden                 a key that may not do this
├── NotFound                  not there, or somebody else's
├── Conflict                  contradicts what is stored
│   ├── ExternalTaskIdTaken
│   ├── EndpointDisabled
│   ├── TooManyEndpoints
│   ├── TooManyBots
│   ├── ChangedMeanwhile
│   └── TaskNotRefreshable
├── TooLarge                  a body over its limit
├── Unprocessable             readable, but with faults; lists them all
│   ├── IdempotencyKeyReused
│   └── SearchTooWide
├── TooManyFailures           this address guesses; wait
├── TooManyRequests           this account asks for more than its share; wait
│   └── TooManyStreams
├── BudgetExceeded            the account has spent what it may
├── ProviderRefused           the provider refused the create for good
│   ├── PaymentRequired
│   └── ProviderMisconfigured
└── Unavailable               try again later
    ├── Busy
    ├── StorageUnavailable
    └── ProviderUnavailable
ConfigurationError            the operator must mend a setting or a file; ends the process
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: what, and where as an RFC 6901 pointer in URI fragment form."""

    detail: str
    pointer: str


class KlingelError(Exception):
    """Base of every error that this service raises on purpose."""

    code: ClassVar[str] = "error"  # public and stable: never derived from the class name

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class InvalidRequest(KlingelError):
    code = "invalid-request"


class Unauthenticated(KlingelError):
    code = "unauthenticated"


class Forbidden(KlingelError):
    code = "forbidden"


class NotFound(KlingelError):
    code = "not-found"


class Conflict(KlingelError):
    code = "conflict"


class ExternalTaskIdTaken(Conflict):
    code = "external-task-id-taken"


class EndpointDisabled(Conflict):
    code = "endpoint-disabled"


class TooManyEndpoints(Conflict):
    """Carries `limit`."""

    code = "too-many-endpoints"


class TooManyBots(Conflict):
    """Carries `limit`."""

    code = "too-many-bots"


class ChangedMeanwhile(Conflict):
    code = "changed-meanwhile"


class TaskNotRefreshable(Conflict):
    code = "task-not-refreshable"


class TooLarge(KlingelError):
    code = "too-large"


class Unprocessable(KlingelError):
    """Carries every fault found, not the first."""

    code = "invalid-body"

    def __init__(self, detail: str, *, faults: Sequence[Fault] = (), **members: object) -> None:
        super().__init__(detail, **members)
        self.faults = tuple(faults)


class IdempotencyKeyReused(Unprocessable):
    code = "idempotency-key-reused"


class SearchTooWide(Unprocessable):
    code = "search-too-wide"


class TooManyFailures(KlingelError):
    """Carries `retry_after_s`."""

    code = "too-many-failures"


class TooManyRequests(KlingelError):
    """Carries `retry_after_s`."""

    code = "too-many-requests"


class TooManyStreams(TooManyRequests):
    """Carries `limit` too."""

    code = "too-many-streams"


class BudgetExceeded(KlingelError):
    """Carries `budgets`, those with nothing left."""

    code = "budget-exceeded"


class ProviderRefused(KlingelError):
    code = "provider-refused"


class PaymentRequired(ProviderRefused):
    code = "provider-payment-required"


class ProviderMisconfigured(ProviderRefused):
    code = "provider-misconfigured"


class Unavailable(KlingelError):
    code = "unavailable"


class Busy(Unavailable):
    code = "busy"


class StorageUnavailable(Unavailable):
    code = "storage-unavailable"


class ProviderUnavailable(Unavailable):
    code = "provider-unavailable"


class ConfigurationError(Exception):
    """The operator must mend something before Klingel can run; the message says what and how."""
