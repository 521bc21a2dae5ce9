"""Which HTTP status each error that Klingel raises on purpose is answered with, at the doors for programs and for people."""

from collections.abc import Mapping
from typing import Final

from service.domain import errors
from service.domain.errors import KlingelError

STATUS: Final[Mapping[type[KlingelError], int]] = {
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.BudgetExceeded: 402,
    errors.PaymentRequired: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.Unprocessable: 422,
    errors.ProviderRefused: 422,
    errors.TooManyFailures: 429,
    errors.TooManyRequests: 429,
    errors.ProviderMisconfigured: 502,
    errors.Unavailable: 503,
}


def status_of(error: KlingelError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
