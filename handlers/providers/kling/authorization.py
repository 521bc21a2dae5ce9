"""The `Authorization` value: a plain key, or a token signed with an access key and its secret."""

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from service.domain.errors import ConfigurationError
from service.domain.times import Clock

# Kling "Authentication" (2026): `exp` and `nbf` as its sample has them, and no `iat`.
LIFETIME: Final = timedelta(minutes=30)
BACKDATED: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAuthorization:
    """Makes a new token for every request, so none is ever near its end.

    Source: RFC 7515 section 3.1 and RFC 7518 section 3.2; ten lines of `hmac` against a dependency whose risks lie
    in verifying, which is not done here.
    """

    access_key: str
    secret_key: str = field(repr=False)
    clock: Clock

    def __call__(self) -> str:
        now = self.clock()
        claims: dict[str, str | int] = {
            "iss": self.access_key,
            "exp": int((now + LIFETIME).timestamp()),
            "nbf": int((now - BACKDATED).timestamp()),
        }
        signed = f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(claims)}"
        signature = hmac.digest(self.secret_key.encode(), signed.encode(), "sha256")
        return f"Bearer {signed}.{_base64url(signature)}"


def _segment(claims: Mapping[str, str | int]) -> str:
    return _base64url(json.dumps(claims, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def authorization_for(key: str, clock: Clock) -> Callable[[], str]:
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
    return lambda: f"Bearer {access}"
