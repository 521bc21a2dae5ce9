"""Flat configurations of bots and chat endpoints: some fields sealed, shown as masks, kept when a mask comes back."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from handlers.sinks.credentials import MASK, MASKED, moved_faults
from service.domain.errors import Fault
from service.domain.faults import accept_by_rules
from service.domain.secrets import Vault

PLACE: Final = "server"  # where secrets go, but for the platform's own


def configured(
    model: type[BaseModel],
    secret_names: frozenset[str],
    raw: object,
    *,
    pointer: str,
    vault: Vault,
    before: tuple[Mapping[str, Any], str | None] | None,
    more_faults: Callable[[BaseModel], list[Fault]],
) -> tuple[Mapping[str, Any], str | None]:
    """The readable part, and the secret part, sealed.

    Args:
        before: both, as they are now; what `raw` does not name stays as it is there.
        more_faults: what the model cannot tell. A field that the model refuses is empty text there.

    Raises:
        InvalidFields: with every fault.
    """
    faults: list[Fault] = []
    given = raw
    if isinstance(raw, dict):
        given, faults = _completed(raw, secret_names, pointer, vault, before)
    # Of a mask that stands for nothing, that alone is told.
    config = accept_by_rules(model, given, more_faults, pointer=pointer, known=faults)
    values = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
    secrets = {name: value for name, value in values.items() if name in secret_names}
    public = {name: MASK if name in secrets else value for name, value in values.items()}
    return public, vault.seal(to_json(secrets).decode()) if secrets else None


def opened(vault: Vault, credentials: str | None) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ConfigurationError: under another KLINGEL_SECRET.
    """
    if credentials is None:
        return {}
    secrets: dict[str, Any] = from_json(vault.open(credentials))
    return secrets


def _completed(
    raw: Mapping[str, Any],
    secret_names: frozenset[str],
    pointer: str,
    vault: Vault,
    before: tuple[Mapping[str, Any], str | None] | None,
) -> tuple[dict[str, Any], list[Fault]]:
    faults: list[Fault] = []
    public, credentials = before or ({}, None)
    kept = opened(vault, credentials)
    known = {name: value for name, value in public.items() if name not in secret_names}
    carried = {name for name in secret_names & kept.keys() if raw.get(name, MASK) == MASK}
    changed = {**known, **raw, **{name: kept[name] for name in carried}}
    faults += [
        Fault(MASKED, f"{pointer}/{name}")
        for name in sorted(secret_names)
        if raw.get(name) == MASK and name not in carried
    ]
    if before is not None:
        faults += moved_faults(changed.get(PLACE), public.get(PLACE), sorted(carried), pointer)
    return changed, faults
