"""What the person running the sandbox chooses, at start or by `PUT /settings`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from handlers.providers.sandbox.faults import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How the stand-in behaves.

    Args:
        step: between submitted and processing, and between processing and the end.
        faults: apply to every task, besides those its prompt asks for.
        keys: bearer keys (of a JWT, its `iss`) that are let in; None lets any non-empty one in and leaves `/log` and
            `/settings` open.
        slots: running tasks at once, for images and for videos each; an image task takes `n` of them. None: no limit.
        webhook_secret: `whsec_…`; callbacks then carry Standard Webhooks headers.
        callback_timeout: for one attempt, from connecting to the last byte.
        callback_retries: further attempts after a failure or a non-2xx; Kling promises none.
        public_url: where outputs are fetched from, without a trailing slash; None: where the create was sent to.
        hang: how long an answer is held back by the fault of that name.
        callback_origins: where callbacks may go, each as `http://host:port`; None: wherever the transport takes them.
    """

    step: timedelta = timedelta(seconds=1)
    faults: frozenset[Fault] = frozenset()
    keys: frozenset[str] | None = field(default=None, repr=False)
    slots: int | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    callback_timeout: timedelta = timedelta(seconds=30)
    callback_retries: int = 0
    public_url: str | None = None
    hang: timedelta = timedelta(seconds=60)
    callback_origins: frozenset[str] | None = None


class SettingsError(Exception):
    """Changes that were turned down, all their faults in one text."""


LONGEST: Final = 3600.0


def _faults(value: object) -> frozenset[Fault]:
    if not isinstance(value, list):
        raise SettingsError("must be a list")
    if unknown := [word for word in value if word not in list(Fault)]:
        raise SettingsError(f"{unknown} not among {', '.join(Fault)}")
    return frozenset(Fault(word) for word in value)


def _span(value: object) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise SettingsError(f"must be a number of seconds from 0 to {LONGEST:.0f}")
    return timedelta(seconds=value)


def _slots(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError("must be null or a number from 0")
    return value


CHANGES: Final[Mapping[str, tuple[str, Callable[[object], object]]]] = {
    "faults": ("faults", _faults),
    "step_s": ("step", _span),
    "slots": ("slots", _slots),
    "hang_s": ("hang", _span),
}


def changed(settings: SandboxSettings, changes: object) -> SandboxSettings:
    """The settings with what `PUT /settings` asked for; what it does not name stays.

    Raises:
        SettingsError: naming every fault in the changes.
    """
    if not isinstance(changes, dict):
        raise SettingsError("an object is needed")
    values: dict[str, object] = {}
    problems = []
    for name, value in changes.items():
        if name not in CHANGES:
            problems.append(f"{name} is not one of {', '.join(CHANGES)}")
            continue
        attribute, read = CHANGES[name]
        try:
            values[attribute] = read(value)
        except SettingsError as refused:
            problems.append(f"{name}: {refused}")
    if problems:
        raise SettingsError("; ".join(problems))
    return replace(settings, **values)  # type: ignore[arg-type]


def shown(settings: SandboxSettings) -> dict[str, object]:
    return {
        "faults": sorted(settings.faults),
        "step_s": settings.step.total_seconds(),
        "slots": settings.slots,
        "hang_s": settings.hang.total_seconds(),
        "known_faults": list(Fault),
    }
