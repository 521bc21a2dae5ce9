"""Who asks, by the bearer key."""

import base64
import binascii
import json

from handlers.providers.sandbox.answers import Code, RequestError


def account_of(authorization: str | None, *, keys: frozenset[str] | None) -> str:
    """The key itself, or a JWT's issuer: on the official API a new token is minted every half hour (Kling, "Authentication").

    A token's signature and times are not checked; the sandbox holds no secret to check them with.

    Raises:
        RequestError: 1001 without a header, 1002 for a key that is not let in.
    """
    if not authorization:
        raise RequestError(Code.AUTHORIZATION_EMPTY, "Authorization is empty")
    scheme, _, token = authorization.partition(" ")
    account = _issuer(token.strip()) or token.strip()
    if scheme.lower() != "bearer" or not account or (keys is not None and account not in keys):
        raise RequestError(Code.AUTHORIZATION_INVALID, "api key not found")
    return account


def _issuer(token: str) -> str | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    except (binascii.Error, ValueError):
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else None
