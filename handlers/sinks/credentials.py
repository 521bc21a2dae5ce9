"""The secret part of an endpoint's configuration: sealed where it is kept, masked where it is shown."""

import base64
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic_core import from_json, to_json
from yarl import URL

from service.domain.endpoints import Endpoint
from service.domain.errors import Fault
from service.domain.models import StrictModel
from service.domain.secrets import Vault

MASK: Final = "••••"
MASKED: Final = "This stands in for a stored value, and there is none here. Give the value itself."
ELSEWHERE: Final = "The stored value was given for another server. Give one for this server, or none."


class BasicAuth(StrictModel):
    username: Annotated[str, Field(max_length=255, pattern=r"^[^:\x00-\x1f\x7f]*$")]
    password: Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]

    def shown(self) -> dict[str, str]:
        return {"username": self.username, "password": MASK}


def seal(vault: Vault, secrets: Mapping[str, Any]) -> str | None:
    """None where there is nothing to keep."""
    return vault.seal(to_json(secrets).decode()) if secrets else None


def unseal(vault: Vault, endpoint: Endpoint) -> dict[str, Any]:
    """What `seal` was given, as JSON has it.

    Raises:
        ConfigurationError: it was sealed under another KLINGEL_SECRET.
    """
    if endpoint.credentials is None:
        return {}
    secrets: dict[str, Any] = from_json(vault.open(endpoint.credentials))
    return secrets


def basic_authorization(username: str, password: str) -> str:
    """The header's value (RFC 7617, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def unmasked_basic_auth(given: object, kept: Mapping[str, Any] | None) -> object:
    """As it was read, sent back: the masked password is the stored one, if the name is still the same."""
    if isinstance(given, dict) and kept is not None and given == {**kept, "password": MASK}:
        return dict(kept)
    return given


def basic_auth_faults(given: object, pointer: str) -> list[Fault]:
    if isinstance(given, dict) and given.get("password") == MASK:
        return [Fault(MASKED, f"{pointer}/password")]
    return []


def moved_faults(url: object, before: object, carried: Iterable[str], pointer: str) -> list[Fault]:
    """What is stored is not sent to another scheme, host or port than it was given for.

    Args:
        url: where it is to go from now on; None is its kind's usual place.
        before: where it went.
        carried: paths below `pointer` of what would be carried there without having been given anew.
    """
    if _origin(url) == _origin(before):
        return []
    return [Fault(ELSEWHERE, f"{pointer}/{path}") for path in carried]


def _origin(url: object) -> object:
    """By the parser of those who dial it; what that cannot read is no place that was there before."""
    if not isinstance(url, str):
        return url
    try:
        return str(URL(url).origin())
    except ValueError:
        return url
