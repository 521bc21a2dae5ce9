"""The `Authorization` value: a plain key, or a token signed with an access key and its secret."""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog

from service.domain.errors import ConfigurationError
from service.domain.times import Clock

# Kling "Authentication" (2026): `exp` and `nbf` as its sample has them, and no `iat`.
LIFETIME: Final = timedelta(minutes=30)
BACKDATED: Final = timedelta(seconds=5)

LEAST_CORRECTION: Final = timedelta(seconds=2)  # an answer's date is in whole seconds, and it was on its way

log = structlog.get_logger()


class Authorization(Protocol):
    def __call__(self) -> str:
        """The header's value, for one request."""

    def correct(self, theirs: datetime, refused: str) -> bool:
        """A value was refused for its token's times, by whose clock it is `theirs`. Whether one made now has others: who was
        refused at the same time may have told us already.
        """


@dataclass(frozen=True, slots=True)
class PlainAuthorization:
    key: str = field(repr=False)

    def __call__(self) -> str:
        return f"Bearer {self.key}"

    def correct(self, theirs: datetime, refused: str) -> bool:  # noqa: ARG002 - a plain key knows no time
        return False


@dataclass(slots=True, kw_only=True)
class SignedAuthorization:
    """Makes a new token for every request, so none is ever near its end. Its times are ours until the provider, whose
    clock decides, has refused one for them: then they are the provider's.

    Source: RFC 7515 section 3.1 and RFC 7518 section 3.2; ten lines of `hmac` against a dependency whose risks lie
    in verifying, which is not done here.
    """

    access_key: str
    secret_key: str = field(repr=False)
    clock: Clock
    _ahead: timedelta = field(default=timedelta(), init=False)  # their clock of ours

    def correct(self, theirs: datetime, refused: str) -> bool:
        self._ahead = theirs - self.clock()
        log.warning("provider.clock_differs", ahead_s=round(self._ahead.total_seconds(), 1))
        return abs(theirs - _made_at(refused)) >= LEAST_CORRECTION

    def __call__(self) -> str:
        now = self.clock() + self._ahead
        claims: dict[str, str | int] = {
            "iss": self.access_key,
            "exp": int((now + LIFETIME).timestamp()),
            "nbf": int((now - BACKDATED).timestamp()),
        }
        signed = f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(claims)}"
        signature = hmac.digest(self.secret_key.encode(), signed.encode(), "sha256")
        return f"Bearer {signed}.{_base64url(signature)}"


def _made_at(authorization: str) -> datetime:
    """By the clock that the token went by."""
    claims = authorization.split(".")[1]
    padded = claims + "=" * (-len(claims) % 4)
    return datetime.fromtimestamp(json.loads(base64.urlsafe_b64decode(padded))["nbf"], UTC) + BACKDATED


def _segment(claims: Mapping[str, str | int]) -> str:
    return _base64url(json.dumps(claims, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def authorization_for(key: str, clock: Clock) -> Authorization:
    """
    Args:
        key: a plain API key, or `ACCESS:SECRET` of the official API.

    Raises:
        ConfigurationError: empty, half empty, or with characters that no header can carry.
    """
    access, colon, secret = key.strip().partition(":")
    if not access or (colon and not secret):
        raise ConfigurationError("KLINGEL_PROVIDER_KEY is an API key, or ACCESS:SECRET for the official API.")
    if not key.strip().isascii() or not key.strip().isprintable() or " " in key.strip():
        raise ConfigurationError("KLINGEL_PROVIDER_KEY holds a character that cannot be part of a key.")
    if colon:
        return SignedAuthorization(access_key=access, secret_key=secret, clock=clock)
    return PlainAuthorization(access)
